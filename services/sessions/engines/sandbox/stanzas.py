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
    MessageEdited,
    MessageReceived,
    MessageRevoked,
    Reaction,
    StatusChanged,
)
from services.sessions.engines.sandbox.numbers import DELIVERED, READ, Answer
from services.sessions.engines.sandbox.server import Due, Echo
from shared.contracts.commands import WriteFromSandboxContact
from shared.contracts.content import Content, Identity, Media, Sendable
from shared.ids import id_of
from shared.log import get_logger

log = get_logger()

CONTENT: Final[TypeAdapter[Content]] = TypeAdapter(Content)
SENDABLE: Final[TypeAdapter[Sendable]] = TypeAdapter(Sendable)

# A picture of one white pixel: what a number that answers with an image says it sent.
IMAGE: Final = Media(
    kind="image", mime_type="image/png", caption="A picture from the sandbox", size=67
)


def receipt(engine_message_id: str, status: Literal["delivered", "read"]) -> str:
    """A receipt for a message. Written by hand, because there are two for every message."""
    return f'{{"kind":"receipt","id":"{engine_message_id}","status":"{status}"}}'


def answer(kind: Answer, *, to: str, by: str, content: str) -> str:
    """What number ``by`` answers to message ``to``; ``content`` is what that said, as JSON."""
    said = content if kind is Answer.SAME else encode(IMAGE)
    reply = "3EB0" + sha256(f"{to} answered".encode()).hexdigest()[:18].upper()
    return f'{{"kind":"message","id":"{reply}","from":"{by}","content":{said}}}'


def encode(content: Sendable) -> str:
    """Content as JSON."""
    return SENDABLE.dump_json(content, by_alias=True, exclude_none=True).decode()


def written(command: WriteFromSandboxContact, *, cause: str) -> str:
    """What a contact did, as a stanza. ``cause`` tells a repeat of a command from a second one."""
    body: dict[str, object] = {
        "kind": command.action,
        "id": command.engine_message_id,
        "from": digits(command.from_) or canonical(command.from_),
        "cause": cause,
    }
    optional = {
        "push_name": command.push_name,
        "emoji": command.emoji,
        "reply_to": command.reply_to,
    }
    body |= {name: value for name, value in optional.items() if value is not None}
    if command.content is not None:
        body["content"] = CONTENT.dump_python(
            command.content, mode="json", by_alias=True, exclude_none=True
        )
    return orjson.dumps(body).decode()


def read(instance_id: UUID, body: Mapping[str, object], *, at: datetime) -> EngineEvent:
    """The event that a stanza tells. Raises ``ValueError`` if it says nothing that is known."""
    id_ = str(body["id"])
    if body["kind"] == "receipt":
        status: Literal["delivered", "read"] = "read" if body["status"] == "read" else "delivered"
        return StatusChanged(instance_id=instance_id, at=at, engine_message_id=id_, status=status)
    chat = canonical(str(body["from"]))
    sender = _identity(chat, body.get("push_name"))
    # WhatsApp gives an edit, a revocation and a reaction an id of their own.
    own = f"{chat}|{id_ if body['kind'] == 'message' else body.get('cause')}"
    match str(body["kind"]):
        case "message":
            reply_to = body.get("reply_to")
            return MessageReceived(
                instance_id=instance_id,
                at=at,
                stanza_key=own,
                chat=chat,
                sender=sender,
                engine_message_id=id_,
                content=CONTENT.validate_python(body["content"]),
                reply_to=None if reply_to is None else str(reply_to),
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


def echoes(stanza: Due) -> Sequence[Echo]:
    """What another instance learns once its message has been taken in: delivered, soon read."""
    origin = stanza.body.get("origin")
    if not isinstance(origin, str):
        return ()
    id_, sender = str(stanza.body["id"]), UUID(origin)
    return (
        Echo(stanza.id, sender, timedelta(0), receipt(id_, "delivered")),
        Echo(stanza.id, sender, READ - DELIVERED, receipt(id_, "read")),
    )
