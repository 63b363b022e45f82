"""Group commit: callers who come at once share one commit, so that it costs each a fraction."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Generic, Self, TypeVar

from shared.errors import Transient

Item = TypeVar("Item")
Result = TypeVar("Result")

Flush = Callable[[Sequence[Item]], Awaitable[Sequence[Result]]]


class GroupCommit(Generic[Item, Result]):
    """Collects items while a commit is under way and commits them together with the next.

    ``flush`` gets a batch, commits it in one transaction and answers one result for each item. If
    it fails with anything but ``Transient``, the batch is halved until the failure belongs to one
    item, so a row's failure fails only its own caller; the others must therefore be safe to be
    flushed again, which a transaction that rolled back is. ``linger`` is how long to wait for
    others before each commit, where nobody is waiting for the answer.

    ``overlap`` is for callers who come again as soon as they are answered. Else they end up in
    step: all of them wait for the commit, then it for all of them. With it a commit begins when a
    turn of the loop brings nobody new or ``overlap`` wait, not with the first of a crowd alone; and
    of more than ``overlap`` it takes half, so that one half is served while the other is being
    committed.
    """

    def __init__(
        self,
        flush: Flush[Item, Result],
        *,
        name: str,
        max_batch: int = 500,
        max_waiting: int = 20_000,
        linger: timedelta = timedelta(0),
        overlap: int | None = None,
    ) -> None:
        self._flush = flush
        self._name = name
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._linger = linger.total_seconds()
        self._overlap = overlap
        self._waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self._wake = asyncio.Event()
        self._closing = False
        self._loop: asyncio.AbstractEventLoop | None = None

    @asynccontextmanager
    async def running(self, *, workers: int = 1) -> AsyncIterator[Self]:
        """Flush for as long as the context is open; on exit, what waits is flushed first."""
        try:
            async with asyncio.TaskGroup() as group:
                flushing = [
                    group.create_task(self._run(), name=f"group-commit:{self._name}:{number}")
                    for number in range(workers)
                ]
                try:
                    yield self
                finally:
                    self._closing = True
                    self._wake.set()
                    # Even when we leave over an error, which would have the group cancel them.
                    await asyncio.wait(flushing)
        finally:
            for _, future in self._waiting:
                if not future.done():
                    future.set_exception(Transient("Nothing is written any more; try again."))
            self._waiting.clear()

    async def submit(self, item: Item) -> Result:
        """Return the item's result once it is committed.

        Raises what ``flush`` raised for this item, and ``Transient`` if too many are waiting.
        """
        return await self.put(item)

    def put(self, item: Item) -> asyncio.Future[Result]:
        """Like ``submit``, for callers who collect futures."""
        if self._closing or len(self._waiting) >= self._max_waiting:
            raise Transient("Too much is waiting to be written; try again shortly.")
        # Kept, because asking for it is a system call in Python 3.11.
        self._loop = self._loop or asyncio.get_running_loop()
        future: asyncio.Future[Result] = self._loop.create_future()
        self._waiting.append((item, future))
        self._wake.set()
        return future

    async def _run(self) -> None:
        while True:
            if not self._waiting:
                if self._closing:
                    return
                self._wake.clear()
                await self._wake.wait()
                if self._overlap is not None:
                    await self._gather(self._overlap)
                continue
            if self._linger and not self._closing and len(self._waiting) < self._max_batch:
                await asyncio.sleep(self._linger)
            size = self._size()
            batch = self._waiting[:size]
            del self._waiting[:size]
            if batch:  # else another worker has taken them while this one lingered
                await self._settle(batch)

    async def _gather(self, enough: int) -> None:
        """Return when a turn of the loop has brought nobody new, or there are enough."""
        before = -1
        while before < len(self._waiting) < enough:
            before = len(self._waiting)
            # Two turns: from a socket to its task, and from there to us.
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    def _size(self) -> int:
        """How many the next commit takes."""
        waiting = len(self._waiting)
        if self._overlap is None or waiting <= self._overlap:
            return self._max_batch
        return min(self._max_batch, max(self._overlap, (waiting + 1) // 2))

    async def _settle(self, batch: Sequence[tuple[Item, asyncio.Future[Result]]]) -> None:
        try:
            results = await self._flush([item for item, _ in batch])
        except asyncio.CancelledError:
            for _, future in batch:
                future.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - it belongs to a caller, who gets it
            await self._fail(batch, error)
            return
        if len(results) != len(batch):
            # They are committed, so flushing the halves would commit them again.
            wrong = RuntimeError(f"{len(results)} results for {len(batch)} items of {self._name}")
            for _, future in batch:
                if not future.done():
                    future.set_exception(wrong)
            return
        for (_, future), result in zip(batch, results, strict=True):
            if not future.done():
                future.set_result(result)

    async def _fail(
        self, batch: Sequence[tuple[Item, asyncio.Future[Result]]], error: Exception
    ) -> None:
        if len(batch) == 1 or isinstance(error, Transient):
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        middle = len(batch) // 2
        await self._settle(batch[:middle])
        await self._settle(batch[middle:])
