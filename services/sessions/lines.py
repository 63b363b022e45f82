"""What is under way for each instance beside its messages: questions and signs, so many at most."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Final, Self
from uuid import UUID

# How many times as many tasks there may be when those count that only answer or refuse.
REFUSING: Final = 4


class Line:
    """What is under way for one instance. Who must not pass another takes ``turn`` meanwhile."""

    __slots__ = ("busy", "turn")

    def __init__(self) -> None:
        self.busy = 0
        self.turn = asyncio.Lock()


class Lines:
    """A line for each instance of which something is wanted.

    ``most`` may be under way in all, ``most_each`` for one instance. What is too much is turned
    away, never kept.
    """

    def __init__(self, *, most: int, most_each: int) -> None:
        self._most = most
        self._most_each = most_each
        self._lines: dict[UUID, Line] = {}
        self._busy = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._group: asyncio.TaskGroup | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Be able to begin for as long as the context is open; on exit cut off what goes on."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                yield self
            finally:
                for task in self._tasks:
                    task.cancel()

    def full(self, instance_id: UUID) -> bool:
        """Whether nothing more may begin for an instance."""
        line = self._lines.get(instance_id)
        busy = 0 if line is None else line.busy
        return self.flooded or self._busy >= self._most or busy >= self._most_each

    @property
    def flooded(self) -> bool:
        """Whether there is so much that not even a refusal may begin."""
        return len(self._tasks) >= REFUSING * self._most

    def enter(self, instance_id: UUID) -> Line:
        """Take a place; ``leave`` must follow."""
        line = self._lines.setdefault(instance_id, Line())
        line.busy += 1
        self._busy += 1
        return line

    def leave(self, instance_id: UUID, line: Line) -> None:
        """Give a place back."""
        line.busy -= 1
        self._busy -= 1
        if not line.busy:
            del self._lines[instance_id]

    def begin(self, work: Coroutine[None, None, None]) -> None:
        """Do something in a task of its own."""
        if self._group is None:
            work.close()
            raise RuntimeError("questions and signs begin within running() only")
        task = self._group.create_task(work, name="asking")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
