"""The event log, in an order that readers can rely on."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, func, or_, select, text, true
from sqlalchemy.ext.asyncio import AsyncConnection

from services.gateway.domain.event_names import Selection
from services.gateway.domain.principal import Scope
from shared.db.database import Database
from shared.db.tables.gateway import EventLogRow, EventRow, InstanceRow, TenantLogRow
from shared.errors import Transient
from shared.log import get_logger
from shared.security.sealing import KeyRing, Place, Unsealable, is_sealed

log = get_logger()

# Any number, as long as nothing else in this database locks it.
_LOG_LOCK = 0x5741_5950_4F53_5401
# Higher than any number of the log.
_NO_NUMBER = 2**63 - 1


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event for the log; ``body`` is structured CloudEvents JSON, sealed as it is stored."""

    id: UUID
    tenant_id: UUID
    instance_id: UUID | None
    type: str
    time: datetime
    body: bytes


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """An event of the log; ``body`` is structured CloudEvents JSON."""

    sequence: int
    tenant_id: UUID
    instance_id: UUID | None
    instance_name: str | None
    type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class SealedEvent:
    """An event of the log that no key opens at this moment."""

    sequence: int
    tenant_id: UUID
    instance_id: UUID | None
    type: str


@dataclass(frozen=True, slots=True)
class LogPage:
    """Events of the log, and what the log was when they were read.

    ``head`` is the highest number then: whoever has this page and goes on from there misses
    nothing. What is numbered ``forgotten`` or lower may be gone, of the tenant or altogether.
    """

    events: list[LoggedEvent]
    head: int
    forgotten: int

    def follows(self, after: int) -> bool:
        """Whether nothing can be missing between ``after`` and this page."""
        return self.forgotten <= after <= self.head


