"""Limits that replicas share in Redis: exact under a crowd, and no condition for working."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta

import pytest

from services.gateway.domain.plans import PLANS
from shared.web.limits import Limit, RateLimiter
from tests.support.clock import HandClock
from tests.support.gateway import running
from tests.support.redis_server import RedisServer

HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    """A Redis of the module's own."""
    with RedisServer.running() as server:
        yield server


@pytest.fixture
def url(redis_server: RedisServer) -> str:
    """The same Redis, empty."""
    redis_server.clear()
    return redis_server.url


async def test_a_crowd_gets_exactly_the_limit_and_each_knows_what_is_left(url: str) -> None:
    async with RateLimiter(clock=HandClock(), redis_url=url) as limiter:
        crowd = await asyncio.gather(*(limiter.hit("u", Limit(30, HOUR)) for _ in range(100)))

    passed = [allowance for allowance in crowd if allowance.allowed]
    assert sorted(allowance.remaining for allowance in passed) == list(range(30))
    assert all(allowance.remaining == 0 for allowance in crowd if not allowance.allowed)
    assert all(timedelta(0) < allowance.reset_after <= HOUR for allowance in crowd)


async def test_replicas_share_the_limit(url: str) -> None:
    limit = Limit(5, HOUR)
    async with (
        RateLimiter(clock=HandClock(), redis_url=url) as one,
        RateLimiter(clock=HandClock(), redis_url=url) as other,
    ):
        crowd = await asyncio.gather(
            *(limiter.hit("u", limit) for limiter in (one, other) for _ in range(5))
        )
        looked = await other.look("u", limit)

    assert sum(allowance.allowed for allowance in crowd) == 5
    assert not looked.allowed


async def test_a_crowd_that_waits_for_redis_gets_what_its_month_leaves(
    url: str, database_url: str
) -> None:
    async with running(database_url, redis_url=url) as gateway:
        sender = await gateway.sender(engine="whatsmeow")
        assert (await sender.text()).status == 202
        await gateway.sql.execute(
            "UPDATE gateway.message_usage SET accepted = $1", PLANS["basic"].messages - 2
        )
        gateway.clock.move(timedelta(seconds=6))
        assert (await sender.text()).status == 202
        crowd = await asyncio.gather(*(sender.text() for _ in range(20)))
        counted = await gateway.sql.fetchval("SELECT accepted FROM gateway.message_usage")

    assert sorted(answer.status for answer in crowd) == [202] + [429] * 19
    assert {answer.code for answer in crowd if answer.status == 429} == {"QUOTA_EXCEEDED"}
    assert counted == PLANS["basic"].messages


async def test_a_hit_whose_request_was_cancelled_holds_up_nobody(url: str) -> None:
    limit = Limit(10, HOUR)
    async with RateLimiter(clock=HandClock(), redis_url=url) as limiter:
        crowd = [asyncio.ensure_future(limiter.hit("u", limit)) for _ in range(3)]
        await asyncio.sleep(0)
        crowd[0].cancel()
        rest = await asyncio.gather(*crowd, return_exceptions=True)

    assert isinstance(rest[0], asyncio.CancelledError)
    assert all(not isinstance(allowance, BaseException) for allowance in rest[1:])
