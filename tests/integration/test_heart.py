"""The heartbeat: that a process lives, what it does, and how it follows orders."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from structlog.testing import capture_logs

from shared.db.database import Database
from shared.db.tables.grants import role
from shared.pause import Pause
from shared.runtime.heart import Heart
from shared.runtime.service import Workload
from tests.support.gateway import MovableClock


class Body:
    """A process as its heart knows it."""

    def __init__(self, database: Database, **given: Any) -> None:
        self.completed = self.failed = self.processing = 0
        self.pause = Pause()
        self.stop = asyncio.Event()
        self.clock = MovableClock()
        self.heart = Heart(
            **{
                "service": "dispatcher",
                "host": "here",
                "workload": Workload(
                    processing=lambda: self.processing,
                    completed=lambda: self.completed,
                    failed=lambda: self.failed,
                ),
                "database": database,
                "pause": self.pause,
                "clock": self.clock,
                "stop": self.stop,
                "restart": self.stop,
                **given,
            }
        )


@pytest.fixture
async def sql(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A superuser's connection."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """The dispatcher's way to the database, with what it may do."""
    async with Database.open(database_url, role=role("dispatcher")) as opened:
        yield opened


def pausing(body: Body) -> bool:
    """Whether it takes no work at this moment."""
    return body.pause.on


async def order(sql: asyncpg.Connection, worker: str = "", **wanted: object) -> None:
    """What an operator wants."""
    [(column, value)] = wanted.items()
    given = "clock_timestamp()" if value == "now" else "$2"
    await sql.execute(
        f"INSERT INTO gateway.worker_orders (service, worker, {column})"
        f" VALUES ('dispatcher', $1, {given}) ON CONFLICT (service, worker)"
        f" DO UPDATE SET {column} = excluded.{column}",
        worker,
        *([] if value == "now" else [value]),
    )


async def test_a_beat_says_that_we_live_and_what_we_do(
    sql: asyncpg.Connection, database: Database
) -> None:
    body = Body(database)
    body.completed, body.failed, body.processing = 5, 2, 3
    async with body.heart.beating():
        [row] = await sql.fetch("SELECT * FROM dispatcher.workers")
        assert (row["name"], row["state"]) == ("dispatcher@here", "running")
        assert (row["completed"], row["failed"], row["processing"]) == (5, 2, 3)
        assert (row["pausable"], row["restartable"]) == (True, True)
        assert row["memory"] > 1_000_000
        await body.heart.beat()
        [again] = await sql.fetch("SELECT * FROM dispatcher.workers")
        assert again["started_at"] == row["started_at"]
        assert again["beat_at"] > row["beat_at"]
        body.stop.set()
        await body.heart.beat()
        assert await sql.fetchval("SELECT state FROM dispatcher.workers") == "draining"
    assert await sql.fetchval("SELECT count(*) FROM dispatcher.workers") == 0


async def test_throughput_is_what_was_completed_in_the_last_minute(
    sql: asyncpg.Connection, database: Database
) -> None:
    body = Body(database)
    async with body.heart.beating():
        for seconds, completed, expected in ((30, 100, 200), (29, 100, 101), (61, 100, 0)):
            body.clock.move(timedelta(seconds=seconds))
            body.completed = completed
            await body.heart.beat()
            told = await sql.fetchval("SELECT throughput FROM dispatcher.workers")
            assert told == pytest.approx(expected, abs=2)


async def test_a_pause_is_followed_and_outlives_the_process(
    sql: asyncpg.Connection, database: Database
) -> None:
    body = Body(database)
    async with body.heart.beating():
        assert not pausing(body)
        await order(sql, paused=True)
        await body.heart.beat()
        assert pausing(body)
    again = Body(database)
    async with again.heart.beating():
        assert pausing(again)
        assert await sql.fetchval("SELECT state FROM dispatcher.workers") == "paused"
        await order(sql, "dispatcher@here", paused=False)
        await again.heart.beat()
        assert not pausing(again)
        await order(sql, "dispatcher@elsewhere", paused=True)
        await again.heart.beat()
        assert not pausing(again)


async def test_only_what_was_ordered_is_told_of_as_paused_or_resumed(
    sql: asyncpg.Connection, database: Database
) -> None:
    body = Body(database)
    with capture_logs() as logs:
        async with body.heart.beating():
            for paused in (False, True, True, False):
                await order(sql, paused=paused)
                await body.heart.beat()
    told = [line["event"] for line in logs if line["event"].startswith("work_")]
    assert told == ["work_paused", "work_resumed"]


async def test_a_process_takes_no_work_before_it_knows_that_it_may() -> None:
    async with Database.open(
        "postgresql://nobody@127.0.0.1:1/nowhere", role=role("dispatcher")
    ) as nowhere:
        body = Body(nowhere)
        async with body.heart.beating():
            assert body.pause.on


async def test_a_restart_is_for_those_that_ran_when_it_was_ordered(
    sql: asyncpg.Connection, database: Database
) -> None:
    body = Body(database)
    async with body.heart.beating():
        await order(sql, "dispatcher@here", restart_at="now")
        await body.heart.beat()
        assert body.stop.is_set()
    again = Body(database)
    async with again.heart.beating():
        await again.heart.beat()
        assert not again.stop.is_set()


async def test_without_a_supervisor_no_restart_is_followed(
    sql: asyncpg.Connection, database: Database
) -> None:
    body = Body(database, restart=None)
    async with body.heart.beating():
        await order(sql, restart_at="now")
        await body.heart.beat()
        assert not body.stop.is_set()
        assert not await sql.fetchval("SELECT restartable FROM dispatcher.workers")


async def test_cleared_failures_are_not_counted_any_more(
    sql: asyncpg.Connection, database: Database
) -> None:
    body = Body(database)
    body.failed = 7
    async with body.heart.beating():
        await order(sql, cleared_at="now")
        await body.heart.beat()
        body.failed = 8
        await body.heart.beat()
        assert await sql.fetchval("SELECT failed FROM dispatcher.workers") == 1


async def test_who_died_without_a_word_is_forgotten_after_an_hour_some_at_a_time(
    sql: asyncpg.Connection, database: Database
) -> None:
    """Every replica is killed, time and again: none of them can tidy up after itself."""
    await sql.execute(
        "INSERT INTO dispatcher.workers (id, name, state, processing, completed, failed,"
        " throughput, memory, pausable, restartable, started_at, beat_at)"
        " SELECT gen_random_uuid(), 'dispatcher@past', 'running', 0, 0, 0, 0, 0, true, true, at, at"
        " FROM (SELECT now() - interval '61 minutes' AS at FROM generate_series(1, 150)) AS past"
        " UNION ALL SELECT gen_random_uuid(), 'dispatcher@lost', 'running', 0, 0, 0, 0, 0, true,"
        " true, now(), now() - interval '59 minutes'"
    )
    body = Body(database)
    async with body.heart.beating():
        assert await sql.fetchval("SELECT count(*) FROM dispatcher.workers") == 52
        await body.heart.beat()
        names = await sql.fetch("SELECT name FROM dispatcher.workers ORDER BY name")
        assert [name for (name,) in names] == ["dispatcher@here", "dispatcher@lost"]
