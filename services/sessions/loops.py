"""Timed steps: what repairs lost news, and what forgets."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final

from services.sessions.store import retention
from services.sessions.supervisor import Supervisor
from services.sessions.transmitter import Transmitter
from shared.clock import Clock
from shared.db.database import Database
from shared.errors import Fenced, Transient
from shared.metrics import MessagingMetrics
from shared.runtime.steps import attempt

FORGET_EVERY: Final = timedelta(minutes=10)
MEASURE_EVERY: Final = timedelta(seconds=15)


class Reconciling:
    """Compares wanted with live sessions, and open handovers with what is in flight."""

    def __init__(self, *, supervisor: Supervisor, transmitter: Transmitter) -> None:
        self._supervisor = supervisor
        self._transmitter = transmitter

    async def step(self) -> None:
        """Repair what lost commands and unseen commits have left wrong."""
        await self._supervisor.reconcile()
        await self._transmitter.adopt_orphans()


class Forgetting:
    """Deletes what is older than anything that could refer to it."""

    def __init__(self, *, database: Database, clock: Clock, keep: timedelta) -> None:
        self._database = database
        self._clock = clock
        self._keep = keep

    async def step(self) -> None:
        """Delete batch after batch until nothing is too old."""
        before = self._clock.now() - self._keep
        while True:
            async with self._database.hot() as connection:
                if await retention.forget(connection, before=before) == 0:
                    return


class Rhythm:
    """Runs a step again and again. A step that fails for lack of a database is tried next time."""

    def __init__(
        self,
        name: str,
        step: Callable[[], Awaitable[None]],
        *,
        every: timedelta,
        clock: Clock,
        metrics: MessagingMetrics,
    ) -> None:
        self._name = name
        self._step = step
        self._every = every
        self._clock = clock
        self._metrics = metrics

    async def run(self) -> None:
        """Step until cancelled."""
        while True:
            await attempt(
                self._step,
                loop=self._name,
                failed="step_failed",
                clock=self._clock,
                metrics=self._metrics,
                expected=(Transient, Fenced),
            )
            await self._clock.sleep(self._every)
