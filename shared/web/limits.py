"""How often somebody may ask: sliding windows, counted in memory or, for all replicas, in Redis.

A hit in Redis costs this process some 170 µs, as much as all the rest of accepting a message. So
hits on one key that come while another is under way go together, as one that counts for all. And
Redis is no condition for working: while it is away, each replica counts for itself.
"""

import asyncio
import math
from dataclasses import dataclass, field
from datetime import timedelta
from types import TracebackType
from typing import NamedTuple, Self

import structlog
from aiohttp import web
from limits.aio.storage import RedisStorage
from redis.asyncio import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from structlog.typing import FilteringBoundLogger

from shared.clock import Clock
from shared.errors import Throttled, Transient
from shared.web.edge import RESPONSE_HEADERS
from shared.web.windows import MemoryWindows, Window

_REDIS_TIMEOUT = 0.25  # seconds
_AWAY_FOR = 5.0  # seconds until Redis is asked again after it failed
_REMAINING = "RateLimit-Remaining"


@dataclass(frozen=True, slots=True)
class Limit:
    """So many hits in so long; ``per`` is in whole seconds.

    ``suffix`` tells the counts of one key under several limits apart.
    """

    amount: int
    per: timedelta
    seconds: int = field(init=False)
    suffix: str = field(init=False)

    def __post_init__(self) -> None:
        seconds = max(1, int(self.per.total_seconds()))
        object.__setattr__(self, "seconds", seconds)
        object.__setattr__(self, "suffix", f"/{self.amount}/{seconds}")


class Allowance(NamedTuple):
    """What a hit found. ``reset_after`` is when the window ends or, if refused, when one fits."""

    allowed: bool
    limit: int
    remaining: int
    reset_after: timedelta

    def headers(self) -> dict[str, str]:
        """The RateLimit headers, in whole seconds rounded up: earlier would be refused again."""
        return {
            "RateLimit-Limit": str(self.limit),
            _REMAINING: str(self.remaining),
            "RateLimit-Reset": str(max(0, math.ceil(self.reset_after.total_seconds()))),
        }


