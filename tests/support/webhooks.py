"""The webhook service in a test: its steps are taken by hand, its receivers are real servers."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self
from uuid import UUID

import asyncpg
import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from services.webhooks.app import Parts, assemble, service
from services.webhooks.settings import WebhooksSettings
from shared.broker.memory import MemoryBroker
from shared.broker.port import Outgoing
from shared.broker.topology import BATCHES, COMMANDS, TOPOLOGY, Topology
from shared.contracts import envelope
from shared.contracts.commands import TestEndpoint
from shared.contracts.content import Identity
from shared.contracts.envelope import Emitted
from shared.contracts.events import MessageSent, OutboundEvent
from shared.contracts.model import Event
from shared.db.database import Database
from shared.health import Health
from shared.ids import id_of, new_id
from shared.pause import Pause
from shared.runtime.service import Platform, Service
from shared.security.sealing import Place
from shared.security.signatures import SECRETS, new_secret
from tests.support.builders import NOON, an_instance, an_organization
from tests.support.clock import HandClock
from tests.support.keys import KEYS, RING

LOOPBACK = "127.0.0.0/8"


def a_sent_event(*, kind: type[OutboundEvent] = MessageSent, **given: Any) -> Emitted:
    """A ``message.sent``, or another ``kind``, of a message that nobody has heard of."""
    message_id = str(given.pop("message_id", new_id()))
    event = kind(
        message_id=message_id,
        from_="+12025550000",
        to="+12025550199",
        message_type="text",
        timestamp=NOON,
        identity=Identity(chat_id="12025550199@s.whatsapp.net", phone="+12025550199"),
    )
    return an_event(event, subject=message_id, **given)


def an_event(event: Event, **given: Any) -> Emitted:
    """An event in its envelope."""
    return Emitted(
        **{
            "id": new_id(),
            "event": event,
            "tenant_id": new_id(),
            "instance_id": None,
            "time": NOON,
            "subject": "something",
            "partition_key": "somebody",
            **given,
        }
    )


@dataclass(frozen=True)
class Got:
    """One request that a receiver was sent."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def id(self) -> str:
        """The event's id, as the headers tell it."""
        return self.headers["webhook-id"]


