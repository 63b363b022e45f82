"""From the command line to a running service, and from a signal to a clean end."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry

from shared import log, settings
from shared.broker.rabbitmq import RabbitBroker
from shared.clock import SystemClock
from shared.db.database import Database
from shared.db.tables.grants import role
from shared.errors import Transient
from shared.health import Health
from shared.runtime.serve import serve
from shared.runtime.service import Platform, Service
from shared.settings import ServiceSettings

S = TypeVar("S", bound=ServiceSettings)


def run(name: str, build: Callable[[S, Platform], Service], read: type[S]) -> None:
    """Run one service over RabbitMQ and PostgreSQL until a signal, then exit."""
    chosen = settings.read(read)
    log.configure(level=chosen.log_level, style=chosen.log_style)
    start(lambda stop: _distributed(name, build, chosen, stop))


def start(main: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    """Run ``main`` on the fastest loop there is, with an event that SIGTERM or SIGINT sets.

    A second signal ends the process at once, for an operator who cannot wait.
    """

    async def supervised() -> None:
        stop = asyncio.Event()

        def on_signal() -> None:
            if stop.is_set():
                os._exit(1)
            stop.set()

        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, on_signal)
        await main(stop)

    if sys.platform == "win32":
        asyncio.run(supervised())
        return
    import uvloop  # noqa: PLC0415 - does not exist on Windows

    uvloop.run(supervised())


async def _distributed(
    name: str, build: Callable[[S, Platform], Service], chosen: S, stop: asyncio.Event
) -> None:
    clock = SystemClock()
    health = Health(clock)
    async with (
        Database.open(
            chosen.database_url.get_secret_value(), role=role(name), name=f"waypost-{name}"
        ) as database,
        RabbitBroker.connect(chosen.amqp_url.get_secret_value(), name=f"waypost-{name}") as broker,
    ):

        async def broker_check() -> None:
            if not broker.connected():
                raise Transient("not connected")

        health.add("database", database.ping)
        health.add("broker", broker_check)
        platform = Platform(
            database=database,
            broker=broker,
            clock=clock,
            registry=CollectorRegistry(),
            health=health,
        )
        await serve(
            [build(chosen, platform)],
            broker=broker,
            stop=stop,
            grace=timedelta(seconds=chosen.drain_grace),
        )
