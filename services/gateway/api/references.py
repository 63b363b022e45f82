"""Messages that a caller speaks of: by Waypost's id, or by WhatsApp's own."""

from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from services.gateway.domain.principal import Scope
from services.gateway.store import messages
from shared.web.body import invalid


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
        raise invalid({field: "is not a message of this instance; check the id"})
    return found.engine_message_id
