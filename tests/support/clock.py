"""A clock that is moved by hand."""

import asyncio
from datetime import datetime, timedelta

from shared.clock import Clock
from tests.support.builders import NOON


class HandClock:
    """Stands still until it is moved; ``sleep`` moves it, so that no test ever waits."""

    def __init__(self, at: datetime = NOON) -> None:
        self._start = at
        self._now = at

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return (self._now - self._start).total_seconds()

    async def sleep(self, delay: timedelta) -> None:
        self.move(delay)
        await asyncio.sleep(0)

    def move(self, by: timedelta) -> None:
        """Let time pass."""
        self._now += by


_: type[Clock] = HandClock
