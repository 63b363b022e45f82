"""The real gateway over a real database, with a broker in memory and nobody behind it."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import aiohttp
import asyncpg
import orjson
from aiohttp import web
from aiohttp.test_utils import TestServer
from aiohttp.typedefs import Handler
from prometheus_client import CollectorRegistry
from typing_extensions import override

from services.gateway.app import build
from services.gateway.settings import GatewaySettings
from shared.broker.memory import MemoryBroker
from shared.broker.port import Broker, Incoming, Outcome, Subscription
from shared.broker.topology import TOPOLOGY
from shared.clock import SystemClock
from shared.contracts.commands import COMMANDS
from shared.contracts.model import Command
from shared.db.database import Database
from shared.db.tables.grants import role
from shared.health import Health
from shared.ids import new_id
from shared.runtime.serve import runner_of, serve
from shared.runtime.service import Listener, Platform
from shared.security.tokens import KeyKind, issue_key
from shared.web.connections import Express, Runner
from tests.support.builders import NOON, an_instance, an_organization
from tests.support.customer import Answer, Customer
from tests.support.keys import KEYS

SECRET = "a secret of at least thirty-two characters"
PASSWORD = "an example passphrase"
ALL = {
    "messages": {"send": True, "receive": True},
    "contacts": {"check": True},
    "instance": {"info": True, "stats": True},
    "webhook": {"configure": True, "test": True},
}


class MovableClock(SystemClock):
    """The machine's clock, that can be put forward."""

    def __init__(self) -> None:
        self._ahead = timedelta(0)
        self._still: float | None = None

    @override
    def now(self) -> datetime:
        return super().now() + self._ahead

    @override
    def monotonic(self) -> float:
        running = super().monotonic() if self._still is None else self._still
        return running + self._ahead.total_seconds()

    def stand_still(self) -> None:
        """Let nothing that is remembered grow older by itself."""
        self._still = super().monotonic()

    def move(self, by: timedelta) -> None:
        """Let time pass."""
        self._ahead += by


class StillClock(MovableClock):
    """One that stands still until it is put forward; waiting takes its time all the same."""

    def __init__(self) -> None:
        super().__init__()
        self._at = SystemClock.now(self)

    @override
    def now(self) -> datetime:
        return self._at + self._ahead

    @override
    def monotonic(self) -> float:
        return self.now().timestamp()


@dataclass
class Heard:
    """What was published to queues of services that are not there."""

    messages: list[Incoming] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def receive(self, messages: Sequence[Incoming]) -> list[Outcome]:
        self.messages.extend(messages)
        self.news.set()
        return [Outcome.DONE] * len(messages)

    async def next(self, kind: type[Command], *, queue: str | None = None) -> Any:
        """The first command of this type that was heard, now or soon; it is taken away."""
        async with asyncio.timeout(5):
            while True:
                self.news.clear()
                for message in self.messages:
                    if message.type == kind.TYPE and queue in {None, message.queue}:
                        self.messages.remove(message)
                        return COMMANDS[kind.TYPE].model_validate_json(message.body)
                await self.news.wait()


class Served(TestServer):
    """What ``serve`` makes of a listener, on a free port and within a test's reach.

    ``long_ways`` counts the requests that an express handler has left to the application.
    """

    def __init__(self, listener: Listener) -> None:
        super().__init__(listener.app)
        self.long_ways = 0
        express = {path: self._counted(first) for path, first in listener.express.items()}
        self._listener = replace(listener, express=express)

    def _counted(self, express: Express) -> Express:
        async def handle(request: web.Request, long_way: Handler) -> web.StreamResponse:
            async def counted(request: web.Request) -> web.StreamResponse:
                self.long_ways += 1
                return await long_way(request)

            return await express(request, counted)

        return handle

    @override
    async def _make_runner(self, **_: Any) -> Runner:
        return runner_of(self._listener)


