"""From a message to the request by which Meta is asked to send it."""

from typing import Final, assert_never

from services.sessions.domain.addresses import digits
from services.sessions.engines.port import Outgoing, Refused, Unsupported
from shared.contracts.content import (
    ContactCard,
    Edit,
    Location,
    Media,
    Poll,
    Reaction,
    Revoke,
    Sendable,
    Text,
)
from shared.media import kinds

Json = dict[str, object]

LID: Final = "@lid"
_MIB: Final = 1024 * 1024
# Meta has less room for images than linked devices have.
_LARGEST: Final = {"image": 5 * _MIB}
_CAPTIONED: Final = frozenset({"image", "video", "document"})


def request(outgoing: Outgoing, *, media_id: str | None) -> Json:
    """What to POST. ``media_id`` is Meta's id of the file, if the message has one.

    Raises ``Unsupported`` for what the Cloud API has no words for.
    """
    kind, said = _said(outgoing.content, media_id)
    body: Json = {
        "messaging_product": "whatsapp",
        "recipient_type": "individual",
        **_recipient(outgoing.to),
        "type": kind,
        kind: said,
        # Comes back with every receipt.
        "biz_opaque_callback_data": outgoing.engine_message_id,
    }
    content = outgoing.content
    if isinstance(content, Text | Media) and content.reply_to is not None:
        body["context"] = {"message_id": content.reply_to}
    return body


def check(outgoing: Outgoing) -> None:
    """Raise ``Refused`` for a file that Meta would not take, before it is uploaded."""
    content, file = outgoing.content, outgoing.attachment
    if not isinstance(content, Media):
        return
    if file is None:
        raise Refused("The message has no file.")
    if kinds.needs_conversion(content.kind, file.mime_type):
        native = ", ".join(sorted(kinds.RULES[content.kind].native))
        raise Refused(
            f"The Cloud API takes no {file.mime_type} as {content.kind}: send {native}, or send it"
            " as document."
        )
    most = _LARGEST.get(content.kind)
    if most is not None and file.size > most:
        raise Refused(
            f"The Cloud API takes no {content.kind} of more than {most} bytes: make it smaller, or"
            " send it as document."
        )


def read_mark(message_id: str, *, typing: bool = False) -> Json:
    """What tells the other side that a message was read, and with ``typing`` that we answer."""
    body: Json = {
        "messaging_product": "whatsapp",
        "status": "read",
        "message_id": message_id,
    }
    if typing:
        body["typing_indicator"] = {"type": "text"}
    return body


def _recipient(to: str) -> Json:
    number = digits(to)
    if number is not None:
        return {"to": number}
    if to.endswith(LID):
        return {"recipient": to.removesuffix(LID)}
    raise Unsupported("The Cloud API writes to people only, not to groups.")


def _said(content: Sendable, media_id: str | None) -> tuple[str, Json | list[Json]]:
    match content:
        case Text():
            return "text", {"body": content.text, "preview_url": content.link_preview}
        case Media():
            return _file(content, media_id)
        case Location():
            place: Json = {"latitude": content.latitude, "longitude": content.longitude}
            named = {"name": content.name, "address": content.address}
            return "location", place | {name: word for name, word in named.items() if word}
        case Reaction():
            return "reaction", {"message_id": content.target_id, "emoji": content.emoji}
        case ContactCard():
            return "contacts", [_card(content)]
        case Poll() | Edit() | Revoke():
            raise Unsupported(f"The Cloud API cannot send this ({content.kind}).")
        case _:
            assert_never(content)


def _file(content: Media, media_id: str | None) -> tuple[str, Json]:
    kind = "audio" if content.kind == "voice" else content.kind
    file: Json = {"id": media_id}
    if content.caption and kind in _CAPTIONED:
        file["caption"] = content.caption
    if content.filename and kind == "document":
        file["filename"] = content.filename
    if content.kind == "voice":
        file["voice"] = True
    return kind, file


def _card(content: ContactCard) -> Json:
    # Meta wants one more part of the name than the whole of it.
    name: Json = {"formatted_name": content.name, "first_name": content.name}
    phones: list[Json] = []
    for phone in content.phones:
        number = digits(phone)
        phones.append({"phone": phone, "type": "CELL", **({"wa_id": number} if number else {})})
    return {"name": name, **({"phones": phones} if phones else {})}
