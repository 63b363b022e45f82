"""Where engines put what happens, in tests of engines: takes everything, or nothing."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar
from uuid import UUID

from services.sessions.engines.port import EngineEvent
from shared.errors import Transient

E = TypeVar("E")

PATIENCE = 30.0  # Seconds; a first login takes two or three, on a machine that is busy more.


@dataclass
class Sink:
    """Takes everything, nothing while ``closed``; while ``away`` the database is."""

    got: list[EngineEvent] = field(default_factory=list)
    closed: bool = False
    away: bool = False
    refused: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, events: Sequence[EngineEvent]) -> Sequence[bool]:
        self.changed.set()
        if self.closed or self.away:
            self.refused += len(events)
            if self.away:
                raise Transient("The database is away.")
            return [False] * len(events)
        self.got += events
        return [True] * len(events)

    async def until(self, found: Callable[[], bool]) -> None:
        """Return when something is so; asked whenever something was offered."""
        try:
            async with asyncio.timeout(PATIENCE):
                while not found():
                    self.changed.clear()
                    await self.changed.wait()
        except TimeoutError:
            kinds = [(type(one).__name__, getattr(one, "reason", None)) for one in self.got]
            raise AssertionError(f"not heard, but {kinds}, and {self.refused} refused") from None

    def of(self, kind: type[E], instance_id: UUID) -> list[E]:
        """What has come of a kind."""
        return [
            event
            for event in self.got
            if isinstance(event, kind) and event.instance_id == instance_id
        ]

    async def first(self, kind: type[E], instance_id: UUID) -> E:
        """The first of a kind."""
        return await self.nth(kind, instance_id, 1)

    async def nth(self, kind: type[E], instance_id: UUID, count: int) -> E:
        """The ``count``-th of a kind."""
        await self.until(lambda: len(self.of(kind, instance_id)) >= count)
        return self.of(kind, instance_id)[count - 1]
