"""What came of attempts, and how that leaves their endpoints: written in batches."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from services.webhooks.domain.delivery import Answer
from services.webhooks.domain.health import Health, revived
from services.webhooks.store.deliveries import ERASED
from shared.db.database import HotConnection
from shared.security.sealing import KeyRing, Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """The state that an attempt leaves its delivery in; ``next_at`` if there is another one."""

    delivery_id: UUID
    tenant_id: UUID
    state: str
    next_at: datetime | None
    answer: Answer


async def write(
    connection: HotConnection,
    results: Sequence[Written],
    *,
    ring: KeyRing,
    worker: str,
    now: datetime,
) -> int:
    """Record attempts and what becomes of their deliveries, in one statement; how many counted.

    With its delivery's end a body is erased, unless it is to be kept. A result
    counts only while the claim is still this worker's, with one exception: a success is a success,
    even if somebody else has the delivery by now.
    """
    done = await connection.execute(
        f"""
        WITH results AS (
            SELECT * FROM unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::timestamptz[],
                                 $5::int[], $6::int[], $7::text[], $8::bytea[])
                AS r (id, state, next_at, at, duration_ms, status_code, error, response)
        ), updated AS (
            UPDATE webhooks.deliveries d
            SET state = r.state, attempts = d.attempts + 1,
                next_at = coalesce(r.next_at, d.next_at), claim_until = NULL, claimed_by = NULL,
                done_at = CASE WHEN r.next_at IS NULL THEN $9::timestamptz END,
                body = CASE WHEN r.next_at IS NULL THEN {ERASED} ELSE d.body END
            FROM results r
            WHERE d.id = r.id
              AND (d.state = 'claimed' AND d.claimed_by = $10
                   OR r.state = 'delivered' AND d.state IN ('claimed', 'pending'))
            RETURNING d.id, d.attempts
        )
        INSERT INTO webhooks.attempts
            (delivery_id, number, at, duration_ms, status_code, error, sealed_response)
        SELECT u.id, u.attempts, r.at, r.duration_ms, r.status_code, r.error, r.response
        FROM updated u JOIN results r ON r.id = u.id
        """,  # noqa: S608 - a constant of ours
        [result.delivery_id for result in results],
        [result.state for result in results],
        [result.next_at for result in results],
        [result.answer.at for result in results],
        [round(result.answer.duration.total_seconds() * 1000) for result in results],
        [result.answer.status for result in results],
        [result.answer.error for result in results],
        [_sealed(ring, result) for result in results],
        now,
        worker,
    )
    return int(done.rpartition(" ")[2])


def _sealed(ring: KeyRing, result: Written) -> bytes | None:
    """What was answered, which may repeat what it was sent."""
    excerpt = result.answer.excerpt
    if excerpt is None:
        return None
    place = Place(result.tenant_id, "webhooks.attempts", str(result.delivery_id))
    return ring.seal(excerpt.encode(), place)


async def lock_health(connection: HotConnection, endpoints: Collection[UUID]) -> dict[UUID, Health]:
    """How some endpoints are doing, locked until the end of the transaction, in one order for all.

    One that was switched on after we had disabled it comes with a new chance.
    """
    rows = await connection.fetch(
        """
        SELECT h.endpoint_id, h.consecutive_failures, h.consecutive_unreachable, h.failing_since,
               h.last_success_at, h.opened, h.open_until, h.disabled_at, h.disabled_reason,
               coalesce(h.disabled_at < w.updated_at, false)
        FROM webhooks.endpoint_health h LEFT JOIN gateway.webhooks w ON w.id = h.endpoint_id
        WHERE h.endpoint_id = ANY($1::uuid[])
        ORDER BY h.endpoint_id
        FOR UPDATE OF h
        """,
        list(endpoints),
    )
    found = {}
    for row in rows:
        health = Health(
            consecutive_failures=row[1],
            consecutive_unreachable=row[2],
            failing_since=row[3],
            last_success_at=row[4],
            opened=row[5],
            open_until=row[6],
            disabled_at=row[7],
            disabled_reason=row[8],
        )
        found[row[0]] = revived(health) if row[9] else health
    return found


async def save_health(connection: HotConnection, healths: Mapping[UUID, Health]) -> None:
    """Record how some endpoints are doing now."""
    ordered = sorted(healths.items(), key=lambda item: item[0].int)
    values = [health for _, health in ordered]
    await connection.execute(
        """
        INSERT INTO webhooks.endpoint_health (
            endpoint_id, consecutive_failures, consecutive_unreachable, failing_since,
            last_success_at, opened, open_until, disabled_at, disabled_reason
        )
        SELECT * FROM unnest($1::uuid[], $2::int[], $3::int[], $4::timestamptz[],
                             $5::timestamptz[], $6::int[], $7::timestamptz[], $8::timestamptz[],
                             $9::text[])
        ON CONFLICT (endpoint_id) DO UPDATE SET
            consecutive_failures = excluded.consecutive_failures,
            consecutive_unreachable = excluded.consecutive_unreachable,
            failing_since = excluded.failing_since,
            last_success_at = coalesce(
                excluded.last_success_at, endpoint_health.last_success_at
            ),
            opened = excluded.opened,
            open_until = excluded.open_until,
            disabled_at = excluded.disabled_at,
            disabled_reason = excluded.disabled_reason
        """,
        [id_ for id_, _ in ordered],
        [health.consecutive_failures for health in values],
        [health.consecutive_unreachable for health in values],
        [health.failing_since for health in values],
        [health.last_success_at for health in values],
        [health.opened for health in values],
        [health.open_until for health in values],
        [health.disabled_at for health in values],
        [health.disabled_reason for health in values],
    )
