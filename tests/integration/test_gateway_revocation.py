"""What is revoked at one replica of the gateway, as the others see it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from urllib.parse import urlsplit
from uuid import UUID

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from prometheus_client import CollectorRegistry
from typing_extensions import override

from services.gateway.api.auditing import Auditing
from services.gateway.api.callers import REMEMBERED, Callers
from services.gateway.api.lookup import Senders
from services.gateway.api.revocation import KEY, Revocations
from services.gateway.loops.freshness import KeepFresh
from services.gateway.metrics import GatewayMetrics
from services.gateway.store.keys import KeyUses
from services.gateway.store.sightings import Sightings
from shared.broker.memory import MemoryBroker
from shared.broker.port import Broker, Incoming, Outgoing
from shared.broker.rabbitmq import RabbitBroker
from shared.broker.topology import NEWS
from shared.contracts.commands import LookAgain
from shared.db.database import Database
from shared.db.tables.grants import role
from shared.errors import Transient
from shared.ids import new_id
from shared.security.tokens import AccessTokens, digest_of
from tests.support import gateway as gateway_support
from tests.support.builders import an_instance
from tests.support.chaos_proxy import ChaosProxy
from tests.support.customer import Answer, Customer
from tests.support.gateway import PASSWORD, SECRET, Gateway, StillClock

TO = "+12025550199"


@dataclass
class Replicas:
    """Two gateways over one database and one broker, and somebody with an instance."""

    here: Gateway
    there: Gateway
    ada: Customer
    tenant: UUID
    instance: UUID

    def elsewhere(self, customer: Customer) -> Customer:
        """The same customer, at the other replica."""
        return Customer(self.there.http, self.there.url, customer.headers)

    async def key(self) -> tuple[str, Customer, Customer]:
        """A new key's path, and who shows it, at one replica and at the other."""
        path = f"/api/instances/{self.instance}/keys"
        made = (await self.ada.post(path, {"name": "Shop"})).data
        keyed = self.ada.with_key(made["key"])
        return f"{path}/{made['id']}", keyed, self.elsewhere(keyed)


@pytest.fixture(params=["memory", "rabbitmq"])
def rabbit_url(request: pytest.FixtureRequest) -> str | None:
    """Where RabbitMQ is, if the replicas share that and no memory."""
    if request.param == "memory":
        return None
    url: str = request.getfixturevalue("own_amqp_url")
    return url


@pytest.fixture
async def replicas(rabbit_url: str | None, database_url: str) -> AsyncIterator[Replicas]:
    async with AsyncExitStack() as stack:
        brokers: list[Broker] = [MemoryBroker(raise_failures=True)] * 2
        if rabbit_url is not None:
            brokers = [
                await stack.enter_async_context(RabbitBroker.connect(rabbit_url, name=name))
                for name in ("here", "there")
            ]
        # Time stands still, so that nothing is forgotten for its age.
        here, there = [
            await stack.enter_async_context(
                gateway_support.running(database_url, broker=broker, clock=StillClock())
            )
            for broker in brokers
        ]
        ada, account = await here.register()
        tenant = UUID(account["organization"]["id"])
        yield Replicas(here, there, ada, tenant, await an_instance(here.sql, tenant))


async def soon(ask: Callable[[], Awaitable[Answer]], status: int) -> Answer:
    """What is answered once the status is this one, which it must be within a second."""
    async with asyncio.timeout(1):
        while (answer := await ask()).status != status:
            pass
    return answer


async def test_a_key_that_one_replica_revokes_is_refused_by_the_other(replicas: Replicas) -> None:
    path, keyed, elsewhere = await replicas.key()
    assert (await elsewhere.text(TO, "x")).status == 202
    assert (await elsewhere.text(TO, "x")).status == 202
    assert (await replicas.ada.call("DELETE", path)).status == 200
    assert (await keyed.text(TO, "x")).status == 401
    refused = await soon(lambda: elsewhere.text(TO, "x"), 401)
    assert "revoked" in refused.body["error"]["message"]


async def test_a_login_that_ends_at_one_replica_has_ended_at_the_other(
    replicas: Replicas,
) -> None:
    elsewhere = replicas.elsewhere(replicas.ada)
    assert (await elsewhere.get("/api/auth/me")).status == 200
    assert (await replicas.ada.post("/api/auth/logout")).status == 200
    assert (await replicas.ada.get("/api/auth/me")).status == 401
    await soon(lambda: elsewhere.get("/api/auth/me"), 401)


async def test_a_new_password_ends_the_other_logins_at_every_replica(replicas: Replicas) -> None:
    other = (
        await replicas.here.stranger().post(
            "/api/auth/login", {"email": "ada@example.com", "password": PASSWORD}
        )
    ).data["token"]
    elsewhere = replicas.there.with_token(other)
    assert (await elsewhere.get("/api/auth/me")).status == 200
    changed = await replicas.ada.call(
        "POST",
        "/api/auth/change-password",
        json={"currentPassword": PASSWORD, "newPassword": "another example passphrase"},
    )
    assert changed.data == {"otherLoginsEnded": 1}
    await soon(lambda: elsewhere.get("/api/auth/me"), 401)
    assert (await replicas.elsewhere(replicas.ada).get("/api/auth/me")).status == 200


async def test_an_instance_that_one_replica_deletes_sends_nothing_at_the_other(
    replicas: Replicas,
) -> None:
    _, keyed, elsewhere = await replicas.key()
    assert (await elsewhere.text(TO, "x")).status == 202
    deleted = await replicas.ada.call("DELETE", f"/api/instances/{replicas.instance}")
    assert deleted.status == 200
    assert (await keyed.text(TO, "x")).status == 401
    await soon(lambda: elsewhere.text(TO, "x"), 401)


