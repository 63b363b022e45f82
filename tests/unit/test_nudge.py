"""Nudges: none is lost between a look and the next wait, and nobody waits for ever."""

import asyncio
from datetime import timedelta

from shared.nudge import Nudge

LONG = timedelta(hours=1)


async def test_who_waits_is_woken() -> None:
    nudge = Nudge()
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        waiting = group.create_task(nudge.wait(LONG))
        await asyncio.sleep(0)
        assert not waiting.done()
        nudge.set()


async def test_a_nudge_before_the_wait_is_not_lost() -> None:
    nudge = Nudge()
    nudge.set()
    async with asyncio.timeout(5):
        await nudge.wait(LONG)


async def test_a_nudge_while_somebody_looks_has_them_look_again() -> None:
    nudge = Nudge()
    nudge.clear()
    nudge.set()  # while looking
    async with asyncio.timeout(5):
        await nudge.wait(LONG)


async def test_nudges_that_were_cleared_wake_nobody() -> None:
    nudge = Nudge()
    nudge.set()
    nudge.clear()
    waiting = asyncio.create_task(nudge.wait(LONG))
    for _ in range(3):
        await asyncio.sleep(0)
    assert not waiting.done()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_without_a_nudge_the_wait_ends_by_itself() -> None:
    async with asyncio.timeout(5):
        await Nudge().wait(timedelta(milliseconds=1))


async def test_a_wait_that_is_cancelled_leaves_no_timer_behind() -> None:
    nudge = Nudge()
    waiting = asyncio.create_task(nudge.wait(timedelta(milliseconds=1)))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    late = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0.005, late.set_result, None)
    await late
    waiting = asyncio.create_task(nudge.wait(LONG))
    await asyncio.sleep(0)
    assert not waiting.done()
    nudge.set()
    await waiting
