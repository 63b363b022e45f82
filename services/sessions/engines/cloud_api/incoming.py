"""From what Meta has POSTed to the port's events.

A stanza's key is made of Meta's own id of the message, so what is POSTed again has the key of the
first time.
"""

import base64
import binascii
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Literal
from uuid import UUID

from pydantic import JsonValue, ValidationError

from services.sessions.domain.addresses import PERSON
from services.sessions.engines.cloud_api.outgoing import LID
from services.sessions.engines.cloud_api.shapes import (
    Callback,
    Card,
    Contact,
    Error,
    File,
    Interactive,
    Message,
    Status,
    Value,
)
from services.sessions.engines.port import (
    EngineEvent,
    Incoming,
    MediaHandle,
    MessageReceived,
    Reaction,
    StatusChanged,
)
from shared.contracts.content import ContactCard, Content, Identity, Location, Media, Text
from shared.log import get_logger

log = get_logger()

# Played is read, and more.
_STATUSES: Final[dict[str, Literal["sent", "delivered", "read", "failed"]]] = {
    "sent": "sent",
    "delivered": "delivered",
    "read": "read",
    "played": "read",
    "failed": "failed",
}
_FILES: Final = ("image", "video", "audio", "document", "sticker")
_NUMBER: Final = re.compile(r"\+?([1-9][0-9]{4,19})")
_USER_ID: Final = re.compile(r"[A-Z]{2}(?:\.ENT)?\.[A-Za-z0-9]{1,128}")
_SECONDS: Final = re.compile(r"[0-9]{1,12}")
_LONGEST: Final = 65_536


class Unreadable(ValueError):
    """No honest callback looks like this."""


