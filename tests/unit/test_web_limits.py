"""Sliding windows: what fits, what does not, and when it will."""

from datetime import timedelta

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import Throttled
from shared.web.edge import RESPONSE_HEADERS
from shared.web.limits import Allowance, Limit, RateLimiter, enforce
from shared.web.windows import MemoryWindows
from tests.support.clock import HandClock

MINUTE = timedelta(minutes=1)


async def hits(limiter: RateLimiter, count: int, limit: Limit, key: str = "u") -> list[bool]:
    return [(await limiter.hit(key, limit)).allowed for _ in range(count)]


async def test_as_many_as_the_limit_pass_and_no_more() -> None:
    async with RateLimiter(clock=HandClock()) as limiter:
        assert await hits(limiter, 5, Limit(3, MINUTE)) == [True, True, True, False, False]


async def test_keys_and_limits_are_counted_apart() -> None:
    async with RateLimiter(clock=HandClock()) as limiter:
        assert await hits(limiter, 2, Limit(1, MINUTE), key="one") == [True, False]
        assert await hits(limiter, 1, Limit(1, MINUTE), key="two") == [True]
        assert await hits(limiter, 1, Limit(1, timedelta(hours=1)), key="one") == [True]


async def test_each_hit_says_what_is_left_and_when_the_window_ends() -> None:
    clock = HandClock()
    clock.move(timedelta(seconds=20))
    async with RateLimiter(clock=clock) as limiter:
        allowance = await limiter.hit("u", Limit(3, MINUTE))

    assert allowance == Allowance(
        allowed=True, limit=3, remaining=2, reset_after=timedelta(seconds=40)
    )


async def test_the_window_slides_instead_of_starting_anew() -> None:
    """At a boundary a fixed window would let twice the limit through."""
    clock, limit = HandClock(), Limit(4, MINUTE)
    async with RateLimiter(clock=clock) as limiter:
        clock.move(timedelta(seconds=59))
        assert await hits(limiter, 4, limit) == [True] * 4
        clock.move(timedelta(seconds=2))
        assert await hits(limiter, 2, limit) == [True, False]
        clock.move(timedelta(seconds=30))
        assert await hits(limiter, 3, limit) == [True, True, False]


async def test_after_two_quiet_windows_all_is_forgotten() -> None:
    clock, limit = HandClock(), Limit(2, MINUTE)
    async with RateLimiter(clock=clock) as limiter:
        await hits(limiter, 2, limit)
        clock.move(2 * MINUTE)
        assert await hits(limiter, 3, limit) == [True, True, False]


@given(
    limit=st.integers(1, 20),
    seconds=st.integers(1, 3600),
    gaps=st.lists(st.floats(0, 2000), min_size=1, max_size=60),
)
def test_whoever_waits_as_long_as_told_is_let_in(
    limit: int, seconds: int, gaps: list[float]
) -> None:
    now = 0.0
    windows = MemoryWindows(lambda: now)
    for gap in gaps:
        now += gap
        taken, window = windows.take("k", limit, seconds, 1)
        if not taken:
            now += window.free_after(limit, seconds) + 1e-6
            assert windows.take("k", limit, seconds, 1)[0]


async def test_keys_that_nobody_uses_any_more_are_dropped() -> None:
    clock = HandClock()
    windows = MemoryWindows(clock.monotonic)
    for number in range(1024):
        windows.take(f"address {number}", 1, 60, 1)
    clock.move(timedelta(minutes=3))
    windows.take("another", 1, 60, 1)

    assert len(windows) == 1


async def test_looking_counts_nothing() -> None:
    limit = Limit(1, MINUTE)
    async with RateLimiter(clock=HandClock()) as limiter:
        assert (await limiter.look("u", limit)).allowed
        assert await hits(limiter, 1, limit) == [True]
        assert not (await limiter.look("u", limit)).allowed


async def test_without_redis_in_reach_hits_are_counted_here() -> None:
    clock = HandClock()
    async with RateLimiter(clock=clock, redis_url="redis://127.0.0.1:1/0") as limiter:
        assert await hits(limiter, 3, Limit(2, MINUTE)) == [True, True, False]
        clock.move(timedelta(seconds=6))
        assert (await limiter.look("u", Limit(2, MINUTE))).allowed is False
        assert await hits(limiter, 1, Limit(2, MINUTE)) == [False]


def test_the_headers_round_up_because_earlier_would_be_refused() -> None:
    allowance = Allowance(
        allowed=True, limit=10, remaining=9, reset_after=timedelta(seconds=1, milliseconds=1)
    )

    assert allowance.headers() == {
        "RateLimit-Limit": "10",
        "RateLimit-Remaining": "9",
        "RateLimit-Reset": "2",
    }


def allowance(remaining: int, *, allowed: bool = True) -> Allowance:
    return Allowance(
        allowed=allowed, limit=100, remaining=remaining, reset_after=timedelta(seconds=2.5)
    )


@pytest.mark.parametrize("order", [(5, 60), (60, 5)])
def test_of_several_limits_the_tightest_shows(order: tuple[int, int]) -> None:
    request: web.Request = make_mocked_request("GET", "/")
    for remaining in order:
        enforce(request, allowance(remaining))

    assert request[RESPONSE_HEADERS]["RateLimit-Remaining"] == "5"


def test_too_much_is_throttled_with_when_to_come_back() -> None:
    request = make_mocked_request("GET", "/")

    with pytest.raises(Throttled) as raised:
        enforce(request, allowance(0, allowed=False))

    assert raised.value.retry_after == timedelta(seconds=3)
    assert request[RESPONSE_HEADERS]["RateLimit-Remaining"] == "0"
