"""Telling those who wait for events that there are some."""

import asyncio
from typing import Final

# Another replica may have logged what somebody here waits for: look this often, in seconds.
LOOK_EVERY: Final = 1.0


class Feed:
    """Wakes everybody who waits, each time that events were added to the log."""

    def __init__(self) -> None:
        self._news = asyncio.Event()
        self.closed = False

    def wake(self) -> None:
        """Events have been added."""
        news, self._news = self._news, asyncio.Event()
        news.set()

    def close(self) -> None:
        """Let nobody wait any longer: the process is about to stop."""
        self.closed = True
        self.wake()

    def turn(self) -> asyncio.Event:
        """What ``wake`` will set; taken before looking, so that nothing slips in between."""
        return self._news

    async def wait(self, turn: asyncio.Event, *, seconds: float) -> None:
        """Return when there is news since ``turn`` was taken, at the latest after ``seconds``."""
        try:
            async with asyncio.timeout(min(seconds, LOOK_EVERY)):
                await turn.wait()
        except TimeoutError:
            pass
