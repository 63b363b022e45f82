"""Messages that a caller speaks of: by Waypost's id, or by WhatsApp's own."""

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from services.gateway.domain.engines import capabilities
from services.gateway.domain.principal import Scope
from services.gateway.domain.recipients import PERSON, NotAnAddress, address_of
from services.gateway.store import journeys, messages
from services.gateway.store.messages import Message
from shared.contracts.capabilities import Capability
from shared.errors import Rejected
from shared.web.body import invalid

_NOT_SENT: Final = frozenset({"scheduled", "queued", "sending", "retrying", "unconfirmed"})
_NEVER_SENT: Final = frozenset({"failed", "canceled"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Whose:
    """By which instance a message is spoken of, and of which engine that is."""

    tenant_id: UUID
    instance_id: UUID
    engine: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A message that is meant. ``sender`` is the canonical address of who wrote it, or ``None`` if
    the account itself did; ``message`` is there if it was named by Waypost's id.
    """

    engine_id: str
    sender: str | None
    message: Message | None = None


async def engine_id(
    tx: AsyncConnection, named: str, *, tenant_id: UUID, instance_id: UUID, field: str
) -> str:
    """WhatsApp's id of the message that ``named`` means; raises ``Rejected`` about ``field``.

    What is no id of ours is taken for one of WhatsApp's, which has the last word about it.
    """
    try:
        message_id = UUID(named)
    except ValueError:
        return named
    found = await messages.find(tx, Scope(tenant_id, frozenset({instance_id})), message_id)
    if found is None or found.engine_message_id is None:
        raise _unknown(field)
    return found.engine_message_id


async def reference(
    tx: AsyncConnection, named: str, *, whose: Whose, chat: str | None, field: str
) -> Reference:
    """The message that ``named`` means, in ``chat`` if that is known; raises ``Rejected``.

    Whoever answers or reacts to one must say who wrote it. Of an id of WhatsApp's that is known if
    we sent it, and follows if it is from a person's chat; in a group it must be named by ours.
    """
    try:
        message_id = UUID(named)
    except ValueError:
        return await _by_whatsapps_id(tx, named, whose=whose, chat=chat, field=field)
    scope = Scope(whose.tenant_id, frozenset({whose.instance_id}))
    found = await messages.find(tx, scope, message_id)
    if found is None or found.engine_message_id is None:
        raise _unknown(field)
    if found.direction == "inbound":
        return Reference(engine_id=found.engine_message_id, sender=writer(found), message=found)
    if found.status in _NEVER_SENT:
        raise invalid({field: f"is a message that was never sent ({found.status}); name another"})
    own_ids = Capability.CLIENT_MESSAGE_ID in capabilities(whose.engine)
    if found.status in _NOT_SENT and not own_ids:
        raise invalid({field: f"has not been sent yet ({found.status}); wait until it is sent"})
    return Reference(engine_id=found.engine_message_id, sender=None, message=found)


async def _by_whatsapps_id(
    tx: AsyncConnection, named: str, *, whose: Whose, chat: str | None, field: str
) -> Reference:
    if await journeys.was_sent(tx, whose.instance_id, named):
        return Reference(engine_id=named, sender=None)
    if chat is None or not chat.endswith(f"@{PERSON}"):
        raise invalid({field: "is not known here; name the message by the id that Waypost gave it"})
    return Reference(engine_id=named, sender=chat)


def writer(message: Message) -> str:
    """The canonical address of who wrote a message that was received."""
    try:
        return address_of(message.sender).chat
    except NotAnAddress:
        return message.chat


def _unknown(field: str) -> Rejected:
    return invalid({field: "is not a message of this instance; check the id"})