@dataclass(slots=True)
class Read:
    """What a callback tells. ``unreadable`` counts what of it could not be read."""

    events: list[EngineEvent] = field(default_factory=list)
    unreadable: int = 0

    def add(self, event: EngineEvent | None) -> None:
        """One more event, if it is one."""
        if event is not None:
            self.events.append(event)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Count what cannot be read, instead of losing what stands beside it."""
        try:
            yield
        except (Unreadable, ValidationError) as error:
            log.warning("callback_unreadable", error=type(error).__name__)
            self.unreadable += 1


def read(stored: bytes, *, instance_id: UUID, at: datetime) -> Read:
    """What a stored callback tells an instance; it came ``at``.

    Nothing for messages of kinds that Waypost does not know. Raises ``Unreadable`` if there is
    nothing at all to be made of it.
    """
    found = Read()
    try:
        values = Callback.model_validate_json(stored).values
    except ValidationError as error:
        raise Unreadable("it is not what the gateway stores") from error
    for raw in values:
        try:
            value = Value.model_validate(raw)
        except ValidationError:
            found.unreadable += 1
            continue
        for item in value.messages:
            with found.reading():
                found.add(_message(item, value.contacts, instance_id=instance_id, at=at))
        for item in value.statuses:
            with found.reading():
                found.add(_status(item, instance_id=instance_id, at=at))
    return found


def _message(
    item: JsonValue, contacts: Sequence[Contact], *, instance_id: UUID, at: datetime
) -> Incoming | None:
    message = Message.model_validate(item)
    sender = _sender(message, contacts)
    id_ = _id(message.id)
    when = _moment(message.timestamp, at=at)
    if message.type == "reaction" and message.reaction is not None:
        return Reaction(
            instance_id=instance_id,
            at=when,
            stanza_key=f"reaction|{id_}",
            chat=sender.chat_id,
            sender=sender,
            target_id=_id(message.reaction.message_id),
            emoji=_clean(message.reaction.emoji, longest=64),
        )
    said = _said(message)
    if said is None:
        log.info("callback_not_understood", message_type=_clean(message.type, longest=40))
        return None
    content, media = said
    reply_to = message.context.id if message.context is not None else None
    reply_to = None if not reply_to else _id(reply_to)
    if isinstance(content, Text | Media):
        content = content.model_copy(update={"reply_to": reply_to})
    return MessageReceived(
        instance_id=instance_id,
        at=when,
        stanza_key=f"message|{id_}",
        chat=sender.chat_id,
        sender=sender,
        engine_message_id=id_,
        content=content,
        reply_to=reply_to,
        media=media,
    )


def _status(item: JsonValue, *, instance_id: UUID, at: datetime) -> StatusChanged | None:
    receipt = Status.model_validate(item)
    status = _STATUSES.get(receipt.status)
    if status is None:
        return None
    ours = receipt.biz_opaque_callback_data
    return StatusChanged(
        instance_id=instance_id,
        at=_moment(receipt.timestamp, at=at),
        engine_message_id=_id(receipt.id),
        status=status,
        client_message_id=None if not ours else _clean(ours, longest=255),
        reason=_reason(receipt.errors) if status == "failed" else None,
    )


def _reason(errors: Sequence[Error]) -> str | None:
    if not errors:
        return None
    error = errors[0]
    details = error.error_data.details if error.error_data is not None else None
    words = " ".join(_clean(details or error.title or error.message or "").split())[:300]
    return f"WhatsApp says: {words.rstrip('.') or 'no reason'} ({error.code})."


def _said(  # noqa: PLR0911 - one for each kind
    message: Message,
) -> tuple[Content, MediaHandle | None] | None:
    """What a message says, if that is of a kind that we know."""
    file = _file_of(message)
    if file is not None:
        return _media(message.type, file)
    match message:
        case Message(type="text", text=text) if text is not None:
            return Text(text=_clean(text.body)), None
        case Message(type="button", button=button) if button is not None:
            return Text(text=_clean(button.text)), None
        case Message(type="interactive", interactive=answer) if answer is not None:
            return _chosen(answer)
        case Message(type="location", location=place) if place is not None:
            return Location(
                latitude=place.latitude,
                longitude=place.longitude,
                name=_word(place.name),
                address=_word(place.address),
            ), None
        case Message(type="contacts", contacts=cards) if cards:
            return _together(cards), None
        case _:
            return None


def _file_of(message: Message) -> File | None:
    if message.type not in _FILES:
        return None
    named: dict[str, File | None] = {
        "image": message.image,
        "video": message.video,
        "audio": message.audio,
        "document": message.document,
        "sticker": message.sticker,
    }
    return named[message.type]


def _media(kind: str, file: File) -> tuple[Media, MediaHandle]:
    told = Media.model_validate(
        {
            "kind": "voice" if kind == "audio" and file.voice else kind,
            "mime_type": _clean(file.mime_type.partition(";")[0].strip(), longest=255),
            "caption": _word(file.caption),
            "filename": _word(file.filename, longest=255),
            "sha256": _hex(file.sha256),
        }
    )
    return told, {"id": _id(file.id)}


def _chosen(answer: Interactive) -> tuple[Text, None] | None:
    for choice in (answer.button_reply, answer.list_reply, answer.nfm_reply):
        if choice is not None:
            return Text(text=_clean(choice.title or choice.body)), None
    return None


def _together(cards: Sequence[Card]) -> ContactCard:
    """Several cards as one: all names and all numbers."""
    names = [_clean(card.name.formatted_name, longest=255) for card in cards]
    phones = [
        f"+{phone.wa_id}" if phone.wa_id else phone.phone or ""
        for card in cards
        for phone in card.phones
    ]
    return ContactCard(
        name=", ".join(name for name in names if name),
        phones=tuple(dict.fromkeys(_clean(phone, longest=64) for phone in phones if phone)),
    )


def _sender(message: Message, contacts: Sequence[Contact]) -> Identity:
    """Who has written: by number if that is told, else by Meta's id of them."""
    contact = next(
        (
            one
            for one in contacts
            if (one.wa_id and one.wa_id == message.from_)
            or (one.user_id and one.user_id == message.from_user_id)
        ),
        contacts[0] if len(contacts) == 1 else Contact(),
    )
    number = _NUMBER.fullmatch(message.from_ or contact.wa_id or "")
    user = _USER_ID.fullmatch(message.from_user_id or contact.user_id or "")
    if number is not None:
        chat = f"{number[1]}{PERSON}"
    elif user is not None:
        chat = f"{user[0]}{LID}"
    else:
        raise Unreadable("a message of nobody")
    return Identity(
        phone=None if number is None else f"+{number[1]}",
        lid=None if user is None else f"{user[0]}{LID}",
        chat_id=chat,
        push_name=_word(contact.profile.name, longest=255),
    )


def _id(written: str) -> str:
    """An id of Meta's. Raises ``Unreadable`` if it is none: nothing could ever refer to it."""
    if not written or len(written) > 255 or "\x00" in written:
        raise Unreadable("a message without a usable id")
    return written


def _moment(seconds: str, *, at: datetime) -> datetime:
    """Meta's time of something, unless it is none or in the future."""
    if not _SECONDS.fullmatch(seconds) or not 0 < int(seconds) < at.timestamp():
        return at
    return datetime.fromtimestamp(int(seconds), UTC)


def _clean(words: str, *, longest: int = _LONGEST) -> str:
    """Words that the database can take: PostgreSQL stores no NUL, and JSON no half of a pair."""
    return words.replace("\x00", "").encode("utf-8", "replace").decode()[:longest]


def _word(words: str | None, *, longest: int = _LONGEST) -> str | None:
    return _clean(words, longest=longest) or None if words is not None else None


def _hex(encoded: str | None) -> str | None:
    try:
        digest = base64.b64decode(encoded or "", validate=True)
    except (binascii.Error, ValueError):
        return None
    return digest.hex() if len(digest) == 32 else None
