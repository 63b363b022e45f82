"""Which endpoints have something due, without looking at everything that waits."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from services.webhooks.domain.endpoint import Endpoint
from services.webhooks.store.endpoints import DISABLED, SIGNED_BY
from shared.db.database import HotConnection

START = UUID(int=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """An endpoint for which deliveries wait, the first of them until ``next_at``.

    Without ``endpoint`` they wait in vain: it is deleted, switched off or disabled. A breaker that
    is not closed has ``open_until``; once that is past, a single delivery may probe.
    """

    endpoint_id: UUID
    next_at: datetime
    endpoint: Endpoint | None
    open_until: datetime | None


async def endpoints(connection: HotConnection, *, after: UUID, limit: int) -> list[Waiting]:
    """The next ``limit`` endpoints, by id, for which deliveries wait.

    Hops from one endpoint to the next in the index of what waits: the cost is per endpoint, so a
    backlog of a million for one of them hides nobody else's.
    """
    rows = await connection.fetch(
        f"""
        WITH RECURSIVE hops AS (
            (SELECT endpoint_id, next_at FROM webhooks.deliveries
             WHERE state = 'pending' AND endpoint_id > $1
             ORDER BY endpoint_id, next_at LIMIT 1)
            UNION ALL
            SELECT hop.endpoint_id, hop.next_at
            FROM hops CROSS JOIN LATERAL (
                SELECT endpoint_id, next_at FROM webhooks.deliveries
                WHERE state = 'pending' AND endpoint_id > hops.endpoint_id
                ORDER BY endpoint_id, next_at LIMIT 1
            ) AS hop
        )
        SELECT f.endpoint_id, f.next_at,
               w.id IS NOT NULL AND w.active AND NOT coalesce({DISABLED}, false),
               w.tenant_id, w.instance_id, w.url, {SIGNED_BY}, w.events,
               CASE WHEN h.opened > 0 AND h.disabled_at IS NULL
                    THEN coalesce(h.open_until, 'epoch') END
        FROM (SELECT endpoint_id, next_at FROM hops LIMIT $2) AS f
        LEFT JOIN gateway.webhooks w ON w.id = f.endpoint_id
        LEFT JOIN webhooks.endpoint_health h ON h.endpoint_id = f.endpoint_id
        """,  # noqa: S608 - the condition is a constant of ours
        after,
        limit,
    )
    return [
        Waiting(
            endpoint_id=row[0],
            next_at=row[1],
            endpoint=Endpoint(
                id=row[0],
                tenant_id=row[3],
                instance_id=row[4],
                url=row[5],
                secret=row[6],
                patterns=tuple(row[7]),
                open=row[8] is not None,
            )
            if row[2]
            else None,
            open_until=row[8],
        )
        for row in rows
    ]


async def take_probes(
    connection: HotConnection, endpoints: Collection[UUID], *, window: timedelta, now: datetime
) -> frozenset[UUID]:
    """Of some endpoints whose breakers have been open long enough, those that we may now probe.

    Each is held for ``window``, so that no other worker probes it as well; a worker that dies with
    a probe costs that much time.
    """
    rows = await connection.fetch(
        """
        UPDATE webhooks.endpoint_health SET open_until = $2::timestamptz + $3::interval
        WHERE endpoint_id IN (
            SELECT endpoint_id FROM webhooks.endpoint_health
            WHERE endpoint_id = ANY($1::uuid[]) AND opened > 0
              AND coalesce(open_until, 'epoch') <= $2
            FOR UPDATE SKIP LOCKED
        )
        RETURNING endpoint_id
        """,
        list(endpoints),
        now,
        window,
    )
    return frozenset(row[0] for row in rows)
