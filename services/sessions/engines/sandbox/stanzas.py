"""What the sandbox's stanzas say: written by its server, read into the engine's events."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final, Literal
from uuid import UUID

import orjson
from pydantic import TypeAdapter

from services.sessions.domain.addresses import canonical, digits
from services.sessions.engines.port import (
    EngineEvent,
    MediaHandle,
    MessageEdited,
    MessageReceived,
    MessageRevoked,
    Outgoing,
    Reaction,
    StatusChanged,
)
from services.sessions.engines.sandbox.files import IMAGE, PIXEL_HANDLE
from services.sessions.engines.sandbox.numbers import DELIVERED, READ, Answer
from services.sessions.engines.sandbox.server import Due, Echo
from shared.contracts import content as contents
from shared.contracts.commands import WriteFromSandboxContact
from shared.contracts.content import Content, Edit, Identity, Media, Revoke, Sendable, Text
from shared.ids import id_of
from shared.log import get_logger

log = get_logger()

CONTENT: Final[TypeAdapter[Content]] = TypeAdapter(Content)


def receipt(engine_message_id: str, status: Literal["delivered", "read"]) -> str:
    """A receipt for a message. Written by hand, because there are two for every message."""
    return f'{{"kind":"receipt","id":"{engine_message_id}","status":"{status}"}}'


def answer(kind: Answer, *, to: str, by: str, content: Content, media: MediaHandle | None) -> str:
    """What number ``by`` answers to message ``to``, which said ``content``."""
    if kind is Answer.IMAGE:
        content, media = IMAGE, PIXEL_HANDLE
    reply = "3EB0" + sha256(f"{to} answered".encode()).hexdigest()[:18].upper()
    return _message(reply, by=by, content=content, media=media)


def forwarded(
    outgoing: Outgoing, *, by: str, group: str | None, media: MediaHandle | None
) -> str | None:
    """What other accounts get of a message by number ``by``.

    ``None`` for the commonest, some words to one person: the server makes that from the content.
    """
    id_ = outgoing.engine_message_id
    said = outgoing.content
    match said:
        case contents.Reaction():
            target = None if said.target_sender is None else canonical(said.target_sender)
            return _changing(
                "reaction",
                said.target_id,
                id_,
                by=by,
                group=group,
                more={"emoji": said.emoji, "author": target},
            )
        case Edit():
            words = CONTENT.dump_python(Text(text=said.text), mode="json", exclude_none=True)
            return _changing(
                "edit", said.target_id, id_, by=by, group=group, more={"content": words}
            )
        case Revoke():
            return _changing("revoke", said.target_id, id_, by=by, group=group, more={})
        case Text(reply_to=None) if group is None:
            return None
        case _:
            return _message(id_, by=by, content=said, media=media, group=group)


def with_file(content: Media, *, mime_type: str, size: int, sha256: str) -> Media:
    """Media as others get it: what its file is, and not where the sender had it from."""
    facts = {"mime_type": mime_type, "size": size, "sha256": sha256, "url": None, "media_id": None}
    return content.model_copy(update=facts)


def _message(
    id_: str,
    *,
    by: str,
    content: Content,
    media: MediaHandle | None = None,
    group: str | None = None,
) -> str:
    reply_to = content.reply_to if isinstance(content, Text | Media) else None
    body = {
        "kind": "message",
        "id": id_,
        "from": by,
        "group": group,
        "content": orjson.Fragment(encode(content)),
        "reply_to": reply_to,
        "media": media,
    }
    return _dumped(body)


def _changing(
    kind: str,
    target: str,
    id_: str,
    *,
    by: str,
    group: str | None,
    more: Mapping[str, object],
) -> str:
    """What changes an earlier message; ``id_``, its own id, is the cause that tells it apart."""
    return _dumped({"kind": kind, "id": target, "from": by, "group": group, "cause": id_, **more})


def _dumped(body: Mapping[str, object]) -> str:
    return orjson.dumps({name: value for name, value in body.items() if value is not None}).decode()


def encode(content: Sendable | Content) -> str:
    """Content as JSON."""
    return content.model_dump_json(by_alias=True, exclude_none=True)


def written(
    command: WriteFromSandboxContact,
    *,
    content: Content | None,
    media: MediaHandle | None,
    cause: str,
) -> str:
    """What a contact did, as a stanza. ``cause`` tells a repeat of a command from a second one."""
    return _dumped(
        {
            "kind": command.action,
            "id": command.engine_message_id,
            "from": digits(command.from_) or canonical(command.from_),
            "group": command.group,
            "cause": cause,
            "push_name": command.push_name,
            "emoji": command.emoji,
            "reply_to": command.reply_to,
            "content": None if content is None else orjson.Fragment(encode(content)),
            "media": media,
        }
    )


def read(instance_id: UUID, body: Mapping[str, object], *, at: datetime) -> EngineEvent:
    """The event that a stanza tells. Raises ``ValueError`` if it says nothing that is known."""
    id_ = str(body["id"])
    if body["kind"] == "receipt":
        status: Literal["delivered", "read"] = "read" if body["status"] == "read" else "delivered"
        return StatusChanged(instance_id=instance_id, at=at, engine_message_id=id_, status=status)
    sender = _identity(canonical(str(body["from"])), body.get("push_name"))
    chat = str(body.get("group", sender.chat_id))
    # WhatsApp gives an edit, a revocation and a reaction an id of their own.
    own = f"{chat}|{id_ if body['kind'] == 'message' else body.get('cause')}"
    match str(body["kind"]):
        case "message":
            content = CONTENT.validate_python(body["content"])
            answers = content.reply_to if isinstance(content, Text | Media) else None
            reply_to = body.get("reply_to", answers)
            return MessageReceived(
                instance_id=instance_id,
                at=at,
                stanza_key=own,
                chat=chat,
                sender=sender,
                engine_message_id=id_,
                content=content,
                reply_to=None if reply_to is None else str(reply_to),
                media=_handle(body.get("media")),
            )
        case "edit":
            return MessageEdited(
                instance_id=instance_id,
                at=at,
                stanza_key=own,
                chat=chat,
                sender=sender,
                target_id=id_,
                content=CONTENT.validate_python(body["content"]),
            )
        case "revoke":
            return MessageRevoked(
                instance_id=instance_id,
                at=at,
                stanza_key=own,
                chat=chat,
                sender=sender,
                target_id=id_,
            )
        case "reaction":
            return Reaction(
                instance_id=instance_id,
                at=at,
                stanza_key=own,
                chat=chat,
                sender=sender,
                target_id=id_,
                emoji=str(body.get("emoji", "")),
                author=_author(body.get("author"), sender),
            )
        case unknown:
            raise ValueError(f"a stanza of kind {unknown!r}")


def _identity(chat: str, push_name: object) -> Identity:
    number = digits(chat)
    return Identity(
        phone=None if number is None else f"+{number}",
        chat_id=chat,
        push_name=None if push_name is None else str(push_name),
    )


def _handle(media: object) -> MediaHandle | None:
    if not isinstance(media, dict):
        return None
    return {str(name): str(value) for name, value in media.items()}


def _author(address: object, sender: Identity) -> Identity | None:
    """Who wrote what was reacted to, if that was somebody else than who reacted."""
    if address is None or address == sender.chat_id:
        return None
    return _identity(str(address), None)


def pairing_code(instance_id: UUID, *, shown_at: datetime, number: int) -> str:
    """What a QR code says: like WhatsApp's, four parts with commas, and different each time."""
    seed = id_of("sandbox.qr", instance_id, shown_at.isoformat(), number).hex
    return f"2@{seed},{seed[::-1]},{instance_id.hex},{number}"


def event_of(stanza: Due) -> EngineEvent | None:
    """The event that a stanza tells; ``None`` if it says nothing that is known."""
    try:
        return read(stanza.instance_id, stanza.body, at=stanza.due_at)
    except (ValueError, KeyError):
        # Nobody can ever read it, so keeping it would only be in the way of the others.
        log.exception("sandbox_stanza_unreadable", stanza_kind=str(stanza.body.get("kind")))
        return None


def echoes(stanza: Due, *, reads: bool) -> Sequence[Echo]:
    """What another instance learns once its message has been taken in.

    It was delivered, and, if whoever got it reads what they get, soon read.
    """
    origin = stanza.body.get("origin")
    if not isinstance(origin, str):
        return ()
    id_, sender = str(stanza.body.get("cause", stanza.body["id"])), UUID(origin)
    delivered = Echo(stanza.id, sender, timedelta(0), receipt(id_, "delivered"))
    if not reads:
        return (delivered,)
    return (delivered, Echo(stanza.id, sender, READ - DELIVERED, receipt(id_, "read")))
