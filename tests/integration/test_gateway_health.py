"""How things stand: of the whole platform for anybody, of an instance for those who may see it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

import orjson
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from services.gateway.api.health import FRESH, Conditions
from shared.broker.memory import MemoryBroker
from shared.db.database import Database
from shared.health import Health
from shared.ids import new_id
from shared.web.answers import Answers
from shared.web.limits import RateLimiter
from tests.support.builders import a_message_row, an_instance
from tests.support.customer import Customer
from tests.support.gateway import Gateway, MovableClock

WHOLE = "/api/webhooks/health"


async def a_transmission(gateway: Gateway, instance: UUID, outcome: str, **given: Any) -> None:
    """A hand-over that has ended."""
    await gateway.sql.execute(
        "INSERT INTO dispatcher.transmissions (id, message_id, instance_id, shard, attempt,"
        " created_at, published_at, outcome) VALUES ($1, $1, $2, 7, 1, $3, $3, $4)",
        new_id(),
        instance,
        gateway.clock.now() - given.get("ago", timedelta(0)),
        outcome,
    )


async def an_open_breaker(gateway: Gateway, tenant: UUID, instance: UUID | None = None) -> None:
    """An endpoint that cannot be reached."""
    id_ = new_id()
    await gateway.sql.execute(
        "INSERT INTO gateway.webhooks (id, tenant_id, instance_id, is_primary, url, events, secret,"
        " active, created_at, updated_at)"
        " VALUES ($1, $2, $3, false, 'https://example.com', '{*}', 'x', true, now(), now())",
        id_,
        tenant,
        instance,
    )
    await gateway.sql.execute(
        "INSERT INTO webhooks.endpoint_health (endpoint_id, consecutive_failures,"
        " consecutive_unreachable, opened, open_until) VALUES ($1, 9, 9, 1, $2)",
        id_,
        gateway.clock.now() + timedelta(hours=1),
    )


async def fresh(gateway: Gateway) -> Any:
    """What anybody is told, once what was found before has become too old."""
    gateway.clock.move(timedelta(seconds=2))
    return (await gateway.stranger().get(WHOLE)).data


async def test_all_is_well(gateway: Gateway) -> None:
    for path in (WHOLE, "/api/webhooks/whatsapp/health"):
        answer = await gateway.stranger().get(path)
        assert answer.status == 200
        view = answer.data
        assert set(view) == {"status", "timestamp", "uptime", "checks"}
        assert view["status"] == "healthy"
        assert view["checks"]["database"].pop("latencyMs") >= 0
        assert view["checks"]["errorRate"].pop("total") >= 0
        assert view["checks"] == {
            "database": {"status": "up"},
            "broker": {"status": "up"},
            "cache": {"status": "up", "kind": "memory"},
            "circuitBreakers": {"status": "up", "open": 0},
            "messageQueue": {"status": "up", "waiting": 0},
            "errorRate": {"status": "up", "percent": 0.0},
        }


async def test_it_is_looked_into_once_a_second_at_most(gateway: Gateway) -> None:
    _, account = await gateway.register()
    tenant = UUID(account["organization"]["id"])
    instance = await an_instance(gateway.sql, tenant)
    first = await fresh(gateway)
    await a_message_row(gateway.sql, tenant, instance)
    assert (await gateway.stranger().get(WHOLE)).data == first
    later = await fresh(gateway)
    assert later["checks"]["messageQueue"]["waiting"] == 1


async def test_open_breakers_degrade_and_no_tenant_is_named(gateway: Gateway) -> None:
    _, account = await gateway.register()
    tenant = UUID(account["organization"]["id"])
    await an_open_breaker(gateway, tenant)
    view = await fresh(gateway)
    assert view["status"] == "degraded"
    assert view["checks"]["circuitBreakers"] == {"status": "degraded", "open": 1}
    assert str(tenant) not in repr(view)


async def test_without_a_database_it_says_so() -> None:
    clock = MovableClock()
    async with Database.open("postgresql://nobody@127.0.0.1:1/nowhere") as nowhere:
        conditions = Conditions(
            database=nowhere,
            broker=MemoryBroker(),
            limiter=RateLimiter(clock=clock),
            answers=Answers(clock.monotonic),
            health=Health(clock),
            clock=clock,
        )
        answer = await conditions.whole(make_mocked_request("GET", WHOLE))
    assert isinstance(answer, web.Response)
    assert isinstance(answer.body, bytes)
    view = orjson.loads(answer.body)["data"]
    assert view["status"] == "unhealthy"
    assert view["checks"]["database"] == {"status": "down", "latencyMs": None}
    assert view["checks"]["messageQueue"] == {"status": "up", "waiting": None}
    assert view["checks"]["broker"] == {"status": "up"}


@asynccontextmanager
async def silent() -> AsyncIterator[str]:
    """A database that takes connections and never says anything."""

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)
        writer.close()

    server = await asyncio.start_server(hold, "127.0.0.1", 0)
    async with server:
        yield f"postgresql://nobody@127.0.0.1:{server.sockets[0].getsockname()[1]}/nowhere"


async def test_all_who_ask_at_once_are_told_of_one_look_at_a_database_that_hangs() -> None:
    clock = MovableClock()
    async with silent() as url, Database.open(url) as nowhere:
        conditions = Conditions(
            database=nowhere,
            broker=MemoryBroker(),
            limiter=RateLimiter(clock=clock),
            answers=Answers(clock.monotonic),
            health=Health(clock),
            clock=clock,
            patience=FRESH * 1.2,
        )
        asked = [conditions.whole(make_mocked_request("GET", WHOLE)) for _ in range(5)]
        async with asyncio.timeout(3):
            answers = await asyncio.gather(*asked)
    told = [answer.body for answer in answers if isinstance(answer, web.Response)]
    assert told == [told[0]] * 5
    assert isinstance(told[0], bytes)
    view = orjson.loads(told[0])["data"]
    assert view["status"] == "unhealthy"
    assert view["checks"]["database"] == {"status": "down", "latencyMs": None}


async def test_an_instance_is_told_of_to_those_who_may_see_it(gateway: Gateway) -> None:
    ada, account = await gateway.register("ada@example.com")
    bob, _ = await gateway.register("bob@example.com")
    tenant = UUID(account["organization"]["id"])
    instance = await an_instance(gateway.sql, tenant)
    other = await an_instance(gateway.sql, tenant)
    await a_message_row(gateway.sql, tenant, instance)
    await an_open_breaker(gateway, tenant, other)
    for outcome in ["accepted"] * 18 + ["rejected"] * 2:
        await a_transmission(gateway, instance, outcome)
    await a_transmission(gateway, instance, "rejected", ago=timedelta(hours=2))

    async def told(who: Customer, kind: str = "instances") -> Any:
        return await who.get(f"/api/{kind}/{instance}/health")

    for kind in ("instances", "clients"):
        view = (await told(ada, kind)).data
        assert view["status"] == "degraded"
        assert view["checks"]["session"] == {"status": "up", "state": "ready"}
        assert view["checks"]["errorRate"] == {"status": "degraded", "percent": 10.0, "total": 20}
        assert view["checks"]["messageQueue"]["waiting"] == 1
        assert view["checks"]["circuitBreakers"]["open"] == 0
    await gateway.sql.execute(
        "UPDATE sessions.session_states SET status = 'banned' WHERE instance_id = $1", instance
    )
    assert (await told(ada)).data["status"] == "unhealthy"
    assert (await told(bob)).code == "NOT_FOUND"
    keyed, _ = await gateway.key(instance, tenant)
    assert (await told(keyed)).code == "FORBIDDEN"


def test_only_answers_of_the_last_minutes_count() -> None:
    now = 0.0
    answers = Answers(lambda: now)
    answers.note(500)
    now = 270.0
    answers.note(200)
    assert answers.recent() == (2, 1)
    assert answers.recent().percent == 50.0
    now = 301.0
    assert answers.recent() == (1, 0)
    now = 1000.0
    assert answers.recent().percent == 0.0
