"""A PostgreSQL database for each test, copied from one that was migrated once per run."""

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from urllib.parse import urlsplit

import asyncpg

from tests.support import postgres_server
from tests.support.eventually import eventually
from tests.support.runs import RUN, abandoned


class Postgres:
    """A server on which databases can be made. ``url`` is for their maintenance only."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._numbers = itertools.count(1)

    def url_of(self, database: str) -> str:
        """The URL of another database of the same server."""
        return urlsplit(self.url)._replace(path=f"/{database}").geturl()

    @asynccontextmanager
    async def database(self, *, template: str = "template0") -> AsyncIterator[str]:
        """A new database like ``template``; yields its URL, and fails if it is left in use."""
        name = f"{RUN}{next(self._numbers)}"
        # Files are copied faster than the log of their pages is written.
        await self._do(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY file_copy')
        try:
            yield self.url_of(name)
            await self._quiet(name)
        finally:
            await self._do(f'DROP DATABASE "{name}" WITH (FORCE)')

    @contextmanager
    def template(self, migrate: Callable[[str], Awaitable[None]]) -> Iterator[str]:
        """A database brought up by ``migrate`` and then closed; yields its name."""
        name = f"{RUN}template"
        try:
            asyncio.run(self._made(name, migrate))
            yield name
        finally:
            asyncio.run(self._do(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))

    async def _made(self, name: str, migrate: Callable[[str], Awaitable[None]]) -> None:
        await self._do(f'CREATE DATABASE "{name}"')
        # Roles belong to the server: another run may be making the same ones right now.
        async with self._connected() as tx:
            await tx.execute("SELECT pg_advisory_lock(hashtext('waypost tests'))")
            await migrate(self.url_of(name))
        await self._do(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        await self._quiet(name)

    async def forget_abandoned(self) -> None:
        """Drop the databases of runs that were killed."""
        async with self._connected() as tx:
            for (name,) in await tx.fetch("SELECT datname FROM pg_database"):
                if abandoned(name):
                    await tx.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    async def _quiet(self, name: str) -> None:
        """Wait for the last connection to be gone: its process ends a little after it is closed."""

        async def nobody_connected() -> bool:
            async with self._connected() as tx:
                rows = await tx.fetch(
                    "SELECT application_name, state, left(query, 200) AS query"
                    " FROM pg_stat_activity"
                    " WHERE datname = $1 AND backend_type = 'client backend'",
                    name,
                )
            assert not rows, f"connections left open: {[dict(row) for row in rows]}"
            return True

        await eventually(nobody_connected, within=timedelta(seconds=5))

    async def _do(self, statement: str) -> None:
        async with self._connected() as tx:
            await tx.execute(statement)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[asyncpg.Connection]:
        connection = await asyncpg.connect(self.url, timeout=10)
        try:
            yield connection
        finally:
            await connection.close()


@contextmanager
def running() -> Iterator[Postgres]:
    """The server of ``DATABASE_URL``, else one of the run's own."""
    if url := os.environ.get("DATABASE_URL"):
        server = Postgres(url)
        asyncio.run(server.forget_abandoned())
        yield server
        return
    with postgres_server.started() as url:
        yield Postgres(url)
