"""What decides whether somebody may try a password, beyond what is counted."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.db.tables.gateway import AuditLogRow, UserRow

LOGGED_IN = "user.logged_in"


async def unlocks(tx: AsyncConnection, user_id: UUID) -> int:
    """How often the user was unlocked; failures are counted anew from each time on."""
    found = await tx.execute(select(UserRow.unlocks).where(UserRow.id == user_id))
    return found.scalar_one()


async def unlock(tx: AsyncConnection, tenant_id: UUID, user_id: UUID) -> bool:
    """Forget the failures of a user of this tenant; false if there is none."""
    unlocked = await tx.execute(
        update(UserRow)
        .where(UserRow.id == user_id, UserRow.tenant_id == tenant_id)
        .values(unlocks=UserRow.unlocks + 1)
        .returning(UserRow.id)
    )
    return unlocked.first() is not None


async def is_familiar(
    tx: AsyncConnection, tenant_id: UUID, user_id: UUID, *, address: str, since: datetime
) -> bool:
    """Whether the user has logged in from this address since then, as the audit log says."""
    found = await tx.execute(
        select(AuditLogRow.id)
        .where(
            AuditLogRow.tenant_id == tenant_id,
            AuditLogRow.resource_id == str(user_id),
            AuditLogRow.at >= since,
            AuditLogRow.action == LOGGED_IN,
            AuditLogRow.address == address,
        )
        .limit(1)
    )
    return found.first() is not None
