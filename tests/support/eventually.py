"""Waiting for what cannot be awaited: another process, another machine's bookkeeping."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeVar

T = TypeVar("T")


async def eventually(
    condition: Callable[[], Awaitable[T]],
    *,
    within: timedelta = timedelta(seconds=10),
    every: timedelta = timedelta(milliseconds=50),
) -> T:
    """The first true answer of ``condition``; an ``AssertionError`` inside it means: not yet.

    Only for end-to-end and fault tests. Inside one process, wait for the event itself.
    """
    last: object = None
    try:
        async with asyncio.timeout(within.total_seconds()):
            while True:
                try:
                    last = answer = await condition()
                    if answer:
                        return answer
                except AssertionError as not_yet:
                    last = not_yet
                await asyncio.sleep(every.total_seconds())
    except TimeoutError:
        pass
    raise AssertionError(f"not within {within.total_seconds():g} s; at last: {last!r}")
