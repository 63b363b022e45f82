"""Connections to PostgreSQL: transactions that can be seen, and a small hot pool for batches."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final, Self

import asyncpg
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from shared.errors import Away, Transient

# The server ends a statement after 30 s. One that says nothing for longer is not there any more.
_SILENCE: Final = timedelta(seconds=40)

HotConnection = asyncpg.pool.PoolConnectionProxy

# What PostgreSQL and asyncpg raise when the server is away, restarting or full.
AWAY = (
    OSError,
    TimeoutError,
    PoolTimeout,
    asyncpg.InterfaceError,
    # What asyncpg runs into on a connection that the server ended while nobody used it.
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
)
# What it raises about one statement that may well succeed the next time.
UNLUCKY = (
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.QueryCanceledError,
)


class Database:
    """One service's way to PostgreSQL, under its own role.

    ``tx()`` gives a transaction for ordinary statements; ``hot_tx()`` one on a bare asyncpg
    connection, for statements over arrays where every microsecond counts. Both raise ``Transient``
    when the database is away.
    """

    def __init__(
        self, engine: AsyncEngine, hot: asyncpg.Pool, lax: asyncpg.Pool, *, patience: timedelta
    ) -> None:
        self._engine = engine
        self._hot = hot
        self._lax = lax
        self._patience = patience.total_seconds()

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        url: str,
        *,
        role: str | None = None,
        name: str = "waypost",
        pool: int = 8,
        hot: int = 4,
        patience: timedelta = timedelta(seconds=10),
    ) -> AsyncIterator[Self]:
        """Connect lazily to ``url`` (``postgresql://…``), acting as ``role``.

        The login user must be a member of ``role``. Statements end after 30 s, a transaction that
        sits idle after 60 s, so that nothing can hold a lock for ever. ``patience`` is how long to
        wait for a hot connection, and for the server to let go of one.
        """
        server = {
            "application_name": name,
            "jit": "off",  # costs more than it saves on statements that take a millisecond
            "statement_timeout": "30s",
            "idle_in_transaction_session_timeout": "60s",
        }
        if role is not None:
            server["role"] = role
        engine = create_async_engine(
            sqlalchemy_url(url),
            pool_size=pool,
            max_overflow=0,
            pool_timeout=10,
            pool_pre_ping=False,
            # Else what goes wrong repeats what was to be written.
            hide_parameters=True,
            connect_args={
                "server_settings": server,
                "timeout": 5,
                "command_timeout": _SILENCE.total_seconds(),
            },
        )
        hot_pool = _hot_pool(url, server, size=hot)
        lax_pool = _hot_pool(url, {**server, "synchronous_commit": "off"}, size=hot)
        try:
            async with hot_pool, lax_pool:
                yield cls(engine, hot_pool, lax_pool, patience=patience)
        finally:
            await engine.dispose()

    @asynccontextmanager
    async def tx(self) -> AsyncIterator[AsyncConnection]:
        """A transaction: committed when the block ends, rolled back when it raises."""
        try:
            async with self._engine.begin() as connection:
                yield connection
        except (OperationalError, InterfaceError) as error:
            raise _away(error) from error
        except DBAPIError as error:
            cause = getattr(error.orig, "__cause__", None)
            if isinstance(cause, AWAY + UNLUCKY) or error.connection_invalidated:
                raise _away(error) from error
            raise
        except AWAY + UNLUCKY as error:
            raise _away(error) from error

    @asynccontextmanager
    async def hot(self, *, durable: bool = True) -> AsyncIterator[HotConnection]:
        """A bare connection, for a single statement that is its own transaction.

        Without ``durable`` a commit does not wait for the disk: should PostgreSQL crash within the
        next half second, it is as if it had not been. Only for what is then done again by itself.
        """
        pool = self._hot if durable else self._lax
        try:
            # Not acquire(timeout=…), which makes a task of it. That would bound the release too,
            # which asks the server to roll back if a statement was given up.
            async with asyncio.timeout(self._patience):
                connection = await pool.acquire()
            try:
                yield connection
            finally:
                await pool.release(connection, timeout=self._patience)
        except AWAY + UNLUCKY as error:
            raise _away(error) from error

    @asynccontextmanager
    async def hot_tx(self, *, durable: bool = True) -> AsyncIterator[HotConnection]:
        """A transaction on a bare connection; ``durable`` as for ``hot``."""
        async with self.hot(durable=durable) as connection, connection.transaction():
            yield connection

    async def ping(self) -> None:
        """Return if the database answers. Raises ``Transient``."""
        async with self.hot() as connection:
            await connection.fetchval("SELECT 1", timeout=2)


def _hot_pool(url: str, server: dict[str, str], *, size: int) -> asyncpg.Pool:
    return asyncpg.create_pool(
        asyncpg_dsn(url),
        min_size=0,
        max_size=size,
        timeout=5,
        command_timeout=_SILENCE.total_seconds(),
        server_settings=server,
        reset=_left_as_found,
    )


async def _left_as_found(_connection: asyncpg.Connection) -> None:
    """What a hot connection needs before its next use: nothing, so no round trip is spent on it.

    asyncpg rolls an open transaction back by itself; beyond that, statements on hot connections
    leave nothing behind: no settings, no listening, no locks of the session.
    """


def sqlalchemy_url(url: str) -> str:
    """The same address, for SQLAlchemy over asyncpg."""
    parsed = make_url(url).set(drivername="postgresql+asyncpg")
    return parsed.render_as_string(hide_password=False)


def asyncpg_dsn(url: str) -> str:
    """The same address, for asyncpg itself."""
    parsed = make_url(url).set(drivername="postgresql")
    return parsed.render_as_string(hide_password=False)


def _away(error: Exception) -> Transient:
    unlucky = [kind for kind in (error, error.__cause__) if isinstance(kind, UNLUCKY)]
    orig = getattr(error, "orig", None)
    if unlucky or isinstance(getattr(orig, "__cause__", None), UNLUCKY):
        return Transient(
            "The database was busy with something that stood in the way; try again shortly."
        )
    return Away(
        f"The database is not available ({type(error).__name__}); try again shortly.",
        code="ENGINE_UNAVAILABLE",
    )
