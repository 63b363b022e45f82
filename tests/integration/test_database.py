"""The way to PostgreSQL: whose hands one has there, what rolls back, and what is worth a retry."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from urllib.parse import urlsplit

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.db.database import Database, HotConnection, asyncpg_dsn, sqlalchemy_url
from shared.errors import Away, Transient
from tests.support.chaos_proxy import ChaosProxy
from tests.support.system import free_port


@pytest.fixture
async def database(module_database_url: str) -> AsyncIterator[Database]:
    """With everybody's rights, and a table to write to."""
    async with Database.open(module_database_url) as database:
        async with database.hot() as connection:
            await connection.execute("DROP TABLE IF EXISTS notes")
            await connection.execute("CREATE TABLE notes (number int PRIMARY KEY)")
        yield database


async def written(database: Database) -> list[int]:
    """What is committed."""
    async with database.hot() as connection:
        rows = await connection.fetch("SELECT number FROM notes ORDER BY number")
    return [row[0] for row in rows]


async def do(tx: AsyncConnection | HotConnection, statement: str) -> object:
    """Run a statement on either kind of connection; its first value, if it has one."""
    if isinstance(tx, AsyncConnection):
        result = await tx.execute(text(statement))
        return result.scalar_one_or_none() if result.returns_rows else None
    return await tx.fetchval(statement)


def transaction(
    database: Database, kind: str
) -> AbstractAsyncContextManager[AsyncConnection | HotConnection]:
    """A transaction of either kind."""
    return database.tx() if kind == "tx" else database.hot_tx()


KINDS = pytest.mark.parametrize("kind", ["tx", "hot_tx"])


@KINDS
async def test_a_transaction_is_committed_when_its_block_ends(
    database: Database, kind: str
) -> None:
    async with transaction(database, kind) as tx:
        await do(tx, "INSERT INTO notes VALUES (1)")
        assert await written(database) == []
    assert await written(database) == [1]


@KINDS
async def test_a_transaction_is_rolled_back_when_its_block_raises(
    database: Database, kind: str
) -> None:
    async def fail() -> None:
        async with transaction(database, kind) as tx:
            await do(tx, "INSERT INTO notes VALUES (1)")
            raise LookupError("ours")

    with pytest.raises(LookupError, match="ours"):
        await fail()
    assert await written(database) == []


@KINDS
async def test_a_transaction_is_rolled_back_when_it_is_cancelled(
    database: Database, kind: str
) -> None:
    inserted = asyncio.Event()

    async def work() -> None:
        async with transaction(database, kind) as tx:
            await do(tx, "INSERT INTO notes VALUES (1)")
            inserted.set()
            await asyncio.Event().wait()

    working = asyncio.create_task(work())
    await inserted.wait()
    working.cancel()
    await asyncio.wait([working])
    assert working.cancelled()
    assert await written(database) == []


@KINDS
async def test_a_server_that_is_away_is_worth_waiting_for(kind: str) -> None:
    async with Database.open(f"postgresql://postgres@127.0.0.1:{free_port()}/none") as database:
        with pytest.raises(Away, match="not available"):
            async with transaction(database, kind):
                pytest.fail("there is no such server")
        with pytest.raises(Away):
            await database.ping()


async def test_a_server_that_is_there_answers(database: Database) -> None:
    await database.ping()


@KINDS
async def test_a_connection_lost_in_a_transaction_is_worth_a_retry_which_then_works(
    database: Database, kind: str
) -> None:
    async def lose() -> None:
        async with transaction(database, kind) as tx:
            await do(tx, "INSERT INTO notes VALUES (1)")
            await do(tx, "SELECT pg_terminate_backend(pg_backend_pid())")

    with pytest.raises(Away):
        await lose()
    async with transaction(database, kind) as tx:
        await do(tx, "INSERT INTO notes VALUES (2)")
    assert await written(database) == [2]


@KINDS
async def test_connections_lost_while_idle_cost_one_attempt_at_most(
    module_database_url: str, database: Database, kind: str
) -> None:
    async def used() -> None:
        async with transaction(database, kind) as tx:
            await do(tx, "SELECT pg_sleep(0.01)")

    await asyncio.gather(*(used() for _ in range(3)))
    server = await asyncpg.connect(module_database_url)
    await server.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    await server.close()
    attempts = 0
    while attempts < 2:
        attempts += 1
        try:
            await asyncio.gather(*(used() for _ in range(3)))
        except Transient:
            continue
        return
    pytest.fail("the connections that were lost are still used")


@KINDS
async def test_a_statement_that_takes_too_long_is_worth_a_retry(
    database: Database, kind: str
) -> None:
    async def take_long() -> None:
        async with transaction(database, kind) as tx:
            await do(tx, "SET LOCAL statement_timeout = '10ms'")
            await do(tx, "SELECT pg_sleep(20)")

    with pytest.raises(Transient) as error:
        await take_long()
    assert not isinstance(error.value, Away)  # It may be this statement that never ends.


@KINDS
async def test_nothing_holds_a_lock_for_ever(database: Database, kind: str) -> None:
    async with transaction(database, kind) as tx:
        assert await do(tx, "SHOW statement_timeout") == "30s"
        assert await do(tx, "SHOW idle_in_transaction_session_timeout") == "1min"