Answering = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Receiver:
    """A customer's server: keeps what it gets, and answers ``status`` or as ``answering`` does."""

    url: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    answering: Answering | None = None
    got: list[Got] = field(default_factory=list)
    _came: asyncio.Condition = field(default_factory=asyncio.Condition)

    @classmethod
    @asynccontextmanager
    async def listening(cls, port: int = 0) -> AsyncIterator[Self]:
        """Listen on loopback."""
        receiver = cls()
        app = web.Application()
        app.router.add_post("/{name}", receiver._receive)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
        try:
            yield receiver
        finally:
            await runner.cleanup()

    async def _receive(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.got.append(Got(request.path, headers, await request.read()))
        async with self._came:
            self._came.notify_all()
        if self.answering is not None:
            return await self.answering(request)
        return web.Response(status=self.status, headers=self.headers)

    async def has(self, number: int) -> None:
        """Return once it has got so many requests."""
        async with self._came, asyncio.timeout(10):
            await self._came.wait_for(lambda: len(self.got) >= number)

    @property
    def ids(self) -> list[str]:
        """The ids of the events that it got, in order of arrival."""
        return [got.id for got in self.got]


class World:
    """A database with one tenant and one instance, and a broker; the service comes and goes."""

    def __init__(self, url: str, sql: asyncpg.Connection, clock: HandClock) -> None:
        self.url = url
        self.sql = sql
        self.clock = clock
        self.pause = Pause()
        mine = tuple(b for b in TOPOLOGY.bindings if b.queue.startswith("webhooks."))
        self.broker = MemoryBroker(
            Topology(TOPOLOGY.exchanges, TOPOLOGY.queues, mine), raise_failures=True
        )
        self.tenant = UUID(int=0)
        self.instance = UUID(int=0)

    @classmethod
    @asynccontextmanager
    async def of(cls, url: str, clock: HandClock | None = None) -> AsyncIterator[Self]:
        """A new world in an empty database."""
        sql = await asyncpg.connect(url)
        try:
            world = cls(url, sql, clock or HandClock())
            world.tenant = await an_organization(sql)
            world.instance = await an_instance(sql, world.tenant)
            yield world
        finally:
            await sql.close()

    @asynccontextmanager
    async def running(self, **settings: Any) -> AsyncIterator[Parts]:
        """The service without its loops: what is due is claimed by hand."""
        async with self._assembled(**settings) as (parts, made), made.resources[0]:
            events, commands = map(self.broker.subscribe, made.subscriptions)
            async with events, commands:
                yield parts

    @asynccontextmanager
    async def dead(self) -> AsyncIterator[Parts]:
        """A service that dies before it posts anything, and so never gives a claim back."""
        async with self._assembled() as (parts, _):
            yield parts

    @asynccontextmanager
    async def _assembled(self, **settings: Any) -> AsyncIterator[tuple[Parts, Service]]:
        chosen = WebhooksSettings(
            database_url=SecretStr(self.url),
            amqp_url=SecretStr("amqp://unused"),
            **{
                "encryption_keys": KEYS,
                "allowed_nets": LOOPBACK,
                "drain": 0.2,
                **settings,
            },
        )
        async with Database.open(self.url, role="waypost_webhooks") as database:
            platform = Platform(
                database=database,
                broker=self.broker,
                clock=self.clock,
                registry=CollectorRegistry(),
                health=Health(self.clock),
                pause=self.pause,
            )
            parts = assemble(chosen, platform)
            yield parts, service(parts, chosen, platform)

    async def endpoint(self, url: str, *events: str, **given: Any) -> UUID:
        """A webhook's row; for all of the tenant's instances unless ``instance_id`` is given."""
        row: dict[str, Any] = {
            "tenant_id": self.tenant,
            "instance_id": None,
            "secret": new_secret(),
            "ring": RING,
            "active": True,
            "at": self.clock.now(),
            **given,
        }
        id_ = new_id()
        place = Place(row["tenant_id"], SECRETS, str(id_))
        await self.sql.execute(
            "INSERT INTO gateway.webhooks (id, tenant_id, instance_id, is_primary, url, events,"
            " secret_sealed, active, created_at, updated_at)"
            " VALUES ($1, $2, $3, false, $4, $5, $6, $7, $8, $8)",
            id_,
            row["tenant_id"],
            row["instance_id"],
            url,
            list(events) or ["*"],
            row["ring"].seal(row["secret"].encode(), place),
            row["active"],
            row["at"],
        )
        return id_

    def sent(self, **given: Any) -> Emitted:
        """A ``message.sent`` of this world's instance."""
        return a_sent_event(**{"tenant_id": self.tenant, "instance_id": self.instance, **given})

    async def happen(self, *events: Emitted) -> None:
        """Tell the service of events in one message; returns once they are addressed."""
        body = envelope.join([envelope.encode(event) for event in events])
        name = events[0].name
        message_id = str(id_of("batch", *(event.id for event in events)))
        await self.broker.publish([Outgoing(BATCHES, name, body, message_id, name)])

    async def ask_for_test(self, endpoint_id: UUID) -> UUID:
        """Send the command to test an endpoint; returns the event id."""
        command = TestEndpoint(endpoint_id=endpoint_id, event_id=new_id())
        body = command.model_dump_json().encode()
        await self.broker.publish(
            [Outgoing(COMMANDS, "webhooks", body, str(new_id()), command.TYPE)]
        )
        return command.event_id

    async def post(self, parts: Parts, *events: Emitted) -> None:
        """Let events happen and everything that follows at once be done and written."""
        if events:
            await self.happen(*events)
        await parts.claims.step()
        await parts.worker.quiet()

    async def states(self, endpoint_id: UUID | None = None) -> list[str]:
        """The states of all deliveries, or of one endpoint's."""
        rows = await self.sql.fetch(
            "SELECT state FROM webhooks.deliveries"
            " WHERE $1::uuid IS NULL OR endpoint_id = $1 ORDER BY state",
            endpoint_id,
        )
        return [row[0] for row in rows]

    async def delivery(self, event: Emitted | UUID) -> asyncpg.Record:
        """The only delivery of an event."""
        id_ = event if isinstance(event, UUID) else event.id
        rows = await self.sql.fetch("SELECT * FROM webhooks.deliveries WHERE event_id = $1", id_)
        assert len(rows) == 1
        return rows[0]

    async def attempts(self, event: Emitted | UUID) -> list[asyncpg.Record]:
        """The attempts of that delivery, in order."""
        delivery = await self.delivery(event)
        rows: Sequence[asyncpg.Record] = await self.sql.fetch(
            "SELECT * FROM webhooks.attempts WHERE delivery_id = $1 ORDER BY number",
            delivery["id"],
        )
        return list(rows)

    async def health(self, endpoint_id: UUID) -> asyncpg.Record:
        """How an endpoint is doing."""
        row = await self.sql.fetchrow(
            "SELECT * FROM webhooks.endpoint_health WHERE endpoint_id = $1", endpoint_id
        )
        assert row is not None
        return row

    async def told(self) -> list[Emitted]:
        """What waits in the outbox."""
        rows = await self.sql.fetch("SELECT body FROM webhooks.outbox ORDER BY seq")
        return [envelope.decode(row[0]) for row in rows]


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    """A world whose clock is moved by hand."""
    async with World.of(database_url) as made:
        yield made


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A customer's server."""
    async with Receiver.listening() as made:
        yield made
