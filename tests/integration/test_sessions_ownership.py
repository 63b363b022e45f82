"""Leases against the real database: who may claim, who keeps, and whom the epoch shuts out."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from prometheus_client import CollectorRegistry
from typing_extensions import override

from services.sessions.domain.lease import Lease
from services.sessions.leases import Leases
from services.sessions.metrics import SessionsMetrics
from services.sessions.ownership import Ownership, Tenure
from services.sessions.settings import SessionsSettings
from services.sessions.store import fence as fences
from services.sessions.store import handovers, retention, shards
from services.sessions.store.fence import Fence
from shared.db.database import Database
from shared.db.tables.grants import role
from shared.ids import new_id
from tests.support.builders import NOON
from tests.support.clock import HandClock
from tests.support.keys import KEYS
from tests.support.sessions import PATIENCE, a_transmission

HOUR = 3600.0


class StillClock(HandClock):
    """Sleeping does not move it: only the test does, and calls the steps itself."""

    @override
    async def sleep(self, delay: timedelta) -> None:
        await asyncio.Event().wait()


class Replica:
    """One process's ownership, whose steps are called by the test."""

    def __init__(self, database: Database, name: str, settings: dict[str, Any]) -> None:
        self.clock = StillClock()
        chosen = SessionsSettings(
            **{
                "database_url": "postgresql://x",
                "amqp_url": "amqp://x",
                "media_store": "x",
                "encryption_keys": KEYS,
                **settings,
            }
        )
        self.settings = chosen
        self.changed = asyncio.Event()
        self.fence = Fence(database)
        self.leases = Leases(clock=self.clock, fence_after=chosen.fence)
        self.serving: dict[int, Tenure] = {}
        self.lost: list[int] = []
        self.ownership = Ownership(
            replica=name,
            database=database,
            fence=self.fence,
            leases=self.leases,
            clock=self.clock,
            serve=self._serve,
            settings=chosen,
            metrics=SessionsMetrics(CollectorRegistry()),
        )

    async def _serve(self, tenure: Tenure) -> None:
        self.serving[tenure.lease.shard] = tenure
        self.changed.set()
        await tenure.ended.wait()
        del self.serving[tenure.lease.shard]
        self.changed.set()
        if tenure.lost.is_set():
            self.lost.append(tenure.lease.shard)

    async def grow_to(self, shards: int) -> None:
        """Take turns until this replica has so many."""
        async with asyncio.timeout(PATIENCE):
            while len(self.leases.all()) < shards:
                await self.turn()

    async def turn(self) -> None:
        """One beat of everything that would run by itself."""
        await self.ownership.renew()
        await self.ownership.claim()
        await self.ownership.guard()
        async with asyncio.timeout(PATIENCE):
            while await self._moving():
                self.changed.clear()
                await self.changed.wait()

    async def _moving(self) -> bool:
        return len(self.serving) != len(self.leases.all())


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with Database.open(database_url, role=role("sessions")) as opened:
        yield opened