async def append(database: Database, ring: KeyRing, events: Sequence[NewEvent]) -> None:
    """Add events to the log; those that are in it already stay as they are.

    Writers take turns, from before they look for the highest number until after their commit. So
    whoever has seen a number has seen every lower one that there will ever be.
    """
    # Before the lock: others wait for it.
    sealed = [ring.seal(event.body, _place(event.tenant_id, event.id)) for event in events]
    async with database.hot_tx() as connection:
        # A statement of its own: one that also looked at the table would look before it waited.
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOG_LOCK)
        await connection.execute(
            """
            INSERT INTO gateway.events
                (sequence, id, tenant_id, instance_id, type, time, body, logged_at)
            SELECT last.sequence + u.place, u.id, u.tenant_id, u.instance_id, u.type, u.time,
                u.body, clock_timestamp()
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
            sealed,
        )


async def head(database: Database) -> int:
    """The highest number in the log; 0 if nothing was ever logged."""
    async with database.hot() as connection:
        found: int = await connection.fetchval(
            "SELECT coalesce(max(sequence), 0) FROM gateway.events"
        )
        return found


async def page(
    tx: AsyncConnection,
    scope: Scope,
    selection: Selection,
    *,
    ring: KeyRing,
    after: int,
    limit: int,
    through: int | None = None,
) -> LogPage:
    """Events, oldest first, numbered from ``after`` (excluded) to ``through``.

    All in one statement, so that events and bounds are of the same moment. Raises ``Transient`` if
    no key opens one of them: to leave it out would lose it without a word.
    """
    where = [EventRow.tenant_id == scope.tenant_id, EventRow.sequence > after]
    if through is not None:
        where.append(EventRow.sequence <= through)
    if scope.instances is not None:
        where.append(EventRow.instance_id.in_(scope.instances))
    found = (
        select(
            EventRow.sequence,
            EventRow.id,
            EventRow.tenant_id,
            EventRow.instance_id,
            EventRow.type,
            EventRow.body,
        )
        .where(*where, *_selected(selection))
        .order_by(EventRow.sequence)
        .limit(limit)
        .subquery("found")
    )
    highest = select(func.coalesce(func.max(EventRow.sequence), 0)).scalar_subquery()
    bounds = (
        select(EventLogRow.forgotten_through)
        .union_all(
            select(TenantLogRow.forgotten_through).where(TenantLogRow.tenant_id == scope.tenant_id)
        )
        .subquery("bounds")
    )
    forgotten = select(func.coalesce(func.max(bounds.c.forgotten_through), 0)).scalar_subquery()
    log = select(highest.label("head"), forgotten.label("forgotten")).subquery("log")
    query = (
        select(
            log.c.head,
            log.c.forgotten,
            found.c.sequence,
            found.c.id,
            found.c.tenant_id,
            found.c.instance_id,
            InstanceRow.name,
            found.c.type,
            found.c.body,
        )
        .select_from(
            log.outerjoin(found, true()).outerjoin(
                InstanceRow, InstanceRow.id == found.c.instance_id
            )
        )
        .order_by(found.c.sequence)
    )
    rows = (await tx.execute(query)).all()
    events = [
        LoggedEvent(
            sequence, tenant_id, instance_id, name, type_, _opened(ring, tenant_id, id_, body)
        )
        for _, _, sequence, id_, tenant_id, instance_id, name, type_, body in rows
        if sequence is not None
    ]
    # There is always a row: without events it has the bounds alone.
    return LogPage(events, head=rows[0][0], forgotten=rows[0][1])


async def between(
    database: Database, tenants: Collection[UUID], *, ring: KeyRing, after: int, through: int
) -> list[LoggedEvent | SealedEvent]:
    """Every event of these tenants, oldest first, from ``after`` (excluded) to ``through``."""
    async with database.hot() as connection:
        rows = await connection.fetch(
            """
            SELECT e.id, e.sequence, e.tenant_id, e.instance_id, i.name, e.type, e.body
            FROM gateway.events e LEFT JOIN gateway.instances i ON i.id = e.instance_id
            WHERE e.sequence > $1 AND e.sequence <= $2 AND e.tenant_id = ANY ($3::uuid[])
            ORDER BY e.sequence
            """,
            after,
            through,
            list(tenants),
        )
    found: list[LoggedEvent | SealedEvent] = []
    for id_, sequence, tenant_id, instance_id, name, type_, body in rows:
        try:
            plain = _opened(ring, tenant_id, id_, body)
        except Transient:  # one that cannot be read must not hold up all others
            log.exception("event_not_readable", event_id=str(id_))
            found.append(SealedEvent(sequence, tenant_id, instance_id, type_))
            continue
        found.append(LoggedEvent(sequence, tenant_id, instance_id, name, type_, plain))
    return found


def _opened(ring: KeyRing, tenant_id: UUID, event_id: UUID, body: bytes) -> bytes:
    # What an earlier version wrote is plain, and gone when its time in the log is over.
    if not is_sealed(body):
        return bytes(body)
    try:
        return ring.open(body, _place(tenant_id, event_id))
    except Unsealable as error:
        raise Transient("An event cannot be read at the moment; try again shortly.") from error


def _place(tenant_id: UUID, event_id: UUID) -> Place:
    return Place(tenant_id, "gateway.events", str(event_id))


async def forget(tx: AsyncConnection, *, before: datetime, at_most: int) -> int:
    """Delete what was logged ``before``, but never the last one: the next goes on from its number.

    Oldest first, and nothing behind one that is kept: up to which number is noted, and whose cursor
    is lower than that is refused. By when it was logged: an event's own ``time`` may be days ago.
    """
    gone = await tx.execute(
        text(
            """
            WITH oldest AS (
                SELECT sequence, logged_at < :before AS old FROM gateway.events
                WHERE sequence < (SELECT max(sequence) FROM gateway.events)
                ORDER BY sequence LIMIT :at_most
            ), gone AS (
                DELETE FROM gateway.events WHERE sequence IN (
                    SELECT sequence FROM oldest WHERE old AND sequence < coalesce(
                        (SELECT min(sequence) FROM oldest WHERE NOT old), :none
                    )
                )
                RETURNING sequence
            ), noted AS (
                INSERT INTO gateway.event_log (id, forgotten_through)
                SELECT 1, max(sequence) FROM gone HAVING count(*) > 0
                ON CONFLICT (id) DO UPDATE SET forgotten_through =
                    greatest(event_log.forgotten_through, excluded.forgotten_through)
            )
            SELECT count(*) FROM gone
            """
        ),
        {"before": before, "at_most": at_most, "none": _NO_NUMBER},
    )
    forgotten: int = gone.scalar_one()
    return forgotten


async def forget_of(tx: AsyncConnection, tenant_id: UUID, *, before: datetime, at_most: int) -> int:
    """The same of one tenant alone: nobody else's cursor is refused for it."""
    gone = await tx.execute(
        text(
            """
            WITH oldest AS (
                SELECT sequence, logged_at < :before AS old FROM gateway.events
                WHERE tenant_id = :tenant_id
                  AND sequence < (SELECT max(sequence) FROM gateway.events)
                ORDER BY sequence LIMIT :at_most
            ), gone AS (
                DELETE FROM gateway.events WHERE sequence = ANY (ARRAY(
                    SELECT sequence FROM oldest WHERE old AND sequence < coalesce(
                        (SELECT min(sequence) FROM oldest WHERE NOT old), :none
                    )
                ))
                RETURNING sequence
            ), noted AS (
                INSERT INTO gateway.tenant_logs (tenant_id, forgotten_through)
                SELECT :tenant_id, max(sequence) FROM gone HAVING count(*) > 0
                ON CONFLICT (tenant_id) DO UPDATE SET forgotten_through =
                    greatest(tenant_logs.forgotten_through, excluded.forgotten_through)
            )
            SELECT count(*) FROM gone
            """
        ),
        {"tenant_id": tenant_id, "before": before, "at_most": at_most, "none": _NO_NUMBER},
    )
    forgotten: int = gone.scalar_one()
    return forgotten


def _selected(selection: Selection) -> list[ColumnElement[bool]]:
    if selection.everything:
        return []
    return [
        or_(
            EventRow.type.in_(selection.names),
            *(EventRow.type.startswith(family, autoescape=True) for family in selection.families),
        )
    ]
