"""All five services in one process, with a PostgreSQL and a broker of their own: ``make run``."""

import asyncio
import socket
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Final, TypeVar

from prometheus_client import CollectorRegistry
from pydantic import AliasChoices, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.dispatcher import app as dispatcher
from services.dispatcher.settings import DispatcherSettings
from services.gateway import app as gateway
from services.gateway.settings import GatewaySettings
from services.sessions import app as sessions
from services.sessions.settings import SessionsSettings
from services.stats import app as stats
from services.stats.settings import StatsSettings
from services.webhooks import app as webhooks
from services.webhooks.settings import WebhooksSettings
from shared import log, settings
from shared.broker.memory import MemoryBroker
from shared.clock import SystemClock
from shared.db import migrate
from shared.db.database import Database
from shared.db.tables.grants import role
from shared.health import Health
from shared.runtime.data_folder import DataFolder
from shared.runtime.embedded_postgres import embedded_postgres
from shared.runtime.heart import Heart
from shared.runtime.main import start
from shared.runtime.postgres_place import PostgresNotStarted
from shared.runtime.serve import serve
from shared.runtime.service import Platform, Service
from shared.settings import ServiceSettings

S = TypeVar("S", bound=ServiceSettings)

# An address that says that there is none: embedded services never dial the broker.
NO_BROKER: Final = "amqp://embedded.invalid"
LOOPBACK: Final = "127.0.0.0/8,::1/128"


class EmbeddedSettings(BaseSettings):
    """What ``make run`` takes from the environment; everything else has a default that works."""

    model_config = SettingsConfigDict(
        # Environment names are upper case; a field's own name is for whoever builds one in code.
        frozen=True,
        extra="ignore",
        populate_by_name=True,
        case_sensitive=True,
    )

    data: Path = Field(
        Path(".waypost"),
        validation_alias=AliasChoices("data", "WAYPOST_DATA"),
        description="The folder for everything that is kept: the database and the secrets.",
    )
    host: str = Field(
        "127.0.0.1",
        validation_alias=AliasChoices("host", "WAYPOST_HOST"),
        description="The address to listen on.",
    )
    port: int = Field(
        8080,
        ge=1,
        le=65535,
        validation_alias=AliasChoices("port", "WAYPOST_PORT"),
        description="The port of the API.",
    )
    log_level: str = Field(
        "WARNING",
        validation_alias=AliasChoices("log_level", "WAYPOST_LOG_LEVEL"),
        description="INFO shows a line for every request and every message.",
    )


def main() -> None:
    """Run until a signal."""
    chosen = settings.read(EmbeddedSettings)
    log.configure(level=chosen.log_level)
    try:
        start(lambda stop: run(chosen, stop))
    except PostgresNotStarted as error:
        sys.stderr.write(f"Waypost cannot start its database: {error}\n")
        raise SystemExit(1) from None


async def run(
    chosen: EmbeddedSettings, stop: asyncio.Event, started: asyncio.Event | None = None
) -> None:
    """Start everything, say so, and stop it when ``stop`` is set."""
    kept = DataFolder(chosen.data)
    kept.make()
    keys = kept.encryption_keys()
    clock = SystemClock()
    broker = MemoryBroker()
    async with AsyncExitStack() as stack:
        database_url = await stack.enter_async_context(embedded_postgres(kept.postgres))
        await migrate.upgrade(database_url)
        kept.tell_database(database_url)

        async def part(
            name: str, build: Callable[[S, Platform], Service], read: type[S], **more: object
        ) -> Service:
            database = await stack.enter_async_context(
                Database.open(database_url, role=role(name), name=f"waypost-{name}")
            )
            health = Health(clock)
            health.add("database", database.ping)
            platform = Platform(
                database=database,
                broker=broker,
                clock=clock,
                registry=CollectorRegistry(),
                health=health,
            )
            own = settings.read(
                read,
                database_url=database_url,
                amqp_url=NO_BROKER,
                log_level=chosen.log_level,
                **more,
            )
            service = build(own, platform)
            heart = Heart(
                service=name,
                host=socket.gethostname(),
                workload=service.workload,
                database=database,
                pause=platform.pause,
                clock=clock,
                stop=stop,
                # Nobody would start us again.
                restart=None,
            )
            await stack.enter_async_context(heart.beating())
            return service

        api = await part(
            "gateway",
            gateway.build,
            GatewaySettings,
            host=chosen.host,
            port=chosen.port,
            allowed_nets=LOOPBACK,
            # In memory a publisher waits until everybody has received.
            linger=0,
            jwt_secret=kept.jwt_secret(),
            encryption_keys=keys,
            media_store=str(kept.media),
        )
        others = [
            await part("dispatcher", dispatcher.build, DispatcherSettings, encryption_keys=keys),
            await part(
                "sessions",
                sessions.build,
                SessionsSettings,
                encryption_keys=keys,
                media_store=str(kept.media),
                allowed_nets=LOOPBACK,
            ),
            await part(
                "webhooks",
                webhooks.build,
                WebhooksSettings,
                encryption_keys=keys,
                allowed_nets=LOOPBACK,
            ),
            await part("stats", stats.build, StatsSettings, linger=0),
        ]
        ready = started or asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(_announce(chosen, ready, stop), name="announce")
            # Their health and metrics would each need a port; the gateway's are enough on a laptop.
            silent = [replace(service, listener=None) for service in others]
            await serve([*silent, api], broker=broker, stop=stop, started=ready)


async def _announce(chosen: EmbeddedSettings, ready: asyncio.Event, stop: asyncio.Event) -> None:
    waits = [asyncio.ensure_future(event.wait()) for event in (ready, stop)]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
    await asyncio.gather(*waits, return_exceptions=True)
    if not ready.is_set():
        return
    url = f"http://{chosen.host}:{chosen.port}"
    sys.stdout.write(
        f"""
  Waypost is running.

    API             {url}/api
    documentation   {url}/docs
    data            {chosen.data.resolve()}

  Send the first message (no phone needed, it goes to a sandbox):

    docs/examples/first-message.sh {url}

  Watch the whole journey, webhooks included, in another shell:

    make demo

  Ctrl+C stops it.

"""
    )
    sys.stdout.flush()