@dataclass
class Gateway:
    """A gateway that serves, and everything around it."""

    url: str
    sql: asyncpg.Connection
    database: Database
    broker: Broker
    clock: MovableClock
    heard: Heard
    http: aiohttp.ClientSession
    app: web.Application
    server: Served
    registry: CollectorRegistry

    def metric(self, name: str, **labels: str) -> float:
        """What the gateway counts under this name."""
        return self.registry.get_sample_value(name, labels) or 0.0

    def waiting(self) -> int:
        """How many requests wait for events."""
        return int(self.metric("waypost_gateway_event_waiters"))

    def sockets(self) -> int:
        """How many Engine.IO connections there are, authenticated or not."""
        return int(self.metric("waypost_gateway_live_connections"))

    def sever(self) -> None:
        """Cut every connection, as a network does."""
        assert self.server.runner is not None
        assert self.server.runner.server is not None
        for connection in self.server.runner.server.connections:
            assert isinstance(connection, web.RequestHandler)
            if connection.transport is not None:
                connection.transport.abort()

    def stranger(self) -> Customer:
        """Somebody without a credential."""
        return Customer(self.http, self.url)

    def with_token(self, token: str) -> Customer:
        """Somebody who is logged in."""
        return Customer(self.http, self.url, {"Authorization": f"Bearer {token}"})

    async def register(self, email: str = "ada@example.com") -> tuple[Customer, dict[str, Any]]:
        """A new account, logged in, and what was answered."""
        answer = await self.stranger().post(
            "/api/auth/register", {"email": email, "password": PASSWORD, "name": "Ada"}
        )
        return self.with_token(answer.data["token"]), answer.data

    async def operator(self, email: str = "grace@example.com") -> Customer:
        """Somebody who runs the platform, logged in."""
        await self.register(email)
        await self.sql.execute("UPDATE gateway.users SET role = 'operator' WHERE email = $1", email)
        login = await self.stranger().post(
            "/api/auth/login", {"email": email, "password": PASSWORD}
        )
        return self.with_token(login.data["token"])

    async def key(self, instance: UUID, tenant: UUID, **given: Any) -> tuple[Customer, UUID]:
        """A key of an instance, and its id."""
        issued = issue_key(KeyKind.INSTANCE)
        row: dict[str, Any] = {
            "id": new_id(),
            "permissions": ALL,
            "rate_limit": 1_000_000,
            "expires_at": None,
            "revoked_at": None,
            **given,
        }
        await self.sql.execute(
            "INSERT INTO gateway.instance_keys (id, tenant_id, instance_id, name, key_hash, hint,"
            " permissions, rate_limit, created_at, expires_at, revoked_at)"
            " VALUES ($1, $2, $3, 'test', $4, $5, $6::jsonb, $7, $8, $9, $10)",
            row["id"],
            tenant,
            instance,
            issued.digest,
            issued.hint,
            orjson.dumps(row["permissions"]).decode(),
            row["rate_limit"],
            NOON,
            row["expires_at"],
            row["revoked_at"],
        )
        return Customer(self.http, self.url, {"X-API-Key": issued.text}), row["id"]

    async def sender(self, **given: Any) -> "Sender":
        """A tenant with a ready instance and a key for it."""
        tenant = await an_organization(self.sql)
        instance = await an_instance(self.sql, tenant, **{"phone_number": "+12025550000", **given})
        customer, _ = await self.key(instance, tenant)
        return Sender(customer, instance, tenant)

    async def row(self, query: str, *arguments: object) -> dict[str, Any]:
        """The one row that a query finds."""
        [found] = await self.sql.fetch(query, *arguments)
        return dict(found)

    async def count(self, table: str) -> int:
        """How many rows a table has."""
        found: int = await self.sql.fetchval(f"SELECT count(*) FROM {table}")
        return found

    async def rows(self) -> dict[str, int]:
        """How many rows each table has that a request may write."""
        tables = (
            "dispatcher.messages",
            "gateway.organizations",
            "gateway.users",
            "gateway.refresh_tokens",
            "gateway.instances",
            "gateway.instance_keys",
            "gateway.webhooks",
            "gateway.idempotency_keys",
            "gateway.outbox",
        )
        return {table: await self.count(table) for table in tables}


@dataclass
class Sender:
    """A customer that acts as one ready instance."""

    customer: Customer
    instance: UUID
    tenant: UUID

    async def text(self, to: str = "+12025550199", message: str = "Hello", **more: Any) -> Answer:
        """Send a text."""
        return await self.customer.text(to, message, **more)

    async def post(self, body: object, **more: Any) -> Answer:
        """Send a text with any body."""
        return await self.customer.post("/api/messages/text", body, **more)

    async def warm(self) -> None:
        """Make the key and the instance known, as they are after a first request."""
        assert (await self.customer.get("/api/instance/info")).status == 200
        assert (await self.text("+12025550111", "first")).status == 202


@asynccontextmanager
async def running(
    database_url: str,
    *,
    broker: Broker | None = None,
    clock: MovableClock | None = None,
    **settings: Any,
) -> AsyncIterator[Gateway]:
    """A gateway on a port of its own. With a ``broker`` it is one replica of several, and what
    it publishes to services that are not there is not heard.
    """
    folder = tempfile.TemporaryDirectory(prefix="waypost-tests-")
    chosen = GatewaySettings.model_validate(
        {
            "database_url": database_url,
            "amqp_url": "amqp://nobody.invalid",
            "jwt_secret": SECRET,
            "encryption_keys": KEYS,
            "password_memory_kib": 1024,
            "limit_user_minute": 100_000,
            "limit_address_minute": 100_000,
            "limit_analytics_minute": 100_000,
            "limit_admin_hour": 100_000,
            "allowed_nets": "127.0.0.0/8",
            "media_store": folder.name,
            "live_connects_minute": 100_000,
            **settings,
        }
    )
    clock = clock or MovableClock()
    alone = broker is None
    broker = broker or MemoryBroker(raise_failures=True)
    heard = Heard()
    async with AsyncExitStack() as stack:
        stack.enter_context(folder)
        sql = await asyncpg.connect(database_url)
        stack.push_async_callback(sql.close)
        database = await stack.enter_async_context(
            Database.open(database_url, role=role("gateway"), name="gateway")
        )
        registry = CollectorRegistry()
        health = Health(clock)
        health.add("database", database.ping)
        service = build(
            chosen,
            Platform(
                database=database,
                broker=broker,
                clock=clock,
                registry=registry,
                health=health,
            ),
        )
        assert service.listener is not None
        queues = {queue.name for queue in TOPOLOGY.queues} - {"gateway.events"}
        for queue in queues if alone else ():
            await stack.enter_async_context(
                broker.subscribe(Subscription(queue=queue, receive=heard.receive, batch=100))
            )
        stop, started = asyncio.Event(), asyncio.Event()
        group = await stack.enter_async_context(asyncio.TaskGroup())
        group.create_task(
            serve([replace(service, listener=None)], broker=broker, stop=stop, started=started)
        )
        stack.callback(stop.set)
        await started.wait()
        server = Served(service.listener)
        await stack.enter_async_context(server)
        http = await stack.enter_async_context(
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30))
        )
        url = f"http://{server.host}:{server.port}"
        app = service.listener.app
        yield Gateway(url, sql, database, broker, clock, heard, http, app, server, registry)
