"""Deliveries from being made to being claimed, and back when a claim comes to nothing.

Rows that were picked are named by ``= ANY (ARRAY(…))``, not joined: the planner cannot know that a
``LIMIT`` of unknown size is small, and to join what it takes for a tenth of the table it would read
all of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from services.webhooks.domain.delivery import Delivery
from services.webhooks.domain.endpoint import Endpoint
from shared.db.database import HotConnection
from shared.log import get_logger
from shared.security.sealing import KeyRing, Place, Unsealable, is_sealed

log = get_logger()

# What cannot be read is looked at again after so long: somebody may bring its key back.
UNREADABLE = timedelta(minutes=1)
# A body is erased with the delivery's end, unless its organization keeps what messages say.
ERASED = """
    CASE WHEN NOT EXISTS (
        SELECT FROM gateway.organizations g
        WHERE g.id = d.tenant_id AND g.content_storage = 'none'
    ) THEN d.body END
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDelivery:
    """A delivery about to be made. ``claimed`` means that this worker starts on it at once."""

    id: UUID
    endpoint: Endpoint
    event_id: UUID
    event_type: str
    instance_id: UUID | None
    message_id: UUID | None
    body: bytes
    claimed: bool

    def as_claimed(self, *, good_until: float) -> Delivery:
        """The same as the worker sees it."""
        return Delivery(
            id=self.id,
            endpoint_id=self.endpoint.id,
            event_id=self.event_id,
            event_type=self.event_type,
            instance_id=self.instance_id,
            body=self.body,
            attempts=0,
            good_until=good_until,
        )


async def insert(
    connection: HotConnection,
    rows: Sequence[NewDelivery],
    *,
    ring: KeyRing,
    worker: str,
    lease: timedelta,
    now: datetime,
) -> set[UUID]:
    """Make deliveries; return the ids of those that are new, and so whose claims hold.

    An event that comes again finds its deliveries made. Rows go in by (endpoint, event): two
    consumers that insert the same ones in different orders would deadlock.
    """
    ordered = sorted(rows, key=lambda row: (row.endpoint.id.int, row.event_id.int))
    made = await connection.fetch(
        """
        INSERT INTO webhooks.deliveries (
            id, tenant_id, instance_id, endpoint_id, event_id, event_type, message_id, body,
            state, attempts, next_at, claim_until, claimed_by, created_at
        )
        SELECT u.id, u.tenant_id, u.instance_id, u.endpoint_id, u.event_id, u.event_type,
               u.message_id, u.body, CASE WHEN u.claimed THEN 'claimed' ELSE 'pending' END, 0, $10,
               CASE WHEN u.claimed THEN clock_timestamp() + $11::interval END,
               CASE WHEN u.claimed THEN $12::text END, $10
        FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::uuid[], $6::text[],
                    $7::uuid[], $8::bytea[], $9::bool[])
            AS u (id, tenant_id, instance_id, endpoint_id, event_id, event_type, message_id, body,
                  claimed)
        ON CONFLICT (endpoint_id, event_id) DO NOTHING RETURNING id
        """,
        [row.id for row in ordered],
        [row.endpoint.tenant_id for row in ordered],
        [row.instance_id for row in ordered],
        [row.endpoint.id for row in ordered],
        [row.event_id for row in ordered],
        [row.event_type for row in ordered],
        [row.message_id for row in ordered],
        [ring.seal(row.body, _place(row.endpoint.tenant_id, row.id)) for row in ordered],
        [row.claimed for row in ordered],
        now,
        lease,
        worker,
    )
    return {row[0] for row in made}


