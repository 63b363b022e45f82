"""The embedded PostgreSQL comes back with its data, whatever became of the process that kept it."""

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import psutil
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from shared.runtime.embedded_postgres import embedded_postgres
from shared.runtime.postgres_place import PostgresNotStarted

# Keeps a server until it is killed, and says when it is up.
KEEPER = """
import asyncio, sys
from pathlib import Path
from shared.runtime.embedded_postgres import embedded_postgres

async def keep():
    async with embedded_postgres(Path(sys.argv[1])) as url:
        print(url, flush=True)
        await asyncio.Event().wait()

asyncio.run(keep())
"""


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder that any account may pass; pytest's own are closed to all but their owner."""
    folder = Path(tempfile.mkdtemp(prefix="waypost-place-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def folder(place: Path) -> Path:
    """Where the tests below keep one database after another, to be set up only once."""
    return place / "postgres"


@pytest.fixture(autouse=True)
def everything_stopped(folder: Path) -> Iterator[None]:
    """No test may leave a server running."""
    yield
    assert not servers(folder)


def servers(folder: Path) -> list[psutil.Process]:
    """The processes of PostgreSQL that work on the data in ``folder``."""
    return [
        process
        for process in psutil.process_iter(["name", "cwd"])
        if process.info["name"] == "postgres" and process.info["cwd"] == str(folder / "data")
    ]


async def ask(url: str, statement: str) -> object:
    """The one value that ``statement`` returns."""
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


@asynccontextmanager
async def keeper(folder: Path) -> AsyncIterator[tuple[int, str]]:
    """Another process that keeps the server; yields its id and the URL, then kills it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", KEEPER, str(folder), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        yield process.pid, (await process.stdout.readline()).decode().strip()
    finally:
        process.kill()
        assert await process.wait() == -signal.SIGKILL


async def test_the_url_works_with_asyncpg_and_with_sqlalchemy(folder: Path) -> None:
    async with embedded_postgres(folder) as url:
        assert await ask(url, "SHOW max_connections") == "200"
        engine = create_async_engine(url.replace("postgresql:", "postgresql+asyncpg:"))
        async with engine.connect() as tx:
            assert (await tx.execute(text("SHOW fsync"))).scalar_one() == "on"
        await engine.dispose()


async def test_data_is_there_after_a_restart(folder: Path) -> None:
    async with embedded_postgres(folder) as url:
        await ask(url, "CREATE TABLE kept AS SELECT 'kept' AS word")
    async with embedded_postgres(folder) as url:
        assert await ask(url, "SELECT word FROM kept") == "kept"
        await ask(url, "DROP TABLE kept")


async def test_a_server_that_outlived_its_process_is_taken_over_with_its_data(folder: Path) -> None:
    async with keeper(folder) as (_, url):
        await ask(url, "CREATE TABLE outlived AS SELECT 1 AS number")
    assert servers(folder)
    async with embedded_postgres(folder) as url:
        assert await ask(url, "SELECT number FROM outlived") == 1
        await ask(url, "DROP TABLE outlived")


async def test_a_server_that_was_killed_as_well_recovers_its_data(folder: Path) -> None:
    async with keeper(folder) as (_, url):
        await ask(url, "CREATE TABLE recovered AS SELECT 1 AS number")
        killed = servers(folder)
        for process in killed:
            process.kill()
        psutil.wait_procs(killed, timeout=10)
    assert (folder / "data" / "postmaster.pid").exists()
    async with embedded_postgres(folder) as url:
        assert await ask(url, "SELECT number FROM recovered") == 1
        await ask(url, "DROP TABLE recovered")


async def test_a_backend_without_its_server_does_not_prevent_the_next_start(folder: Path) -> None:
    async with keeper(folder) as (_, url):
        connection = await asyncpg.connect(url)
        asleep = asyncio.ensure_future(connection.execute("SELECT pg_sleep(60)"))
        postmaster = int((folder / "data" / "postmaster.pid").read_text().split()[0])
        os.kill(postmaster, signal.SIGKILL)
    async with embedded_postgres(folder) as url:
        assert await ask(url, "SELECT 1") == 1
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await asleep
    connection.terminate()


async def test_a_pid_file_with_the_number_of_a_stranger_is_forgotten(folder: Path) -> None:
    async with embedded_postgres(folder):
        told = (folder / "data" / "postmaster.pid").read_text().splitlines()
    stale = [str(os.getpid()), *told[1:], ""]
    (folder / "data" / "postmaster.pid").write_text("\n".join(stale))
    async with embedded_postgres(folder) as url:
        assert await ask(url, "SELECT 1") == 1


async def test_half_a_first_start_is_thrown_away(place: Path) -> None:
    folder = place / "half"
    (folder / "data.new").mkdir(parents=True)
    (folder / "data.new" / "PG_VERSION").write_text("18\n")
    async with embedded_postgres(folder) as url:
        assert await ask(url, "SELECT 1") == 1


async def test_two_processes_never_share_a_folder(folder: Path) -> None:
    async with keeper(folder) as (pid, url):
        with pytest.raises(PostgresNotStarted, match=f"process {pid} is using"):
            async with embedded_postgres(folder):
                pass
        assert await ask(url, "SELECT 1") == 1
    async with embedded_postgres(folder):
        pass


async def test_data_of_another_version_is_refused_and_left_alone(folder: Path) -> None:
    async with embedded_postgres(folder):
        pass
    version = folder / "data" / "PG_VERSION"
    written = version.read_text()
    version.write_text("9.6\n")
    with pytest.raises(PostgresNotStarted, match=r"written by PostgreSQL 9\.6"):
        async with embedded_postgres(folder):
            pass
    version.write_text(written)


async def test_a_start_cut_short_leaves_nothing_running(folder: Path) -> None:
    async def started() -> None:
        async with embedded_postgres(folder):
            raise AssertionError("cancelled too late for this test to mean anything")

    starting = asyncio.ensure_future(started())
    await asyncio.sleep(0)  # let it begin
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert not servers(folder)


@pytest.mark.parametrize("name", ["long" * 30, "with space, comma: colon"])
async def test_a_path_that_no_socket_or_url_takes_is_as_good_as_any(place: Path, name: str) -> None:
    async with embedded_postgres(place / name / "postgres") as url:
        assert await ask(url, "SELECT 1") == 1


async def test_a_home_that_is_closed_to_others_is_left_closed(tmp_path: Path) -> None:
    """As root PostgreSQL must run as somebody else, who may not pass through a home directory."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    folder = home / "project" / "postgres"
    async with embedded_postgres(folder) as url:
        await ask(url, "CREATE TABLE kept AS SELECT 1 AS number")
    async with embedded_postgres(folder) as url:
        assert await ask(url, "SELECT number FROM kept") == 1
    assert home.stat().st_mode & 0o777 == 0o700
    shutil.rmtree(folder.resolve())
