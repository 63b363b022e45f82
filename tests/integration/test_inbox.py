"""The inbox: of an event that comes again, every time but the first is told apart."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from uuid import UUID

import pytest

from shared.db.database import Database
from shared.ids import new_id
from shared.messaging import inbox
from tests.support.builders import NOON

ROLE = "waypost_stats"


@pytest.fixture
async def database(module_database_url: str) -> AsyncIterator[Database]:
    async with Database.open(module_database_url, role=ROLE, hot=8) as database:
        yield database


async def fresh(database: Database, ids: Sequence[UUID]) -> set[UUID]:
    """Those not seen before, in a transaction of their own."""
    async with database.hot_tx() as connection:
        return await inbox.fresh(connection, "stats", ids, now=NOON)


async def test_an_id_is_fresh_once(database: Database) -> None:
    one, two, three = (new_id() for _ in range(3))
    assert await fresh(database, [one, two]) == {one, two}
    assert await fresh(database, [two, three]) == {three}
    assert await fresh(database, [one, two, three]) == set()


async def test_an_id_that_comes_twice_in_one_batch_is_fresh_once(database: Database) -> None:
    id_ = new_id()
    assert await fresh(database, [id_, id_]) == {id_}


async def test_nothing_is_fresh_about_nothing(database: Database) -> None:
    assert await fresh(database, []) == set()


async def test_an_id_whose_transaction_failed_is_fresh_again(database: Database) -> None:
    id_ = new_id()

    async def fail() -> None:
        async with database.hot_tx() as connection:
            await inbox.fresh(connection, "stats", [id_], now=NOON)
            raise LookupError("the effect could not be had")

    with pytest.raises(LookupError):
        await fail()
    assert await fresh(database, [id_]) == {id_}


async def test_who_comes_second_waits_for_who_came_first_to_commit_or_not(
    database: Database,
) -> None:
    id_ = new_id()
    async with database.hot_tx() as first:
        assert await inbox.fresh(first, "stats", [id_], now=NOON) == {id_}
        second = asyncio.create_task(fresh(database, [id_]))
        async with database.hot() as watching:
            waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'"
            while not await watching.fetchval(waits):
                pass
        assert not second.done()
    assert await second == set()


async def test_overlapping_batches_in_any_order_do_not_deadlock_and_count_once(
    database: Database,
) -> None:
    ids = [new_id() for _ in range(400)]
    chance = random.Random(7)  # noqa: S311 - the same shuffles every time
    batches = [chance.sample(ids, k=300) for _ in range(24)]
    async with asyncio.timeout(20):
        found = await asyncio.gather(*(fresh(database, batch) for batch in batches))
    counted = [id_ for batch in found for id_ in batch]
    assert len(counted) == len(set(counted))
    assert set(counted) == {id_ for batch in batches for id_ in batch}