async def claim(
    connection: HotConnection,
    rooms: Sequence[tuple[UUID, int]],
    *,
    ring: KeyRing,
    worker: str,
    lease: timedelta,
    good_until: float,
    probes: frozenset[UUID],
    now: datetime,
) -> list[Delivery]:
    """Take what is due for some endpoints, for each at most as many as there is room for.

    Concurrent callers never take the same one. The claim is a lease on the database's clock: once
    it has run out, ``reclaim`` gives the delivery to whoever comes next. One that no key opens
    is put off and stays.
    """
    rows = await connection.fetch(
        """
        WITH claimed AS (
            SELECT found.id
            FROM unnest($1::uuid[], $2::int[]) AS asked (endpoint_id, room)
            CROSS JOIN LATERAL (
                SELECT id FROM webhooks.deliveries
                WHERE endpoint_id = asked.endpoint_id AND state = 'pending' AND next_at <= $3
                ORDER BY next_at LIMIT asked.room
                FOR UPDATE SKIP LOCKED
            ) AS found
        )
        UPDATE webhooks.deliveries d
        SET state = 'claimed', claim_until = clock_timestamp() + $4::interval, claimed_by = $5
        WHERE d.id = ANY (ARRAY(SELECT id FROM claimed))
        RETURNING d.id, d.endpoint_id, d.event_id, d.event_type, d.instance_id, d.body,
                  d.attempts, d.next_at, d.tenant_id
        """,
        [endpoint_id for endpoint_id, _ in rooms],
        [room for _, room in rooms],
        now,
        lease,
        worker,
    )
    rows.sort(key=lambda row: row[7])
    claimed: list[Delivery] = []
    unreadable: list[UUID] = []
    for row in rows:
        try:
            body = _opened(ring, row[8], row[0], row[5])
        except Unsealable:
            log.exception("delivery_not_readable", delivery_id=str(row[0]))
            unreadable.append(row[0])
            continue
        claimed.append(
            Delivery(
                id=row[0],
                endpoint_id=row[1],
                event_id=row[2],
                event_type=row[3],
                instance_id=row[4],
                body=body,
                attempts=row[6],
                good_until=good_until,
                probe=row[1] in probes,
            )
        )
    if unreadable:
        await _put_off(connection, unreadable, worker=worker, until=now + UNREADABLE)
    return claimed


def _opened(ring: KeyRing, tenant_id: UUID, delivery_id: UUID, body: bytes | None) -> bytes:
    if body is None:
        raise Unsealable("The body has been erased.")
    # What an earlier version wrote is plain, and gone when its time here is over.
    return ring.open(body, _place(tenant_id, delivery_id)) if is_sealed(body) else body


def _place(tenant_id: UUID, delivery_id: UUID) -> Place:
    return Place(tenant_id, "webhooks.deliveries", str(delivery_id))


async def _put_off(
    connection: HotConnection, ids: Sequence[UUID], *, worker: str, until: datetime
) -> None:
    await connection.execute(
        """
        UPDATE webhooks.deliveries
        SET state = 'pending', claim_until = NULL, claimed_by = NULL, next_at = $3
        WHERE id = ANY ($1::uuid[]) AND state = 'claimed' AND claimed_by = $2
        """,
        ids,
        worker,
        until,
    )


async def release(connection: HotConnection, ids: Sequence[UUID], *, worker: str) -> None:
    """Give back claims that came to nothing. No attempt was made, so none is counted."""
    await connection.execute(
        """
        UPDATE webhooks.deliveries SET state = 'pending', claim_until = NULL, claimed_by = NULL
        WHERE id = ANY($1::uuid[]) AND state = 'claimed' AND claimed_by = $2
        """,
        ids,
        worker,
    )


async def release_all(connection: HotConnection, *, worker: str) -> int:
    """Give back every claim of a worker that is leaving."""
    done = await connection.execute(
        """
        UPDATE webhooks.deliveries SET state = 'pending', claim_until = NULL, claimed_by = NULL
        WHERE state = 'claimed' AND claimed_by = $1
        """,
        worker,
    )
    return _count(done)


