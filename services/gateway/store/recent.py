"""What was read from the database a moment ago: so that a stream of requests costs no queries.

What is asked for often is read again before it is too old, by ``refresh``, so that no request waits
for that. If it cannot be read it is given out until it is too old, and then no more: however long
the database is away, nothing is trusted for longer than ``ttl`` after it was last read.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from datetime import timedelta
from typing import Final, Generic, NamedTuple, TypeVar

from shared.clock import Clock

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

# The part of its time after which something that is asked for is to be read again.
_AGEING: Final = 0.6
# Most that one query reads again: what it finds is made use of without a pause for others.
_AT_ONCE: Final = 200


class _Entry(NamedTuple, Generic[V]):
    """Something that was found, and its times on the monotonic clock."""

    value: V
    ageing_at: float
    until: float


class Recent(Generic[K, V]):
    """Remembers what ``read`` found for ``ttl``; nothing older is ever given out.

    ``read`` takes many keys at once and leaves out those that stand for nothing. Many who ask for
    one key at the same time cause one read. That a key does not exist is remembered too, apart
    from the rest: strangers who guess keys must not push out those in use. ``missed`` counts the
    reads that somebody had to wait for, ``refreshed`` the keys that were read ahead.
    """

    def __init__(
        self,
        read: Callable[[Sequence[K]], Awaitable[Mapping[K, V]]],
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
        self._found: dict[K, _Entry[V]] = {}
        self._absent: dict[K, float] = {}
        self._reads: dict[K, asyncio.Future[V | None]] = {}
        self._wanted: set[K] = set()
        self._refreshing: set[K] = set()
        self.missed = 0
        self.refreshed = 0

    def __len__(self) -> int:
        return len(self._found)

    async def get(self, key: K) -> V | None:
        """What ``key`` stands for, or nothing. Raises what ``read`` raises."""
        while True:
            value = self.fresh(key)
            if value is not None:
                return value
            if self._absent.get(key, 0.0) > self._monotonic():
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
        if found is None:
            return None
        value, ageing_at, until = found
        now = self._monotonic()
        if now >= ageing_at:
            if now >= until:
                return None
            self._wanted.add(key)
        return value

    def forget(self, key: K) -> None:
        """Read ``key`` anew next time; a read that is under way is not remembered."""
        self._found.pop(key, None)
        self._absent.pop(key, None)
        self._reads.pop(key, None)
        self._refreshing.discard(key)

    def forget_if(self, changed: Callable[[V], bool]) -> None:
        """The same for every key that stands for something ``changed``; looks at all of them."""
        for key in [key for key, entry in self._found.items() if changed(entry.value)]:
            del self._found[key]
        # Nobody knows yet what these stand for, or whether they still stand for nothing.
        self._reads.clear()
        self._refreshing.clear()
        self._absent.clear()

    async def refresh(self) -> None:
        """Read anew what has been asked for lately and will soon be too old.

        Raises what ``read`` raises: what it was about is tried again when it is asked for again.
        """
        while self._wanted:
            wanted = [self._wanted.pop() for _ in range(min(len(self._wanted), _AT_ONCE))]
            now = self._monotonic()
            ageing = [key for key in wanted if self._ages(key, now)]
            if ageing:
                await self._refresh(ageing, now + self._ttl)

    async def _refresh(self, keys: Sequence[K], until: float) -> None:
        self._refreshing = set(keys)
        try:
            found = await self._read(keys)
            for key in self._refreshing:
                self._keep(key, found.get(key), until)
            self.refreshed += len(keys)
        finally:
            self._refreshing = set()

    def _ages(self, key: K, now: float) -> bool:
        found = self._found.get(key)
        return found is not None and found.ageing_at <= now

    async def _fetch(self, key: K) -> V | None:
        self.missed += 1
        reading: asyncio.Future[V | None] = asyncio.get_running_loop().create_future()
        self._reads[key] = reading
        # Counted from before the read: what it sees may be as old as that.
        until = self._monotonic() + self._ttl
        try:
            value = (await self._read([key])).get(key)
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
        known = self._found.get(key)
        known_until = self._absent.get(key, 0.0) if known is None else known.until
        if known_until > until:
            return  # It was read later than this, though it has come sooner.
        self._found.pop(key, None)
        self._absent.pop(key, None)
        if value is None:
            _make_room(self._absent, self._absent_capacity)
            self._absent[key] = until
            return
        _make_room(self._found, self._capacity)
        self._found[key] = _Entry(value, until - (1 - _AGEING) * self._ttl, until)


def _make_room(entries: dict[K, V], capacity: int) -> None:
    """Drop the oldest, which is the first: every entry lives equally long."""
    while len(entries) >= capacity:
        del entries[next(iter(entries))]
