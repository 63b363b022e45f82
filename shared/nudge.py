"""A wake-up that may be missed: for loops that look anyway, only less often."""

import asyncio
from datetime import timedelta


class Nudge:
    """Says that there is something to look at. Many nudges before a look are one."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def set(self) -> None:
        """Wake whoever waits, now or when they next wait."""
        self._event.set()

    def clear(self) -> None:
        """Forget earlier nudges; call it before looking, so that none is lost in between."""
        self._event.clear()

    async def wait(self, at_most: timedelta) -> None:
        """Return when nudged, or after ``at_most``."""
        if self._event.is_set():
            return
        loop = asyncio.get_running_loop()
        timer = loop.call_later(at_most.total_seconds(), self._event.set)
        try:
            await self._event.wait()
        finally:
            timer.cancel()
