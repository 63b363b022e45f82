"""How many messages tenants have had accepted in a month, and who has not been warned yet."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from uuid import UUID

from sqlalchemy import and_, or_, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.db.database import HotConnection
from shared.db.tables.gateway import MessageUsageRow, OrganizationRow


@dataclass(frozen=True, slots=True)
class MonthUsage:
    """What a tenant has used in one month, and by which plan and calendar."""

    tenant_id: UUID
    month: date
    accepted: int
    plan: str
    timezone: str


async def accepted(connection: HotConnection, tenant_id: UUID, month: date) -> int:
    """How many messages a tenant has had accepted in the month that begins with ``month``."""
    found: int | None = await connection.fetchval(
        "SELECT accepted FROM gateway.message_usage WHERE tenant_id = $1 AND month = $2",
        tenant_id,
        month,
    )
    return found or 0


async def of_month(tx: AsyncConnection, tenant_id: UUID, month: date) -> int:
    """The same, within a transaction."""
    query = select(MessageUsageRow.accepted).where(
        MessageUsageRow.tenant_id == tenant_id, MessageUsageRow.month == month
    )
    return (await tx.execute(query)).scalar_one_or_none() or 0


async def unwarned(
    tx: AsyncConnection, *, since: date, at_least: Mapping[str, int], at_most: int
) -> list[MonthUsage]:
    """Months from ``since`` on of which ``at_least`` so much is used, by plan, and nobody was told.

    They are locked until the commit.

    Concurrent callers never get the same one.
    """
    rows = await tx.execute(
        select(
            MessageUsageRow.tenant_id,
            MessageUsageRow.month,
            MessageUsageRow.accepted,
            OrganizationRow.plan,
            OrganizationRow.timezone,
        )
        .join(OrganizationRow, OrganizationRow.id == MessageUsageRow.tenant_id)
        .where(
            MessageUsageRow.month >= since,
            or_(
                *(
                    and_(OrganizationRow.plan == plan, MessageUsageRow.accepted >= accepted)
                    for plan, accepted in at_least.items()
                )
            ),
            MessageUsageRow.warned_at.is_(None),
        )
        .order_by(MessageUsageRow.tenant_id, MessageUsageRow.month)
        .limit(at_most)
        .with_for_update(of=MessageUsageRow, skip_locked=True)
    )
    return [MonthUsage(*row) for row in rows]


async def unwarn(tx: AsyncConnection, tenant_id: UUID, *, since: date) -> None:
    """Forget that the tenant was told about months from ``since`` on: another plan is near."""
    await tx.execute(
        update(MessageUsageRow)
        .where(MessageUsageRow.tenant_id == tenant_id, MessageUsageRow.month >= since)
        .values(warned_at=None)
    )


async def note_warned(
    tx: AsyncConnection, months: Sequence[tuple[UUID, date]], *, now: datetime
) -> None:
    """Write down that these tenants were told about these months."""
    await tx.execute(
        update(MessageUsageRow)
        .where(tuple_(MessageUsageRow.tenant_id, MessageUsageRow.month).in_(months))
        .values(warned_at=now)
    )
