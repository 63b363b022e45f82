"""The event log, in an order that readers can rely on."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, or_, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.gateway.domain.event_names import Selection
from services.gateway.domain.principal import Scope
from shared.db.database import Database
from shared.db.tables.gateway import EventRow

# Any number, as long as nothing else in this database locks it.
_LOG_LOCK = 0x5741_5950_4F53_5401


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event for the log; ``body`` is structured CloudEvents JSON."""

    id: UUID
    tenant_id: UUID
    instance_id: UUID | None
    type: str
    time: datetime
    body: bytes


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """An event of the log."""

    sequence: int
    body: bytes


async def append(database: Database, events: Sequence[NewEvent]) -> None:
    """Add events to the log; those that are in it already stay as they are.

    Writers take turns, from before they look for the highest number until after their commit. So
    whoever has seen a number has seen every lower one that there will ever be.
    """
    async with database.hot_tx() as connection:
        # A statement of its own: one that also looked at the table would look before it waited.
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOG_LOCK)
        await connection.execute(
            """
            INSERT INTO gateway.events (sequence, id, tenant_id, instance_id, type, time, body)
            SELECT last.sequence + u.place, u.id, u.tenant_id, u.instance_id, u.type, u.time, u.body
            FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::timestamptz[],
                        $6::bytea[])
                WITH ORDINALITY AS u (id, tenant_id, instance_id, type, time, body, place)
            CROSS JOIN (SELECT coalesce(max(sequence), 0) AS sequence FROM gateway.events) AS last
            ORDER BY u.place
            ON CONFLICT (id) DO NOTHING
            """,
            [event.id for event in events],
            [event.tenant_id for event in events],
            [event.instance_id for event in events],
            [event.type for event in events],
            [event.time for event in events],
            [event.body for event in events],
        )


async def page(
    tx: AsyncConnection, scope: Scope, selection: Selection, *, after: int, limit: int
) -> list[LoggedEvent]:
    """Events, oldest first, whose number is higher than ``after``."""
    query = (
        select(EventRow.sequence, EventRow.body)
        .where(
            EventRow.tenant_id == scope.tenant_id, EventRow.sequence > after, *_selected(selection)
        )
        .order_by(EventRow.sequence)
        .limit(limit)
    )
    if scope.instances is not None:
        query = query.where(EventRow.instance_id.in_(scope.instances))
    return [LoggedEvent(sequence, bytes(body)) for sequence, body in await tx.execute(query)]


async def forget(tx: AsyncConnection, *, before: datetime, at_most: int) -> int:
    """Delete old events, but never the last one: its number is where the next one goes on."""
    gone = await tx.execute(
        text(
            """
            DELETE FROM gateway.events WHERE sequence IN (
                SELECT sequence FROM gateway.events
                WHERE time < :before AND sequence < (SELECT max(sequence) FROM gateway.events)
                ORDER BY time LIMIT :at_most
            )
            """
        ),
        {"before": before, "at_most": at_most},
    )
    return gone.rowcount


def _selected(selection: Selection) -> list[ColumnElement[bool]]:
    if selection.everything:
        return []
    return [
        or_(
            EventRow.type.in_(selection.names),
            *(EventRow.type.startswith(family, autoescape=True) for family in selection.families),
        )
    ]
