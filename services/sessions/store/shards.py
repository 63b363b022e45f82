"""Leases and heartbeats. Only the database's clock decides, in every statement here."""

from collections.abc import Collection
from datetime import timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.sessions.domain.lease import Lease

_BEAT = text("""
    INSERT INTO sessions.replicas (id, started_at, heartbeat_at, draining)
    VALUES (:id, clock_timestamp(), clock_timestamp(), :draining)
    ON CONFLICT (id) DO UPDATE SET heartbeat_at = clock_timestamp(), draining = excluded.draining
""")

_LIVE = text("""
    SELECT count(*) FROM sessions.replicas
    WHERE NOT draining AND heartbeat_at > clock_timestamp() - CAST(:dead_after AS interval)
""")

_RENEW = text("""
    WITH mine AS (
        SELECT s.id
        FROM sessions.shards s
        JOIN unnest(CAST(:shards AS smallint[]), CAST(:epochs AS bigint[])) AS l (id, epoch)
            ON l.id = s.id AND l.epoch = s.epoch
        WHERE s.owner = :owner AND s.lease_until > clock_timestamp()
        ORDER BY s.id
        FOR NO KEY UPDATE OF s
    )
    UPDATE sessions.shards s SET lease_until = clock_timestamp() + CAST(:ttl AS interval)
    FROM mine WHERE s.id = mine.id RETURNING s.id
""")

# Two replicas that claim at once skip what the other looks at, so neither waits.
_CLAIM = text("""
    WITH free AS (
        SELECT s.id FROM sessions.shards s
        WHERE s.lease_until <= clock_timestamp()
        ORDER BY s.id LIMIT :limit
        FOR NO KEY UPDATE SKIP LOCKED
    )
    UPDATE sessions.shards s
    SET owner = :owner, epoch = s.epoch + 1,
        lease_until = clock_timestamp() + CAST(:ttl AS interval)
    FROM free WHERE s.id = free.id RETURNING s.id, s.epoch
""")

_RELEASE = text("""
    WITH mine AS (
        SELECT s.id
        FROM sessions.shards s
        JOIN unnest(CAST(:shards AS smallint[]), CAST(:epochs AS bigint[])) AS l (id, epoch)
            ON l.id = s.id AND l.epoch = s.epoch
        WHERE s.owner = :owner AND s.lease_until > clock_timestamp()
        ORDER BY s.id
        FOR NO KEY UPDATE OF s
    )
    UPDATE sessions.shards s SET lease_until = clock_timestamp() FROM mine WHERE s.id = mine.id
""")

_LEAVE = text("""
    DELETE FROM sessions.replicas
    WHERE id = :id OR heartbeat_at < clock_timestamp() - INTERVAL '1 hour'
""")


async def beat(tx: AsyncConnection, *, replica: str, draining: bool) -> None:
    """Say that this replica lives, and whether it wants shards."""
    await tx.execute(_BEAT, {"id": replica, "draining": draining})


async def live_replicas(tx: AsyncConnection, *, dead_after: timedelta) -> int:
    """How many replicas share the shards."""
    return int((await tx.execute(_LIVE, {"dead_after": dead_after})).scalar_one())


async def renew(tx: AsyncConnection, leases: Collection[Lease], *, ttl: timedelta) -> set[int]:
    """Prolong leases that have not run out; return their shards. The others are lost for good."""
    if not leases:
        return set()
    rows = await tx.execute(_RENEW, {**_arguments(leases), "ttl": ttl})
    return {int(shard) for (shard,) in rows}


async def claim(tx: AsyncConnection, *, owner: str, limit: int, ttl: timedelta) -> list[Lease]:
    """Take up to ``limit`` shards that nobody has, each under a new epoch."""
    rows = await tx.execute(_CLAIM, {"owner": owner, "limit": limit, "ttl": ttl})
    return sorted(Lease(int(shard), int(epoch), owner) for shard, epoch in rows)


async def release(tx: AsyncConnection, leases: Collection[Lease]) -> None:
    """End leases now, so that the next owners need not wait for them to run out."""
    await tx.execute(_RELEASE, _arguments(leases))


async def leave(tx: AsyncConnection, *, replica: str) -> None:
    """Forget a replica, and those that died long ago."""
    await tx.execute(_LEAVE, {"id": replica})


def _arguments(leases: Collection[Lease]) -> dict[str, object]:
    ordered = sorted(leases)
    return {
        "shards": [lease.shard for lease in ordered],
        "epochs": [lease.epoch for lease in ordered],
        "owner": ordered[0].owner,
    }
