"""A connection to RabbitMQ that is opened again for ever, and what foreign errors mean."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Generic, TypeVar

import aio_pika
import aio_pika.exceptions
import structlog
from aiormq.abc import AbstractConnection

from shared.backoff import exponential
from shared.errors import Transient

HEARTBEAT = 10  # Seconds.
CONNECT_TIMEOUT = 5.0
# Declaring sixty-odd quorum queues for the first time takes seconds, each time after that none.
PREPARE_TIMEOUT = 60.0
CLOSE_TIMEOUT = 3.0
FIRST_DELAY = timedelta(milliseconds=200)
LONGEST_DELAY = timedelta(seconds=5)

FOREIGN = (*aio_pika.exceptions.CONNECTION_EXCEPTIONS, TimeoutError)

log = structlog.get_logger(__name__)

T = TypeVar("T")


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Raise ``Transient`` for whatever goes wrong with a connection.

    That includes ``CancelledError``: aiormq puts it into everything that waits on a connection
    which it closes, and ``except Exception`` would miss it. One that is meant for this task is
    told apart by ``cancelling()`` and passes.
    """
    try:
        yield
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise Transient(f"{doing}: the connection was lost") from error
    except FOREIGN as error:
        raise Transient(f"{doing}: {error!r}") from error


class Link(Generic[T]):
    """One connection and what was prepared on it, replaced whenever it is lost.

    ``current`` is what ``prepare`` returned, and None while there is no connection. ``tried`` is
    set once the first attempt has succeeded or failed: until then nothing is known.
    """

    def __init__(
        self, url: str, *, name: str, prepare: Callable[[AbstractConnection], Awaitable[T]]
    ) -> None:
        self.name = name
        self.current: T | None = None
        self.up = asyncio.Event()
        self.tried = asyncio.Event()
        self._url = url
        self._prepare = prepare
        self._lost = asyncio.Event()

    async def keep(self) -> None:
        """Connect, and connect again, until cancelled; the one thing that is retried for ever."""
        failures = 0
        while True:
            try:
                with translated("connecting to the broker"):
                    await self._hold()
            except Transient as error:
                failures += 1
                log.warning("broker_unreachable", link=self.name, error=str(error))
                self.tried.set()
                await asyncio.sleep(delay_after(failures).total_seconds())
            else:
                failures = 0
                log.warning("broker_lost", link=self.name)

    def condemn(self, prepared: T) -> None:
        """Give up a connection that no longer answers.

        Heartbeats would notice too, but take half a minute. Does nothing if ``prepared`` belongs
        to a connection that has been replaced already.
        """
        if self.current is prepared:
            self._lost.set()

    async def _hold(self) -> None:
        """Connect, prepare, and return when the connection is lost."""
        self._lost = lost = asyncio.Event()
        connection = await aio_pika.connect(
            self._url, timeout=CONNECT_TIMEOUT, name=self.name, heartbeat=HEARTBEAT
        )
        try:
            driver = connected_driver(connection)
            driver.closing.add_done_callback(lambda _: lost.set())
            async with asyncio.timeout(PREPARE_TIMEOUT):
                self.current = await self._prepare(driver)
            self.up.set()
            self.tried.set()
            log.info("broker_connected", link=self.name)
            await lost.wait()
        finally:
            self.up.clear()
            self.current = None
            await _close(connection)


def connected_driver(connection: aio_pika.abc.AbstractConnection) -> AbstractConnection:
    """The aiormq connection beneath an aio-pika one."""
    if connection.transport is None:
        raise ConnectionError("closed before it was used")
    return connection.transport.connection


def delay_after(failures: int) -> timedelta:
    """How long to wait after the so-manieth failure in a row; never longer than the cap."""
    jitter = -random.random()  # noqa: S311 - spreads load, guards nothing
    return exponential(failures, base=FIRST_DELAY, cap=LONGEST_DELAY, jitter=jitter)


async def _close(connection: aio_pika.abc.AbstractConnection) -> None:
    # What cannot be closed politely is closed by the broker when heartbeats stop.
    with suppress(Transient), translated("closing the connection"):
        async with asyncio.timeout(CLOSE_TIMEOUT):
            await connection.close()