class RateLimiter:
    """Counts hits by key. Enter it inside the event loop; leaving it waits for what is under way.

    ``redis_url`` as redis-py reads it (``redis://``, ``rediss://``, ``unix://``); without one it
    counts in memory. ``hit`` does not fail with Redis: that is logged once, and asked again after
    5 s.
    """

    def __init__(self, *, clock: Clock, redis_url: str | None = None) -> None:
        self._monotonic = clock.monotonic
        self._memory = MemoryWindows(clock.monotonic)
        self._redis_url = redis_url
        self._pool: ConnectionPool | None = None
        self._redis: RedisStorage | None = None
        self._away_until = -math.inf
        self._away = False
        self._lines: dict[str, list[asyncio.Future[Allowance]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._log: FilteringBoundLogger = structlog.get_logger().bind()

    @property
    def shared(self) -> bool:
        """Whether hits are meant to count for all replicas."""
        return self._redis_url is not None

    @property
    def away(self) -> bool:
        """Whether they do not at the moment, because Redis does not answer."""
        return self._away

    async def __aenter__(self) -> Self:
        if self._redis_url is not None:
            self._pool = ConnectionPool.from_url(
                self._redis_url,
                socket_timeout=_REDIS_TIMEOUT,
                socket_connect_timeout=_REDIS_TIMEOUT,
                retry=Retry(NoBackoff(), 1),
            )
            self._redis = RedisStorage(
                "async+redis://",  # where to is the pool's matter
                implementation="redispy",
                key_prefix="waypost",
                connection_pool=self._pool,  # type: ignore[arg-type] # documented, but not typed
            )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._redis = None
        if self._pool is not None:
            await self._pool.disconnect()

    async def hit(self, key: str, limit: Limit) -> Allowance:
        """Count one request of ``key`` against ``limit``, unless it is used up already.

        A refused hit does not count: who keeps knocking is let in when the window allows.
        """
        name = key + limit.suffix
        if self._redis is None or self._monotonic() < self._away_until:
            return self._hit_memory(name, limit)
        turn: asyncio.Future[Allowance] = asyncio.get_running_loop().create_future()
        line = self._lines.get(name)
        if line is not None:
            line.append(turn)
        else:
            self._lines[name] = [turn]
            task = asyncio.create_task(self._serve(self._redis, name, limit), name=f"limit {key}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await turn

    def hit_at_once(self, key: str, limit: Limit) -> Allowance | None:
        """The same, without waiting; ``None``, and nothing counted, if Redis must be asked."""
        if self._redis is not None and self._monotonic() >= self._away_until:
            return None
        return self._hit_memory(key + limit.suffix, limit)

    async def look(self, key: str, limit: Limit) -> Allowance:
        """What the next hit would find, without counting one: for limits on failures."""
        name = key + limit.suffix
        seconds = limit.seconds
        window = Window(*await self._memory.get_sliding_window(name, seconds))
        redis = self._redis
        if redis is not None and self._monotonic() >= self._away_until:
            try:
                window = Window(*await redis.get_sliding_window(name, seconds))
            except (RedisError, OSError, TimeoutError) as error:
                self._lost(error)
        return _allowance(window, limit, allowed=window.used(seconds) < limit.amount, later=0)

    def _lost(self, error: Exception) -> None:
        if not self._away:
            self._log.warning("rate_limits_local", reason=type(error).__name__)
        self._away, self._away_until = True, self._monotonic() + _AWAY_FOR

    def _hit_memory(self, name: str, limit: Limit) -> Allowance:
        amount = limit.amount
        taken = self._memory.take_one(name, amount, limit.seconds)
        if taken is not None:
            remaining, left = taken
            return Allowance(True, amount, remaining, timedelta(seconds=left))
        window = self._memory.take(name, amount, limit.seconds, 1)[1]
        return _allowance(window, limit, allowed=False, later=0)

    async def _serve(self, redis: RedisStorage, name: str, limit: Limit) -> None:
        """Ask Redis for everybody in line, then for those who came meanwhile, until none do."""
        line: list[asyncio.Future[Allowance]] = []
        try:
            while line := self._lines[name]:
                self._lines[name] = []
                allowances = await self._take(redis, name, limit, len(line))
                for turn, allowance in zip(line, allowances, strict=True):
                    if not turn.done():  # its request may have been cancelled while it waited
                        turn.set_result(allowance)
        finally:
            # Nobody is left only if this ended well; else nobody may wait for ever.
            for turn in (*line, *self._lines.pop(name)):
                if not turn.done():
                    turn.set_exception(Transient("The rate limit could not be checked; try again."))

    async def _take(
        self, redis: RedisStorage, name: str, limit: Limit, count: int
    ) -> list[Allowance]:
        try:
            taken, window = await self._take_redis(redis, name, limit, count)
        except (RedisError, OSError, TimeoutError) as error:
            self._lost(error)
            return [self._hit_memory(name, limit) for _ in range(count)]
        if self._away:
            self._away = False
            self._log.info("rate_limits_shared")
        return [
            _allowance(window, limit, allowed=place < taken, later=max(0, taken - 1 - place))
            for place in range(count)
        ]

    async def _take_redis(
        self, redis: RedisStorage, name: str, limit: Limit, count: int
    ) -> tuple[int, Window]:
        """Take as many of ``count`` as still fit; how many those were, and the window after."""
        seconds = limit.seconds
        if await redis.acquire_sliding_window_entry(name, limit.amount, seconds, count):
            return count, Window(*await redis.get_sliding_window(name, seconds))
        window = Window(*await redis.get_sliding_window(name, seconds))
        fitting = min(count - 1, limit.amount - window.used(seconds))
        if fitting > 0 and await redis.acquire_sliding_window_entry(
            name, limit.amount, seconds, fitting
        ):
            return fitting, Window(*await redis.get_sliding_window(name, seconds))
        return 0, window


def enforce(request: web.Request, allowance: Allowance) -> None:
    """Put the RateLimit headers on whatever is answered; raise ``Throttled`` if it is too much.

    Called for several limits, the tightest one shows.
    """
    shown = request.get(RESPONSE_HEADERS)
    if shown is None:
        shown = request[RESPONSE_HEADERS] = {}
    if _REMAINING not in shown or allowance.remaining <= int(shown[_REMAINING]):
        shown.update(allowance.headers())
    if not allowance.allowed:
        wait = max(1, math.ceil(allowance.reset_after.total_seconds()))
        raise Throttled(
            f"More than {allowance.limit} requests; try again in {wait} s.",
            retry_after=timedelta(seconds=wait),
        )


def _allowance(window: Window, limit: Limit, *, allowed: bool, later: int) -> Allowance:
    """``later`` hits of the same batch came after this one, and are in the window already."""
    seconds = limit.seconds
    remaining = max(0, limit.amount - window.used(seconds)) + later if allowed else 0
    wait = window.resets_after(seconds) if allowed else window.free_after(limit.amount, seconds)
    return Allowance(
        allowed=allowed,
        limit=limit.amount,
        remaining=remaining,
        reset_after=timedelta(seconds=wait),
    )
