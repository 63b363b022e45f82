"""A message as the dispatcher knows it, and the events that tell of its progress."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final
from uuid import UUID

from shared.contracts.commands import Receipt
from shared.contracts.content import Identity
from shared.contracts.envelope import Emitted
from shared.contracts.events import (
    Failure,
    MessageDelivered,
    MessageFailed,
    MessageRead,
    MessageSent,
    OutboundEvent,
)
from shared.ids import id_of

# How far along a status is; a message only ever moves to a higher one. ``failed`` and ``canceled``
# end it where nothing else is possible any more.
PROGRESS: Final = {
    "scheduled": 0,
    "queued": 1,
    "sending": 2,
    "retrying": 2,
    "unconfirmed": 3,
    "sent": 4,
    "delivered": 5,
    "read": 6,
    "failed": 9,
    "canceled": 9,
}
# How a message ends, as far as sending it goes; nothing puts it on the wire again.
FINAL: Final = frozenset({"sent", "delivered", "read", "failed", "canceled"})
# What changes another message once it is accepted.
CHANGING: Final = frozenset({"edit", "revoke"})
_ARRIVED: Final = frozenset({"delivered", "read"})
_RECEIPTS: Final[dict[str, type[OutboundEvent]]] = {
    "sent": MessageSent,
    "delivered": MessageDelivered,
    "read": MessageRead,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What deciding about a message takes."""

    id: UUID
    tenant_id: UUID
    instance_id: UUID
    chat: str
    sender: str
    recipient: str
    type: str
    metadata: dict[str, str] | None
    status: str
    attempts: int
    transmission_id: UUID | None
    engine_message_id: str | None
    on_unknown: str
    request_id: str | None
    sent_at: datetime | None
    delivered_at: datetime | None
    read_at: datetime | None


def received(message: Message, receipts: Iterable[Receipt]) -> tuple[Message, list[Emitted]]:
    """The message after some receipts, and what there is to tell.

    Doubled receipts and those that come too late change nothing. One that implies an earlier step
    tells of that step first: reading implies sending, but is not said to imply delivery. What has
    reached somebody has not failed, whatever is said of another device.
    """
    told: list[Emitted] = []
    for receipt in sorted(receipts, key=lambda receipt: (receipt.at, PROGRESS[receipt.kind])):
        if PROGRESS[receipt.kind] <= PROGRESS[message.status]:
            continue
        if receipt.kind == "failed":
            if message.status not in _ARRIVED:
                id_ = receipt.engine_message_id or message.engine_message_id
                message = replace(message, status="failed", engine_message_id=id_)
                told.append(failure(message, *refusal(receipt), receipt.at))
            continue
        if message.sent_at is None:
            id_ = receipt.engine_message_id or message.engine_message_id
            message = replace(message, status="sent", sent_at=receipt.at, engine_message_id=id_)
            told.append(progress(message, "sent", receipt.at))
        if receipt.kind == "delivered":
            message = replace(message, delivered_at=receipt.at)
        if receipt.kind == "read":
            message = replace(message, read_at=receipt.at)
        if receipt.kind != "sent":
            message = replace(message, status=receipt.kind)
            told.append(progress(message, receipt.kind, receipt.at))
    return message, told


def refusal(receipt: Receipt) -> tuple[str, str]:
    """The code and the words of a receipt by which WhatsApp takes a message back."""
    return (
        receipt.code or "REJECTED",
        receipt.detail or "WhatsApp could not deliver the message.",
    )


def progress(message: Message, kind: str, at: datetime) -> Emitted:
    """``message.sent``, ``message.delivered`` or ``message.read``."""
    return _emitted(message, _RECEIPTS[kind].model_validate(_facts(message, at)), at)


def failure(message: Message, code: str, reason: str, at: datetime) -> Emitted:
    """``message.failed``."""
    error = Failure(code=code, message=reason)
    facts = {**_facts(message, at), "error": error}
    return _emitted(message, MessageFailed.model_validate(facts), at)


def address(chat: str) -> str:
    """How an address is shown: ``+`` and digits for a person's number, WhatsApp's id otherwise."""
    number, _, server = chat.partition("@")
    return f"+{number}" if server == "s.whatsapp.net" else chat


def chats(messages: Sequence[Message]) -> tuple[list[UUID], list[str]]:
    """The chats of some messages, each once, as two columns in a fixed order."""
    pairs = sorted({(message.instance_id, message.chat) for message in messages})
    return [instance for instance, _ in pairs], [chat for _, chat in pairs]


def _facts(message: Message, at: datetime) -> dict[str, object]:
    shown = address(message.chat)
    return {
        "message_id": str(message.id),
        "from": message.sender,
        "to": message.recipient,
        "message_type": message.type,
        "timestamp": at,
        "identity": Identity(chat_id=message.chat, phone=shown if shown.startswith("+") else None),
        "engine_message_id": message.engine_message_id,
        "metadata": message.metadata,
    }


def _emitted(message: Message, event: OutboundEvent, at: datetime) -> Emitted:
    return Emitted(
        id=id_of(event.TYPE, message.id),
        event=event,
        tenant_id=message.tenant_id,
        instance_id=message.instance_id,
        time=at,
        subject=f"messages/{message.id}",
        partition_key=message.chat,
        correlation_id=message.request_id,
    )
