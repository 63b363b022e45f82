"""SQL of the statistics service: functions of a connection."""

from collections.abc import Collection, Mapping
from datetime import datetime
from uuid import UUID

from services.stats.domain.counting import Key
from shared.db.database import HotConnection


async def add(connection: HotConnection, counted: Mapping[Key, int]) -> None:
    """Add to counters, in the order given, in one statement."""
    keys = list(counted)
    await connection.execute(
        """
        INSERT INTO stats.daily_counters AS c (tenant_id, day, instance_id, metric, count)
        SELECT * FROM unnest($1::uuid[], $2::date[], $3::uuid[], $4::text[], $5::bigint[])
        ON CONFLICT (tenant_id, day, instance_id, metric)
        DO UPDATE SET count = c.count + excluded.count
        """,
        [key[0] for key in keys],
        [key[1] for key in keys],
        [key[2] for key in keys],
        [key[3] for key in keys],
        list(counted.values()),
    )


async def time_zones(connection: HotConnection, tenants: Collection[UUID]) -> dict[UUID, str]:
    """The IANA names of the time zones of some tenants."""
    rows = await connection.fetch(
        "SELECT id, timezone FROM gateway.organizations WHERE id = ANY($1::uuid[])", list(tenants)
    )
    return {row[0]: row[1] for row in rows}


async def forget(connection: HotConnection, *, before: datetime, limit: int) -> int:
    """Delete inbox rows seen ``before``; return how many, at most ``limit``.

    By array, because a join with a ``LIMIT`` of unknown size is planned as a scan of the table.
    """
    done = await connection.execute(
        """
        DELETE FROM stats.inbox WHERE event_id = ANY (ARRAY(
            SELECT event_id FROM stats.inbox WHERE seen_at < $1
            ORDER BY seen_at LIMIT $2
            FOR UPDATE SKIP LOCKED
        ))
        """,
        before,
        limit,
    )
    return int(done.rpartition(" ")[2])
