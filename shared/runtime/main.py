"""From the command line to a running service, and from a signal to a clean end."""

import asyncio
import gc
import os
import signal
import socket
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
from shared.runtime.heart import Heart
from shared.runtime.serve import serve
from shared.runtime.service import Platform, Service
from shared.settings import ServiceSettings

S = TypeVar("S", bound=ServiceSettings)


def run(
    name: str,
    build: Callable[[S, Platform], Service],
    read: type[S],
    *,
    works_without_broker: bool = False,
) -> None:
    """Run one service over RabbitMQ and PostgreSQL until a signal, then exit.

    One that ``works_without_broker`` stays ready while that is down, and only says so.
    """
    chosen = settings.read(read)
    log.configure(level=chosen.log_level, style=chosen.log_style)
    start(
        lambda stop: _distributed(name, build, chosen, stop, needs_broker=not works_without_broker)
    )


def start(main: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    """Run ``main`` on the fastest loop there is, with an event that SIGTERM or SIGINT sets.

    A second signal ends the process at once, for an operator who cannot wait.
    """

    # Nearly everything here dies young and by reference count; looking for cycles after every 700
    # new objects, as Python does, costs a tenth of the time under load.
    gc.set_threshold(20_000, 50, 50)

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
    name: str,
    build: Callable[[S, Platform], Service],
    chosen: S,
    stop: asyncio.Event,
    *,
    needs_broker: bool,
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
        health.add("broker", broker_check, required=needs_broker)
        platform = Platform(
            database=database,
            broker=broker,
            clock=clock,
            registry=CollectorRegistry(),
            health=health,
        )
        service = build(chosen, platform)
        heart = Heart(
            service=name,
            host=socket.gethostname(),
            workload=service.workload,
            database=database,
            pause=platform.pause,
            clock=clock,
            stop=stop,
            # Whoever has started us starts us again: an end in good order is all it takes.
            restart=stop,
        )
        async with heart.beating():
            await serve(
                [service],
                broker=broker,
                stop=stop,
                grace=timedelta(seconds=chosen.drain_grace),
            )