@pytest.fixture
async def sql(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


@asynccontextmanager
async def replica(database: Database, name: str, **settings: Any) -> AsyncIterator[Replica]:
    made = Replica(database, name, {"lease_ttl": HOUR, "release_every": 1, **settings})
    async with made.ownership.running():
        await made.turn()
        yield made


async def owners(sql: asyncpg.Connection) -> Counter[str]:
    rows = await sql.fetch("SELECT owner FROM sessions.shards WHERE lease_until > now()")
    return Counter(row[0] for row in rows)


async def expire(sql: asyncpg.Connection) -> None:
    await sql.execute("UPDATE sessions.shards SET lease_until = clock_timestamp()")


async def test_the_first_replica_takes_everything(
    database: Database, sql: asyncpg.Connection
) -> None:
    async with replica(database, "one"):
        assert await owners(sql) == {"one": 64}
    assert await owners(sql) == {}
    assert await sql.fetchval("SELECT count(*) FROM sessions.replicas") == 0


async def test_a_second_replica_is_given_its_share_one_shard_at_a_time(
    database: Database, sql: asyncpg.Connection
) -> None:
    async with replica(database, "one") as one, replica(database, "two") as two:
        await one.turn()
        await one.turn()
        assert len(one.serving) == 63, "one at a time, with a pause in between"
        await two.grow_to(1)
        for moved in range(2, 33):
            one.clock.move(timedelta(seconds=1))
            await one.turn()
            await two.grow_to(moved)
        one.clock.move(timedelta(seconds=1))
        await one.turn()
        await two.turn()
        assert await owners(sql) == {"one": 32, "two": 32}
        assert one.lost == []


async def test_a_dead_replicas_shards_are_taken_over_under_a_new_epoch(
    database: Database, sql: asyncpg.Connection
) -> None:
    async with replica(database, "one") as one:
        old = sorted(one.leases.all())
        await expire(sql)
        await sql.execute(
            "UPDATE sessions.replicas SET heartbeat_at = heartbeat_at - interval '2 hours'"
        )
        async with replica(database, "two") as two:
            new = sorted(two.leases.all())
            assert [lease.epoch for lease in new] == [lease.epoch + 1 for lease in old]
            await one.turn()
            assert sorted(one.lost) == list(range(64))
            assert one.leases.all() == ()


async def test_a_lease_that_ran_out_cannot_be_renewed(
    database: Database, sql: asyncpg.Connection
) -> None:
    async with replica(database, "one") as one:
        await expire(sql)
        await one.ownership.renew()
        assert one.leases.all() == ()


async def test_without_renewal_a_process_stops_before_its_leases_run_out(
    database: Database, sql: asyncpg.Connection
) -> None:
    async with replica(database, "one") as one:
        lease = min(one.leases.all())
        one.clock.move(one.settings.fence)
        assert not one.leases.holds(lease)
        assert one.leases.of(lease.shard) is None
        await one.ownership.guard()
        assert one.leases.all() == ()
        assert await owners(sql) == {"one": 64}


async def test_the_deadline_counts_from_before_the_request(database: Database) -> None:
    async with replica(database, "one") as one:
        lease = min(one.leases.all())
        one.clock.move(one.settings.fence / 2)
        await one.ownership.renew()
        one.clock.move(one.settings.fence * 0.9)
        assert one.leases.holds(lease)


async def test_nothing_is_written_under_an_old_epoch(
    database: Database, sql: asyncpg.Connection
) -> None:
    async with replica(database, "one") as one:
        lease = min(one.leases.all())
        old = Lease(lease.shard, lease.epoch - 1, lease.owner)
        stranger = Lease(lease.shard, lease.epoch, "two")
        work = [(held, a_transmission(new_id())) for held in (lease, old)]
        async with one.fence.statement() as connection:
            assert await handovers.mark(connection, work, now=NOON) == {work[0][1].transmission_id}
        async with one.fence.tx() as connection:
            assert await fences.hold(connection, [lease, old]) == {lease}
        async with one.fence.tx() as connection:
            assert await fences.hold(connection, [stranger]) == set()
        await expire(sql)
        async with one.fence.tx() as connection:
            assert await fences.hold(connection, [lease]) == set()


async def test_a_takeover_waits_for_a_write_that_has_begun(
    database: Database, sql: asyncpg.Connection
) -> None:
    async with replica(database, "one") as one:
        lease = min(one.leases.all())
        async with one.fence.tx() as connection:
            assert await fences.hold(connection, [lease]) == {lease}
            await sql.execute("SET lock_timeout = '200ms'")
            with pytest.raises(asyncpg.LockNotAvailableError):
                await sql.execute(
                    "UPDATE sessions.shards SET epoch = epoch + 1 WHERE id = $1", lease.shard
                )
            async with database.tx() as tx:
                claimed = await shards.claim(tx, owner="two", limit=64, ttl=one.settings.ttl)
            assert claimed == []


async def test_renewing_gets_through_however_many_write(database: Database) -> None:
    async with replica(database, "one") as one:
        leases = one.leases.all()
        stop = asyncio.Event()

        async def write() -> None:
            while not stop.is_set():
                async with one.fence.tx() as connection:
                    assert len(await fences.hold(connection, leases)) == 64

        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(write())
            async with asyncio.timeout(PATIENCE):
                for _ in range(5):
                    await one.ownership.renew()
            stop.set()


async def test_what_is_old_is_forgotten(database: Database, sql: asyncpg.Connection) -> None:
    await sql.execute(
        "INSERT INTO sessions.inbound VALUES (gen_random_uuid(), 'old', $1::timestamptz),"
        " (gen_random_uuid(), 'new', clock_timestamp())",
        NOON.replace(year=2020),
    )
    await sql.execute(
        "INSERT INTO sessions.handovers SELECT gen_random_uuid(), gen_random_uuid(),"
        " gen_random_uuid(), gen_random_uuid(), 1, 1, 'x', $1::timestamptz, o FROM"
        " (VALUES ('accepted'), (NULL)) AS v (o)",
        NOON.replace(year=2020),
    )
    async with database.hot() as connection:
        assert await retention.forget(connection, before=NOON) == 2
        assert await retention.forget(connection, before=NOON) == 0
    assert await sql.fetchval("SELECT stanza_key FROM sessions.inbound") == "new"
    assert await sql.fetchval("SELECT count(*) FROM sessions.handovers") == 1
