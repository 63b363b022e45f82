"""How things stand, for dashboards: of the whole platform without any tenant's data, or of one
instance for those who may see it.
"""

import asyncio
import time
from datetime import timedelta
from typing import Final, Literal

from aiohttp import web
from pydantic import Field

from services.gateway.api.lookup import instance_in_path
from services.gateway.store import condition
from services.gateway.store.condition import MOST_COUNTED
from services.gateway.store.instances import Instance
from shared.broker.port import Broker
from shared.clock import Clock
from shared.db.database import Database
from shared.errors import Transient
from shared.health import Health
from shared.web.answers import Answers, Share
from shared.web.envelope import respond
from shared.web.limits import RateLimiter
from shared.web.schemas import ApiView, Instant

State = Literal["healthy", "degraded", "unhealthy"]
Up = Literal["up", "degraded", "down"]

# Anybody may ask, as often as they like: it is looked into once in this long.
FRESH: Final = timedelta(seconds=1)
# A database that has not answered by then is down: whoever asks has a time-out of their own.
PATIENCE: Final = timedelta(seconds=3)
_HOUR: Final = timedelta(hours=1)
# From here on errors are no longer chance.
_MANY: Final = 5.0
_FEW: Final = 20


class DatabaseCheck(ApiView):
    """Whether PostgreSQL answers, and how fast."""

    status: Up
    latency_ms: float | None = Field(examples=[1.2])


class BrokerCheck(ApiView):
    """Whether RabbitMQ can be reached. Without it messages are accepted and wait."""

    status: Up


class CacheCheck(ApiView):
    """Where rate limits are counted; without Redis each gateway counts for itself."""

    status: Up
    kind: Literal["redis", "memory"]


class BreakersCheck(ApiView):
    """Webhook endpoints that are left alone for a while, because they cannot be reached."""

    status: Up
    open: int | None


class QueueCheck(ApiView):
    """Messages in line; counted up to 10000."""

    status: Up
    waiting: int | None


class ErrorCheck(ApiView):
    """Requests of the last five minutes that this gateway answered with an error of its own; for an
    instance, hand-overs to WhatsApp of the last hour that were not accepted.
    """

    status: Up
    percent: float = Field(examples=[0.0])
    total: int


class Checks(ApiView):
    """What was looked at."""

    database: DatabaseCheck
    broker: BrokerCheck
    cache: CacheCheck
    circuit_breakers: BreakersCheck
    message_queue: QueueCheck
    error_rate: ErrorCheck


class HealthView(ApiView):
    """How things stand. `unhealthy`: requests fail. `degraded`: something waits or is away."""

    status: State
    timestamp: Instant
    uptime: float = Field(description="Seconds that this gateway has been running.")
    checks: Checks


class SessionCheck(ApiView):
    """Whether the connection is as its owner wants it."""

    status: Up
    state: str = Field(examples=["ready"])


class InstanceChecks(Checks):
    """What was looked at, for one instance."""

    session: SessionCheck


class InstanceHealthView(ApiView):
    """How things stand with one instance."""

    status: State
    timestamp: Instant
    uptime: float = Field(description="Seconds that this gateway has been running.")
    checks: InstanceChecks


