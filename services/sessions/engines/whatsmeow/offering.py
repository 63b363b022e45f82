"""Offering a session's events to the sink, in order, until they are taken."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from services.sessions.engines.port import EngineEvent, Sink, StatusChanged
from shared.clock import Clock
from shared.errors import Transient
from shared.nudge import Nudge

AGAIN: Final = timedelta(seconds=1)
TOGETHER: Final = 64
# What waits is in memory. What does not fit is not confirmed either, and comes again.
MOST: Final = 5000
LONG: Final = timedelta(hours=1)

Taken = Callable[[], None]


@dataclass(slots=True, eq=False)
class _Waiting:
    event: EngineEvent
    taken: Taken | None
    due: float = 0.0


class Offering:
    """A queue of one session's events. ``refused`` is set once more than a receipt was.

    A receipt that is refused is passed by others: its message is just being recorded. Anything
    else that is refused holds up what comes after it.
    """

    def __init__(self, *, sink: Sink, clock: Clock) -> None:
        self._sink = sink
        self._clock = clock
        self._waiting: deque[_Waiting] = deque()
        self._nudge = Nudge()
        self.refused = asyncio.Event()

    def put(self, event: EngineEvent, *, taken: Taken | None = None) -> bool:
        """Offer this too; ``taken`` is called when it is. False if there is no room for it."""
        if taken is not None and len(self._waiting) >= MOST:
            return False
        self._waiting.append(_Waiting(event, taken))
        self._nudge.set()
        return True

    async def told(self, event: EngineEvent) -> None:
        """Return when this event, and so all before it, is taken."""
        done = asyncio.Event()
        self._waiting.append(_Waiting(event, done.set))
        self._nudge.set()
        await done.wait()

    async def run(self) -> None:
        """Offer until cancelled."""
        while True:
            self._nudge.clear()
            wait = await self.step()
            if wait is None or wait > 0:
                await self._nudge.wait(LONG if wait is None else timedelta(seconds=wait))

    async def step(self) -> float | None:
        """Offer what is due; the seconds until there is more, ``None`` if nothing waits."""
        now = self._clock.monotonic()
        batch = self._due(now)
        if batch:
            await self._offer(batch)
        if not self._waiting:
            return None
        return max(0.0, self._next() - self._clock.monotonic())

    async def _offer(self, batch: list[_Waiting]) -> None:
        try:
            flags = await self._sink([one.event for one in batch])
        except Transient:
            flags = [False] * len(batch)
        again = self._clock.monotonic() + AGAIN.total_seconds()
        gone = set()
        for one, taken in zip(batch, flags, strict=True):
            if not taken:
                one.due = again
                if not isinstance(one.event, StatusChanged):
                    self.refused.set()
                continue
            gone.add(id(one))
            if one.taken is not None:
                one.taken()
        self._waiting = deque(one for one in self._waiting if id(one) not in gone)

    def _due(self, now: float) -> list[_Waiting]:
        batch: list[_Waiting] = []
        for one in self._waiting:
            if one.due > now:
                if isinstance(one.event, StatusChanged):
                    continue
                break
            batch.append(one)
            if len(batch) == TOGETHER:
                break
        return batch

    def _next(self) -> float:
        """When the next is due: a receipt, or the first of what must keep its order."""
        dues = [one.due for one in self._waiting if isinstance(one.event, StatusChanged)]
        first = next(
            (one for one in self._waiting if not isinstance(one.event, StatusChanged)), None
        )
        return min([*dues, *([first.due] if first is not None else [])])
