"""Two gateways behind one Redis: one limit for both, and each its own while that is away."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import timedelta

import pytest

from tests.support.builders import an_instance, an_organization
from tests.support.customer import Customer
from tests.support.gateway import MovableClock, running
from tests.support.redis_server import RedisServer

LIMIT = 6
# Until Redis is asked again.
AWAY = timedelta(seconds=6)
# Longer than Redis is waited for, much shorter than a client waits.
IN_TIME = 3


@dataclass
class Pair:
    """One key, with so many requests an hour, at two gateways; and what they count with."""

    replicas: tuple[Customer, Customer]
    redis: RedisServer
    clock: MovableClock

    async def ask(self, *replicas: Customer, times: int) -> list[int]:
        """What is answered, each in time; in turn if there are several."""
        answers = []
        for _ in range(times):
            for replica in replicas:
                async with asyncio.timeout(IN_TIME):
                    answers.append((await replica.get("/api/instance/info")).status)
        return answers

    async def is_one_limit(self) -> bool:
        """Whether both let in together what the limit says, and refuse the next, at either."""
        answers = await self.ask(*self.replicas, times=LIMIT // 2 + 1)
        return answers == [200] * LIMIT + [429, 429]

    async def is_a_limit_each(self) -> bool:
        """Whether each lets in what the limit says, whatever the other does."""
        answers = [await self.ask(replica, times=LIMIT + 1) for replica in self.replicas]
        return answers == [[200] * LIMIT + [429]] * 2


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    with RedisServer.running() as server:
        yield server


@pytest.fixture
async def pair(database_url: str, redis_server: RedisServer) -> AsyncIterator[Pair]:
    clock = MovableClock()
    async with (
        running(database_url, clock=clock, redis_url=redis_server.url) as one,
        running(database_url, clock=clock, redis_url=redis_server.url) as other,
    ):
        tenant = await an_organization(one.sql)
        instance = await an_instance(one.sql, tenant)
        here, _ = await one.key(instance, tenant, rate_limit=LIMIT)
        there = Customer(other.http, other.url, here.headers)
        yield Pair((here, there), redis_server, clock)


async def test_the_limit_holds_over_both(pair: Pair) -> None:
    assert await pair.is_one_limit()


async def test_without_redis_each_counts_for_itself_until_it_is_back(pair: Pair) -> None:
    assert await pair.is_one_limit()
    pair.redis.stop()
    assert await pair.is_a_limit_each()
    pair.redis.start()
    pair.clock.move(AWAY)
    assert await pair.is_one_limit()


async def test_a_redis_that_does_not_answer_holds_up_nobody(pair: Pair) -> None:
    pair.redis.freeze()
    assert await pair.is_a_limit_each()
    # Asked again, and still nothing: only one request finds out.
    pair.clock.move(AWAY)
    assert await pair.ask(*pair.replicas, times=1) == [429, 429]
    pair.redis.thaw()
    pair.redis.clear()
    pair.clock.move(AWAY)
    assert await pair.is_one_limit()