async def test_an_instance_that_one_replica_disconnects_is_not_ready_at_the_other(
    replicas: Replicas,
) -> None:
    _, _, elsewhere = await replicas.key()
    assert (await elsewhere.text(TO, "x")).status == 202
    asked = await replicas.ada.post(f"/api/instances/{replicas.instance}/disconnect")
    assert asked.status == 202
    refused = await soon(lambda: elsewhere.text(TO, "x"), 409)
    assert refused.code == "INSTANCE_NOT_READY"


class Deaf(MemoryBroker):
    """A broker that is away for news, though not for the rest."""

    @override
    async def publish(self, messages: Sequence[Outgoing]) -> None:
        if any(message.exchange == NEWS for message in messages):
            raise Transient("away")
        await super().publish(messages)


async def test_without_the_broker_a_revoked_key_stops_by_its_age(database_url: str) -> None:
    async with (
        gateway_support.running(database_url, broker=Deaf()) as here,
        gateway_support.running(database_url, broker=MemoryBroker()) as there,
    ):
        ada, account = await here.register()
        tenant = UUID(account["organization"]["id"])
        replicas = Replicas(here, there, ada, tenant, await an_instance(here.sql, tenant))
        path, keyed, elsewhere = await replicas.key()
        assert (await elsewhere.text(TO, "x")).status == 202
        # It is revoked all the same, and at once where that was asked for.
        assert (await ada.call("DELETE", path)).status == 200
        assert (await keyed.text(TO, "x")).status == 401
        there.clock.move(REMEMBERED)
        assert (await elsewhere.text(TO, "x")).status == 401


def callers_of(database: Database, gateway: Gateway) -> Callers:
    """What another replica knows of credentials, by the gateway's clock."""
    return Callers(
        database=database,
        tokens=AccessTokens(secrets=[SECRET]),
        uses=KeyUses(database, clock=gateway.clock),
        auditing=Auditing(
            database=database,
            sightings=Sightings(database=database, clock=gateway.clock, told=lambda: None),
            trusted_proxies=0,
            clock=gateway.clock,
        ),
        clock=gateway.clock,
    )


async def test_a_user_who_has_changed_is_looked_at_again(gateway: Gateway) -> None:
    ada, account = await gateway.register()
    assert (await ada.get("/api/auth/me")).data["user"]["role"] == "admin"
    await gateway.sql.execute("UPDATE gateway.users SET active = false")
    assert (await ada.get("/api/instances")).status == 200
    news = LookAgain(users=(UUID(account["user"]["id"]),))
    await gateway.broker.publish([_outgoing(news.model_dump_json().encode())])
    assert (await ada.get("/api/instances")).status == 401


async def test_news_that_cannot_be_read_changes_nothing(gateway: Gateway) -> None:
    ada, _ = await gateway.register()
    for body in (b"{", b'{"digests": ["xyz"]}', b'{"logins": [1]}', b'{"another": []}'):
        await gateway.broker.publish([_outgoing(body)])
    await gateway.broker.publish([_outgoing(b"{}", type="something_else")])
    assert (await ada.get("/api/auth/me")).status == 200


async def test_many_revocations_are_told_in_messages_of_a_bounded_size(gateway: Gateway) -> None:
    heard: list[Incoming] = []
    revocations = Revocations(
        broker=gateway.broker,
        callers=callers_of(gateway.database, gateway),
        senders=Senders(database=gateway.database, clock=gateway.clock),
    )
    digests = [digest_of(str(number)) for number in range(2_500)]
    instance = new_id()
    async with gateway.broker.listen(NEWS, KEY, heard.append):
        await revocations.tell(keys=iter(digests), instances=[instance])
        await revocations.tell(keys=[])
    news = [LookAgain.model_validate_json(message.body) for message in heard]
    assert [len(one.digests) for one in news] == [1_000, 1_000, 500]
    assert [one.instances for one in news] == [(instance,), (), ()]
    assert [digest for one in news for digest in one.digests] == [one.hex() for one in digests]


def showing(key: str) -> web.Request:
    """A request with a key."""
    return make_mocked_request("GET", "/", headers={"X-API-Key": key})


async def test_a_key_in_use_never_waits_and_outlives_no_outage(
    gateway: Gateway, database_url: str
) -> None:
    sender = await gateway.sender()
    key = sender.customer.headers["X-API-Key"]
    address = urlsplit(database_url)
    assert address.hostname
    assert address.port
    async with ChaosProxy.before(address.hostname, address.port) as proxy:
        through = address._replace(netloc=f"{address.username}@127.0.0.1:{proxy.port}")
        async with Database.open(through.geturl(), role=role("gateway"), name="gateway") as away:
            callers = callers_of(away, gateway)
            keeping = KeepFresh(
                [callers.refresh],
                clock=gateway.clock,
                metrics=GatewayMetrics(CollectorRegistry()),
            )
            known = await callers.caller(showing(key))
            for _ in range(3):
                gateway.clock.move(REMEMBERED * 0.7)
                assert callers.known(key) == known
                await keeping.step()
            await proxy.refuse()
            gateway.clock.move(REMEMBERED * 0.7)
            assert callers.known(key) == known
            with pytest.raises(Transient):
                await keeping.step()
            assert callers.known(key) == known
            gateway.clock.move(REMEMBERED * 0.3)
            assert callers.known(key) is None
            with pytest.raises(Transient):
                await callers.caller(showing(key))
            await proxy.heal()
            assert await callers.caller(showing(key)) == known


def _outgoing(body: bytes, *, type: str = LookAgain.TYPE) -> Outgoing:  # noqa: A002
    return Outgoing(exchange=NEWS, routing_key=KEY, body=body, message_id=str(new_id()), type=type)
