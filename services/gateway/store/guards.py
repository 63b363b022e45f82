"""How much of an instance's limits is used, as the dispatcher's transmissions tell."""

from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from services.gateway.domain.guard import WINDOWS, Last, Used
from shared.db.tables.dispatcher import PacingRow, TransmissionRow
from shared.db.tables.gateway import OrganizationRow


async def used(
    tx: AsyncConnection, instance_id: UUID, limits: Mapping[str, int], *, now: datetime
) -> dict[str, Used]:
    """How many transmissions lie in each window, and which of them decides about the next."""
    found = {}
    for name, span in WINDOWS.items():
        recent = select(TransmissionRow.created_at).where(
            TransmissionRow.instance_id == instance_id, TransmissionRow.created_at > now - span
        )
        total = await tx.execute(select(func.count()).select_from(recent.subquery()))
        count = total.scalar_one()
        deciding = None
        if limits[name] and count >= limits[name]:
            newest = recent.order_by(TransmissionRow.created_at.desc())
            deciding = (await tx.execute(newest.offset(limits[name] - 1).limit(1))).scalar_one()
        found[name] = Used(count, deciding)
    return found


async def held_until(tx: AsyncConnection, instance_id: UUID) -> datetime | None:
    """Until when WhatsApp asked this instance to send nothing."""
    found = await tx.execute(
        select(PacingRow.throttled_until).where(PacingRow.instance_id == instance_id)
    )
    return found.scalar_one_or_none()


async def last(tx: AsyncConnection, instance_id: UUID) -> Last | None:
    """The newest transmission."""
    found = await tx.execute(
        select(TransmissionRow.id, TransmissionRow.settled_at)
        .where(TransmissionRow.instance_id == instance_id)
        .order_by(TransmissionRow.created_at.desc())
        .limit(1)
    )
    row = found.one_or_none()
    return None if row is None else Last(*row)


async def zone(tx: AsyncConnection, tenant_id: UUID) -> str:
    """The time zone of an organization, in which days begin and quiet hours are."""
    found = await tx.execute(
        select(OrganizationRow.timezone).where(OrganizationRow.id == tenant_id)
    )
    return found.scalar_one()
