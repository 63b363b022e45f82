"""Leases on shards, as a test hands them out."""

from services.sessions.domain.lease import Lease
from shared.db.database import Database


async def take_shard(database: Database, *, owner: str = "us", shard: int | None = None) -> Lease:
    """A valid lease for an hour: on a shard that nobody has, or ``shard``, whoever has it."""
    which = "lease_until <= clock_timestamp()" if shard is None else f"id = {shard}"
    async with database.hot() as connection:
        row = await connection.fetchrow(
            f"UPDATE sessions.shards SET owner = $1, epoch = epoch + 1,"
            f" lease_until = clock_timestamp() + interval '1 hour' WHERE id ="
            f" (SELECT id FROM sessions.shards WHERE {which} ORDER BY id LIMIT 1)"
            f" RETURNING id, epoch",
            owner,
        )
    assert row is not None
    return Lease(row[0], row[1], owner)
