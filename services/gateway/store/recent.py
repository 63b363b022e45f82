"""What was read from the database a moment ago: so that a stream of requests costs no queries."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from datetime import timedelta
from typing import Generic, TypeVar

from shared.clock import Clock

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recent(Generic[K, V]):
    """Remembers what ``read`` found for ``ttl``; nothing older is ever given out.

    Many who ask for one key at the same time cause one read. That a key does not exist is
    remembered too, apart from the rest: strangers who guess keys must not push out those in use.
    """

    def __init__(
        self,
        read: Callable[[K], Awaitable[V | None]],
        *,
        clock: Clock,
        ttl: timedelta,
        capacity: int = 50_000,
        absent_capacity: int = 10_000,
    ) -> None:
        self._read = read
        self._monotonic = clock.monotonic
        self._ttl = ttl.total_seconds()
        self._capacity = capacity
        self._absent_capacity = absent_capacity
        self._found: dict[K, tuple[float, V]] = {}
        self._absent: dict[K, float] = {}
        self._reads: dict[K, asyncio.Future[V | None]] = {}

    async def get(self, key: K) -> V | None:
        """What ``key`` stands for, or nothing. Raises what ``read`` raises."""
        while True:
            now = self._monotonic()
            found = self._found.get(key)
            if found is not None and found[0] > now:
                return found[1]
            if self._absent.get(key, 0.0) > now:
                return None
            reading = self._reads.get(key)
            if reading is None:
                return await self._fetch(key)
            # Not awaited itself: one who gives up waiting must not take the answer from the others.
            await asyncio.wait([reading])
            if not reading.cancelled():
                return reading.result()
            # Whoever was reading has given up; somebody else must.

    def fresh(self, key: K) -> V | None:
        """What ``key`` is known to stand for at this moment, without asking anybody."""
        found = self._found.get(key)
        return found[1] if found is not None and found[0] > self._monotonic() else None

    def forget(self, key: K) -> None:
        """Read ``key`` anew next time; a read that is under way is not remembered."""
        self._found.pop(key, None)
        self._absent.pop(key, None)
        self._reads.pop(key, None)

    async def _fetch(self, key: K) -> V | None:
        reading: asyncio.Future[V | None] = asyncio.get_running_loop().create_future()
        self._reads[key] = reading
        # Counted from before the read: what it sees may be as old as that.
        until = self._monotonic() + self._ttl
        try:
            value = await self._read(key)
        except asyncio.CancelledError:
            reading.cancel()
            raise
        except Exception as error:
            reading.set_exception(error)
            reading.exception()  # perhaps nobody else waits, and that is no mistake
            raise
        else:
            reading.set_result(value)
            if self._reads.get(key) is reading:
                self._keep(key, value, until)
            return value
        finally:
            if self._reads.get(key) is reading:
                del self._reads[key]

    def _keep(self, key: K, value: V | None, until: float) -> None:
        if value is None:
            self._found.pop(key, None)
            _make_room(self._absent, self._absent_capacity)
            self._absent[key] = until
            return
        self._absent.pop(key, None)
        self._found.pop(key, None)
        _make_room(self._found, self._capacity)
        self._found[key] = (until, value)


def _make_room(entries: dict[K, V], capacity: int) -> None:
    """Drop the oldest, which is the first: every entry lives equally long."""
    while len(entries) >= capacity:
        del entries[next(iter(entries))]
