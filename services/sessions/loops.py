"""Timed steps: what repairs lost news, and what forgets."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final
from uuid import UUID

from services.sessions.store import retention
from services.sessions.supervisor import Supervisor
from services.sessions.transmitter import Transmitter
from shared.clock import Clock
from shared.db.database import Database, HotConnection
from shared.errors import Fenced, Transient
from shared.metrics import MessagingMetrics
from shared.runtime.steps import attempt

FORGET_EVERY: Final = timedelta(minutes=10)
MEASURE_EVERY: Final = timedelta(seconds=15)

_BEGINNING: Final = datetime.min.replace(tzinfo=UTC)


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
    """Deletes what is older than anything that could refer to it.

    What is left of messages goes sooner where their tenant keeps those for less. Of hand-overs each
    is looked at once for that, when it is so old: up to when that was done is remembered, for the
    same tenants.
    """

    def __init__(self, *, database: Database, clock: Clock, keep: timedelta) -> None:
        self._database = database
        self._clock = clock
        self._keep = keep
        self._looked: dict[timedelta, tuple[frozenset[UUID], datetime]] = {}

    async def step(self) -> None:
        """Delete batch after batch until nothing is too old."""
        now = self._clock.now()
        await self._all(partial(retention.forget, before=now - self._keep))
        await self._all(retention.forget_erased)
        async with self._database.hot() as connection:
            brief = await retention.retentions(connection, shorter_than=self._keep)
        for kept, tenants in brief.items():
            before = now - kept
            for tenant_id in tenants:
                await self._all(partial(retention.forget_of, tenant_id=tenant_id, before=before))
            await self._handovers(kept, tenants, before=before)
        self._looked = {kept: self._looked[kept] for kept in brief}

    async def _handovers(
        self, kept: timedelta, tenants: frozenset[UUID], *, before: datetime
    ) -> None:
        known, since = self._looked.get(kept, (tenants, _BEGINNING))
        if known != tenants:
            since = _BEGINNING
        forget = partial(retention.forget_handovers, tenants=tenants, since=since, before=before)
        await self._all(forget)
        self._looked[kept] = (tenants, before)

    async def _all(self, forget: Callable[[HotConnection], Awaitable[int]]) -> None:
        gone = 1
        while gone:
            async with self._database.hot() as connection:
                gone = await forget(connection)


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
