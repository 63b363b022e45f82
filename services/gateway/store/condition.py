"""What tells how well things go: open breakers, what waits, and what has failed."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, func, literal, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from services.gateway.store.instances import Instance
from shared.db.tables.dispatcher import MessageRow, TransmissionRow
from shared.db.tables.gateway import WebhookRow
from shared.db.tables.webhooks import EndpointHealthRow

# Counting stops here: that many say enough.
MOST_COUNTED = 10_000


async def open_breakers(tx: AsyncConnection, *, now: datetime) -> int:
    """How many endpoints are left alone for a while, because they could not be reached."""
    found = await tx.execute(
        select(func.count())
        .select_from(EndpointHealthRow)
        .where(EndpointHealthRow.open_until > now)
    )
    return found.scalar_one()


async def open_breakers_of(tx: AsyncConnection, instance: Instance, *, now: datetime) -> int:
    """The same of the endpoints that an instance's events go to."""
    found = await tx.execute(
        select(func.count())
        .select_from(EndpointHealthRow)
        .join(WebhookRow, WebhookRow.id == EndpointHealthRow.endpoint_id)
        .where(
            EndpointHealthRow.open_until > now,
            WebhookRow.tenant_id == instance.tenant_id,
            or_(WebhookRow.instance_id.is_(None), WebhookRow.instance_id == instance.id),
        )
    )
    return found.scalar_one()


async def waiting(tx: AsyncConnection, *, instance_id: UUID | None) -> int:
    """How many messages are in line, of one instance or of all, at most ``MOST_COUNTED``."""
    conditions: list[ColumnElement[bool]] = [MessageRow.status.in_(("queued", "retrying"))]
    if instance_id is not None:
        conditions.append(MessageRow.instance_id == instance_id)
    return await _counted(tx, conditions)


async def failures(tx: AsyncConnection, instance_id: UUID, *, since: datetime) -> tuple[int, int]:
    """How many of an instance's transmissions have ended since then, and how many in vain."""
    ended = (
        select(TransmissionRow.outcome)
        .where(
            TransmissionRow.instance_id == instance_id,
            TransmissionRow.created_at >= since,
            TransmissionRow.outcome.is_not(None),
        )
        .limit(MOST_COUNTED)
        .subquery()
    )
    row = (
        await tx.execute(
            select(func.count(), func.count().filter(ended.c.outcome != "accepted")).select_from(
                ended
            )
        )
    ).one()
    return int(row[0]), int(row[1])


async def _counted(tx: AsyncConnection, conditions: Sequence[ColumnElement[bool]]) -> int:
    some = select(literal(1)).select_from(MessageRow).where(*conditions).limit(MOST_COUNTED)
    found = await tx.execute(select(func.count()).select_from(some.subquery()))
    return found.scalar_one()
