"""What a service is to the runtime, and what the runtime gives to a service."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry

from shared.broker.port import Broker, Subscription
from shared.clock import Clock
from shared.db.database import Database
from shared.health import Health
from shared.pause import Pause
from shared.web.connections import ConnectionLimits, Express


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """What every service is built on; ``build`` takes it apart, and nothing deeper sees it."""

    database: Database
    broker: Broker
    clock: Clock
    registry: CollectorRegistry
    health: Health
    pause: Pause = field(default_factory=Pause)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """How a service counts its own work: what is under way, and what has ended since it began.

    One that is not ``pausable`` does nothing that could wait without holding up others.
    """

    processing: Callable[[], int]
    completed: Callable[[], int]
    failed: Callable[[], int]
    pausable: bool = True


def _nothing() -> int:
    return 0


IDLE: Final = Workload(processing=_nothing, completed=_nothing, failed=_nothing, pausable=False)
"""Of a service that has no work to speak of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """Something that runs until it is cancelled. If it ends by itself the process is stopped."""

    name: str
    run: Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """An HTTP application, where it listens, what it bears, and what is answered before it."""

    app: web.Application
    host: str
    port: int
    limits: ConnectionLimits = field(default_factory=ConnectionLimits)
    express: Mapping[str, Express] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """The parts of one service, in the order in which they are entered and left in reverse."""

    name: str
    health: Health
    workload: Workload = IDLE
    resources: Sequence[AbstractAsyncContextManager[object]] = ()
    loops: Sequence[Loop] = ()
    subscriptions: Sequence[Subscription] = ()
    listener: Listener | None = None