async def reclaim(connection: HotConnection, *, limit: int) -> int:
    """Take claims away from workers that did not come back in time, so that others can have them.

    The attempt that was perhaps made is not counted: its repeat carries the same event id.
    """
    done = await connection.execute(
        """
        UPDATE webhooks.deliveries SET state = 'pending', claim_until = NULL, claimed_by = NULL
        WHERE id = ANY (ARRAY(
            SELECT id FROM webhooks.deliveries
            WHERE state = 'claimed' AND claim_until < clock_timestamp()
            ORDER BY claim_until LIMIT $1
            FOR UPDATE SKIP LOCKED
        ))
        """,
        limit,
    )
    return _count(done)


async def end_waiting(
    connection: HotConnection, endpoints: Sequence[UUID], *, limit: int, now: datetime
) -> int:
    """End what waits for endpoints that get nothing any more; how many, at most ``limit``."""
    done = await connection.execute(
        f"""
        UPDATE webhooks.deliveries d SET state = 'disabled', done_at = $3, body = {ERASED}
        WHERE id = ANY (ARRAY(
            SELECT id FROM webhooks.deliveries
            WHERE endpoint_id = ANY($1::uuid[]) AND state = 'pending'
            LIMIT $2
            FOR UPDATE SKIP LOCKED
        ))
        """,  # noqa: S608 - a constant of ours
        endpoints,
        limit,
        now,
    )
    return _count(done)


async def forget(connection: HotConnection, *, before: datetime, limit: int) -> int:
    """Delete deliveries made ``before``, with their attempts; return how many, at most ``limit``.

    Ids are UUIDv7, so the primary key finds the old ones: no index on a date has to be kept.
    """
    floor = UUID(int=int(before.timestamp() * 1000) << 80)
    gone = await connection.fetchval(
        """
        WITH old AS (
            SELECT id FROM webhooks.deliveries
            WHERE id < $1 AND created_at < $2 AND state <> 'claimed'
            ORDER BY id LIMIT $3
            FOR UPDATE SKIP LOCKED
        ), attempts AS (
            DELETE FROM webhooks.attempts WHERE delivery_id = ANY (ARRAY(SELECT id FROM old))
        ), deliveries AS (
            DELETE FROM webhooks.deliveries WHERE id = ANY (ARRAY(SELECT id FROM old)) RETURNING id
        )
        SELECT count(*) FROM deliveries
        """,
        floor,
        before,
        limit,
    )
    return int(gone)


async def retentions(
    connection: HotConnection, *, shorter_than: timedelta
) -> list[tuple[UUID, timedelta]]:
    """Tenants that keep messages for less than this, and for how long."""
    rows = await connection.fetch(
        """
        SELECT id, retention_days FROM gateway.organizations
        WHERE retention_days > 0 AND retention_days < $1 ORDER BY id
        """,
        shorter_than.days,
    )
    return [(row[0], timedelta(days=row[1])) for row in rows]


async def forget_of(
    connection: HotConnection, tenant_id: UUID, *, before: datetime, limit: int
) -> int:
    """Delete a tenant's deliveries made ``before`` that have ended, with their attempts.

    What still waits is told first, or given up: that takes three days, or as long as there is no
    key for it. Returns how many, at most ``limit``.
    """
    floor = UUID(int=int(before.timestamp() * 1000) << 80)
    gone = await connection.fetchval(
        """
        WITH old AS (
            SELECT id FROM webhooks.deliveries
            WHERE tenant_id = $1 AND id < $2 AND created_at < $3
              AND state NOT IN ('pending', 'claimed')
            ORDER BY id LIMIT $4
            FOR UPDATE SKIP LOCKED
        ), attempts AS (
            DELETE FROM webhooks.attempts WHERE delivery_id = ANY (ARRAY(SELECT id FROM old))
        ), deliveries AS (
            DELETE FROM webhooks.deliveries WHERE id = ANY (ARRAY(SELECT id FROM old)) RETURNING id
        )
        SELECT count(*) FROM deliveries
        """,
        tenant_id,
        floor,
        before,
        limit,
    )
    return int(gone)


def _count(status: str) -> int:
    """How many rows a statement's status, such as ``UPDATE 3``, tells of."""
    return int(status.rpartition(" ")[2])
