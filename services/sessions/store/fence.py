"""The fence: an owner's writes reach the database only while it says that this is the owner.

A write takes its shards' rows ``FOR SHARE`` in the statement or transaction that it is part of. A
takeover needs those rows for itself, so it comes wholly before the write, which then fails, or
wholly after it. Rows are always locked in the order of their ids, by everybody.
"""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.sessions.domain.lease import Lease
from shared.db.database import Database, HotConnection

# The leases in $1 (shards) and $2 (epochs) that $3 (the owner) really has, as rows of ``held``.
HELD = """
    held AS (
        SELECT s.id, s.epoch
        FROM sessions.shards s
        JOIN unnest($1::smallint[], $2::bigint[]) AS l (id, epoch)
            ON l.id = s.id AND l.epoch = s.epoch
        WHERE s.owner = $3 AND s.lease_until > clock_timestamp()
        ORDER BY s.id
        FOR SHARE OF s
    )
"""

# A process that is frozen within a transaction would keep its shards from being taken over until
# PostgreSQL's patience ends; with the leases that is a few seconds.
HURRY: Final = "SET LOCAL idle_in_transaction_session_timeout = '5s'"

_HOLD = f"WITH {HELD} SELECT id, epoch FROM held"  # noqa: S608 - constants of ours

Claim = tuple[list[int], list[int], str | None]


def claimed(leases: Collection[Lease]) -> Claim:
    """The three arguments of ``HELD``. All leases of one process have the same owner."""
    distinct = sorted(set(leases))
    owner = distinct[0].owner if distinct else None
    return [lease.shard for lease in distinct], [lease.epoch for lease in distinct], owner


async def hold(connection: HotConnection, leases: Collection[Lease]) -> set[Lease]:
    """Those of ``leases`` that are valid, and stay so until the transaction ends."""
    shards, epochs, owner = claimed(leases)
    rows = await connection.fetch(_HOLD, shards, epochs, owner)
    return {Lease(shard, epoch, owner or "") for shard, epoch in rows}


class Fence:
    """Lets a process write under its leases, and from time to time renew them.

    PostgreSQL lets a new ``FOR SHARE`` pass by a waiting ``UPDATE``, so under load, with one write
    always open, a renewal could wait until the leases are gone. Only the owner itself takes these
    locks, so it holds its own writes back for the moment that a renewal takes.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._writing = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._open = asyncio.Event()
        self._open.set()
        self._alone = asyncio.Lock()

    @asynccontextmanager
    async def statement(self) -> AsyncIterator[HotConnection]:
        """A connection for one statement, which must contain ``HELD``."""
        async with self._shared(), self._database.hot() as connection:
            yield connection

    @asynccontextmanager
    async def tx(self) -> AsyncIterator[HotConnection]:
        """A transaction whose first statement must be ``hold``, or contain ``HELD``."""
        async with self._shared(), self._database.hot() as connection:
            # In one go with BEGIN, so that it costs nothing.
            await connection.execute(f"BEGIN; {HURRY}")
            try:
                yield connection
            except BaseException:
                await connection.execute("ROLLBACK")
                raise
            await connection.execute("COMMIT")

    @asynccontextmanager
    async def changing(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that changes the shards' rows themselves; this process's writes wait."""
        async with self._alone:
            self._open.clear()
            try:
                await self._idle.wait()
                async with self._database.tx() as tx:
                    await tx.execute(text(HURRY))
                    yield tx
            finally:
                self._open.set()

    @asynccontextmanager
    async def _shared(self) -> AsyncIterator[None]:
        while not self._open.is_set():
            await self._open.wait()
        self._writing += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._writing -= 1
            if self._writing == 0:
                self._idle.set()