@KINDS
async def test_a_transaction_that_sits_idle_too_long_is_worth_a_retry(
    database: Database, kind: str
) -> None:
    ended = asyncio.Event()

    async def sit_idle() -> None:
        async with transaction(database, kind) as tx:
            pid = await do(tx, "SELECT pg_backend_pid()")
            await do(tx, "SET LOCAL idle_in_transaction_session_timeout = '10ms'")
            async with database.hot() as watching:
                there = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1"
                while await watching.fetchval(there, pid):
                    pass
            ended.set()
            await do(tx, "SELECT 1")

    with pytest.raises(Transient):
        await sit_idle()
    assert ended.is_set()


@KINDS
async def test_the_victim_of_a_deadlock_may_try_again(database: Database, kind: str) -> None:
    async with database.hot() as connection:
        await connection.execute("INSERT INTO notes VALUES (1), (2)")
    both = asyncio.Barrier(2)

    async def lock(first: int, then: int) -> None:
        async with transaction(database, kind) as tx:
            await do(tx, "SET LOCAL deadlock_timeout = '20ms'")
            await do(tx, f"SELECT number FROM notes WHERE number = {first} FOR UPDATE")
            await both.wait()
            await do(tx, f"SELECT number FROM notes WHERE number = {then} FOR UPDATE")

    ended = await asyncio.gather(lock(1, 2), lock(2, 1), return_exceptions=True)
    assert sorted(type(one).__name__ for one in ended) == ["NoneType", "Transient"]


async def test_what_breaks_a_rule_of_the_table_is_not_worth_a_retry(database: Database) -> None:
    async with database.hot() as connection:
        await connection.execute("INSERT INTO notes VALUES (1)")
    with pytest.raises(IntegrityError):
        async with database.tx() as tx:
            await tx.execute(text("INSERT INTO notes VALUES (1)"))
    with pytest.raises(asyncpg.UniqueViolationError):
        async with database.hot_tx() as connection:
            await connection.execute("INSERT INTO notes VALUES (1)")


async def test_a_wrong_statement_is_not_worth_a_retry(database: Database) -> None:
    with pytest.raises(DBAPIError):
        async with database.tx() as tx:
            await tx.execute(text("SELECT nonsense"))
    with pytest.raises(asyncpg.UndefinedColumnError):
        async with database.hot() as connection:
            await connection.execute("SELECT nonsense")


async def test_a_value_of_the_wrong_type_is_not_worth_a_retry(database: Database) -> None:
    with pytest.raises(DBAPIError):
        async with database.tx() as tx:
            await tx.execute(text("INSERT INTO notes VALUES (:number)"), {"number": 2**40})
    with pytest.raises(asyncpg.DataError):
        async with database.hot() as connection:
            await connection.execute("INSERT INTO notes VALUES ($1)", 2**40)


@KINDS
async def test_every_connection_acts_as_the_service(module_database_url: str, kind: str) -> None:
    async with Database.open(module_database_url, role="waypost_stats", pool=1, hot=1) as database:
        for _ in range(2):  # the second time on a connection that was given back
            async with transaction(database, kind) as tx:
                assert await do(tx, "SELECT current_user") == "waypost_stats"


async def test_what_a_service_may_not_do_is_refused_and_not_worth_a_retry(
    module_database_url: str,
) -> None:
    async with Database.open(module_database_url, role="waypost_stats") as database:
        with pytest.raises(DBAPIError, match="permission denied"):
            async with database.tx() as tx:
                await tx.execute(text("SELECT * FROM gateway.users"))
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with database.hot() as connection:
                await connection.execute("DELETE FROM dispatcher.messages")


async def test_connections_say_whose_they_are(module_database_url: str) -> None:
    async with (
        Database.open(module_database_url, name="waypost-stats") as database,
        database.hot() as connection,
    ):
        assert await connection.fetchval("SHOW application_name") == "waypost-stats"


async def test_more_callers_than_connections_take_turns(module_database_url: str) -> None:
    async with Database.open(module_database_url, pool=2, hot=2) as database:

        async def used(kind: str) -> object:
            async with transaction(database, kind) as tx:
                return await do(tx, "SELECT pg_sleep(0.001)::text")

        async with asyncio.timeout(10):
            await asyncio.gather(*(used(kind) for kind in ["tx", "hot_tx"] * 20))


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+asyncpg"])
def test_addresses_keep_what_they_say_for_either_driver(scheme: str) -> None:
    rest = "someone:p%40ss%2Fword@db.example:5433/waypost?sslmode=require"
    assert asyncpg_dsn(f"{scheme}://{rest}") == f"postgresql://{rest}"
    assert sqlalchemy_url(f"{scheme}://{rest}") == f"postgresql+asyncpg://{rest}"


async def test_a_connection_to_a_server_that_fell_silent_comes_back(
    module_database_url: str,
) -> None:
    address = urlsplit(module_database_url)
    async with ChaosProxy.before(address.hostname or "", address.port or 5432) as proxy:
        url = address._replace(netloc=f"{address.username}@127.0.0.1:{proxy.port}").geturl()
        async with Database.open(url, hot=1, patience=timedelta(seconds=0.2)) as database:
            await database.ping()
            proxy.blackhole()
            async with asyncio.timeout(5):
                with pytest.raises(Transient):
                    async with database.hot() as connection:
                        await connection.fetchval("SELECT 1", timeout=0.1)
            await proxy.heal()
            async with asyncio.timeout(5):
                await database.ping()