class Conditions:
    """``/api/webhooks/health`` and ``/api/instances/{id}/health``."""

    def __init__(
        self,
        *,
        database: Database,
        broker: Broker,
        limiter: RateLimiter,
        answers: Answers,
        health: Health,
        clock: Clock,
        patience: timedelta = PATIENCE,
    ) -> None:
        self._database = database
        self._broker = broker
        self._limiter = limiter
        self._answers = answers
        self._health = health
        self._clock = clock
        self._patience = patience.total_seconds()
        self._looking = asyncio.Lock()
        self._last: HealthView | None = None
        self._looked_at = float("-inf")

    async def whole(self, _request: web.Request) -> web.StreamResponse:
        async with self._looking:
            age = self._clock.monotonic() - self._looked_at
            if self._last is None or age >= FRESH.total_seconds():
                self._last = await self._look()
                # From when it ended: else all who waited for a long look would look again, in turn.
                self._looked_at = self._clock.monotonic()
            return respond(self._last)

    async def of_instance(self, request: web.Request) -> web.StreamResponse:
        now = self._clock.now()
        started = time.perf_counter()
        async with self._database.tx() as tx:
            instance = await instance_in_path(tx, request)
            latency = time.perf_counter() - started
            breakers = await condition.open_breakers_of(tx, instance, now=now)
            waiting = await condition.waiting(tx, instance_id=instance.id)
            ended, failed = await condition.failures(tx, instance.id, since=now - _HOUR)
        checks = InstanceChecks(
            database=_database(latency),
            broker=self._broker_check(),
            cache=self._cache_check(),
            circuit_breakers=_breakers(breakers),
            message_queue=_queue(waiting),
            error_rate=_errors(Share(ended, failed)),
            session=_session(instance),
        )
        return respond(
            InstanceHealthView(
                status=_overall(checks),
                timestamp=now,
                uptime=self._uptime(),
                checks=checks,
            )
        )

    async def _look(self) -> HealthView:
        now = self._clock.now()
        breakers = waiting = latency = None
        started = time.perf_counter()
        try:
            async with asyncio.timeout(self._patience), self._database.tx() as tx:
                breakers = await condition.open_breakers(tx, now=now)
                latency = time.perf_counter() - started
                waiting = await condition.waiting(tx, instance_id=None)
        except (Transient, TimeoutError):
            latency = None
        checks = Checks(
            database=_database(latency),
            broker=self._broker_check(),
            cache=self._cache_check(),
            circuit_breakers=_breakers(breakers),
            message_queue=_queue(waiting),
            error_rate=_errors(self._answers.recent()),
        )
        return HealthView(
            status=_overall(checks), timestamp=now, uptime=self._uptime(), checks=checks
        )

    def _broker_check(self) -> BrokerCheck:
        return BrokerCheck(status="up" if self._broker.connected() else "down")

    def _cache_check(self) -> CacheCheck:
        shared = self._limiter.shared
        return CacheCheck(
            status="down" if self._limiter.away else "up", kind="redis" if shared else "memory"
        )

    def _uptime(self) -> float:
        return round(self._health.uptime.total_seconds(), 3)


def _database(latency: float | None) -> DatabaseCheck:
    if latency is None:
        return DatabaseCheck(status="down", latency_ms=None)
    return DatabaseCheck(status="up", latency_ms=round(latency * 1000, 1))


def _breakers(number: int | None) -> BreakersCheck:
    return BreakersCheck(status="degraded" if number else "up", open=number)


def _queue(waiting: int | None) -> QueueCheck:
    full = waiting is not None and waiting >= MOST_COUNTED
    return QueueCheck(status="degraded" if full else "up", waiting=waiting)


def _errors(share: Share) -> ErrorCheck:
    many = share.all >= _FEW and share.percent >= _MANY
    return ErrorCheck(status="degraded" if many else "up", percent=share.percent, total=share.all)


def _session(instance: Instance) -> SessionCheck:
    ready = instance.status == "ready"
    status: Up = "up" if ready == instance.connected else "degraded"
    if instance.connected and instance.status in {"logged_out", "banned", "failed"}:
        status = "down"
    return SessionCheck(status=status, state=instance.status)


def _overall(checks: Checks) -> State:
    """Without a database nothing works; all else works late, or for some only."""
    gone = isinstance(checks, InstanceChecks) and checks.session.status == "down"
    if gone or checks.database.status == "down":
        return "unhealthy"
    found = {
        checks.broker.status,
        checks.cache.status,
        checks.circuit_breakers.status,
        checks.message_queue.status,
        checks.error_rate.status,
    }
    if isinstance(checks, InstanceChecks):
        found.add(checks.session.status)
    return "healthy" if found == {"up"} else "degraded"
