"""Telling those who wait that there is news."""

import asyncio
import time

from services.gateway.api.feed import Feed

LONG = 60.0


async def test_everybody_who_waits_is_woken() -> None:
    feed = Feed()
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(feed.wait(feed.turn(), seconds=LONG))
        await asyncio.sleep(0)
        feed.wake()


async def test_news_between_looking_and_waiting_is_not_missed() -> None:
    feed = Feed()
    turn = feed.turn()
    feed.wake()
    started = time.monotonic()
    await feed.wait(turn, seconds=LONG)
    assert time.monotonic() - started < 0.5


async def test_nobody_waits_longer_than_they_want() -> None:
    feed = Feed()
    await feed.wait(feed.turn(), seconds=0.01)


async def test_closing_wakes_everybody_for_good() -> None:
    feed = Feed()
    turn = feed.turn()
    feed.close()
    await feed.wait(turn, seconds=LONG)
    assert feed.closed
