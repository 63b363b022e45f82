"""Timed work: taking what is due, repairing what was left behind, forgetting what is old."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from services.webhooks.domain.delivery import Delivery
from services.webhooks.metrics import WebhooksMetrics
from services.webhooks.sender.directory import Directory
from services.webhooks.sender.worker import LEASE, Worker
from services.webhooks.store import deliveries, due
from services.webhooks.store.due import START, Waiting
from shared.clock import Clock
from shared.db.database import Database, HotConnection
from shared.log import get_logger
from shared.messaging.outbox import Relay
from shared.pause import Pause
from shared.runtime.steps import attempt
from shared.security.sealing import KeyRing

log = get_logger()

CLAIM_RHYTHM: Final = timedelta(seconds=1)
REPAIR_RHYTHM: Final = timedelta(seconds=5)
FORGET_RHYTHM: Final = timedelta(minutes=15)
# Between two batches of deletions, so that whoever else needs the disk gets it.
BREATH: Final = timedelta(milliseconds=200)
AFTER_FAILURE: Final = timedelta(seconds=1)

ENDPOINTS: Final = 500
CLAIMS: Final = 1000
REPAIRS: Final = 1000
DELETIONS: Final = 1000
# What a probe may take to be made and written, beyond the timeout of its POST.
PROBE_MARGIN: Final = timedelta(seconds=5)


class Claims:
    """Takes due deliveries, endpoint by endpoint: nobody's backlog hides what others wait for."""

    def __init__(
        self,
        *,
        database: Database,
        ring: KeyRing,
        worker: Worker,
        clock: Clock,
        metrics: WebhooksMetrics,
        timeout: timedelta,
        pause: Pause,
    ) -> None:
        self._database = database
        self._ring = ring
        self._worker = worker
        self._clock = clock
        self._metrics = metrics
        self._timeout = timeout
        self._pause = pause
        self._after = START
        self._oldest: datetime | None = None

    async def run(self) -> None:
        """Claim until cancelled: when there is news or a lane runs low, and each second anyway."""
        while True:
            self._worker.hungry.clear()
            more = await _guarded(self.step, "claims", clock=self._clock, metrics=self._metrics)
            if not more:
                await self._worker.hungry.wait(CLAIM_RHYTHM)

    async def step(self) -> bool:
        """Claim once; whether more is to be looked at right away."""
        now = self._clock.now()
        async with self._database.hot() as connection:
            if returned := self._worker.lanes.returned():
                await deliveries.release(connection, returned, worker=self._worker.name)
            found = await due.endpoints(connection, after=self._after, limit=ENDPOINTS)
            ended = await self._end_vain(connection, found, now=now)
            if not self._pause.on:
                await self._claim(connection, found, now=now)
        whole = len(found) < ENDPOINTS
        self._note_oldest(found, whole=whole, now=now)
        self._after = START if whole else found[-1].endpoint_id
        return ended == REPAIRS or not whole

    async def _end_vain(
        self, connection: HotConnection, found: Sequence[Waiting], *, now: datetime
    ) -> int:
        vain = [one.endpoint_id for one in found if one.endpoint is None]
        if not vain:
            return 0
        ended = await deliveries.end_waiting(connection, vain, limit=REPAIRS, now=now)
        self._metrics.ended.labels("disabled").inc(ended)
        return ended

    async def _claim(
        self, connection: HotConnection, found: Sequence[Waiting], *, now: datetime
    ) -> None:
        ready = {
            one.endpoint_id: one.endpoint
            for one in found
            if one.endpoint is not None
            and one.next_at <= now
            and (one.open_until is None or one.open_until <= now)
        }
        probes: frozenset[UUID] = frozenset()
        if to_probe := [id_ for id_, endpoint in ready.items() if endpoint.open]:
            window = self._timeout + PROBE_MARGIN
            probes = await due.take_probes(connection, to_probe, window=window, now=now)
        takers = [e for e in ready.values() if not e.open or e.id in probes]
        rooms = [
            (id_, 1 if id_ in probes else number)
            for id_, number in self._worker.lanes.rooms(takers, limit=CLAIMS)
        ]
        if not rooms:
            return
        claimed = await deliveries.claim(
            connection,
            rooms,
            ring=self._ring,
            worker=self._worker.name,
            lease=LEASE,
            good_until=self._worker.good_until(timeout=self._timeout),
            probes=probes,
            now=now,
        )
        by_endpoint: dict[UUID, list[Delivery]] = {id_: [] for id_, _ in rooms}
        for delivery in claimed:
            by_endpoint[delivery.endpoint_id].append(delivery)
        for id_, asked in rooms:
            self._worker.take(ready[id_], by_endpoint[id_], asked=asked)

    def _note_oldest(self, found: Sequence[Waiting], *, whole: bool, now: datetime) -> None:
        times = [
            one.next_at
            for one in found
            if one.endpoint is not None and not one.endpoint.open and one.next_at <= now
        ]
        if self._oldest is not None:
            times.append(self._oldest)
        oldest = min(times, default=None)
        self._oldest = None if whole else oldest
        if whole:
            age = timedelta(0) if oldest is None else now - oldest
            self._metrics.oldest_due.set(age.total_seconds())


class Repairs:
    """Takes claims away from workers that are gone, and tidies up what is remembered."""

    def __init__(
        self,
        *,
        database: Database,
        worker: Worker,
        directory: Directory,
        relay: Relay,
        clock: Clock,
        metrics: WebhooksMetrics,
    ) -> None:
        self._database = database
        self._worker = worker
        self._directory = directory
        self._relay = relay
        self._clock = clock
        self._metrics = metrics

    async def run(self) -> None:
        """Repair until cancelled."""
        while True:
            more = await _guarded(self.step, "repairs", clock=self._clock, metrics=self._metrics)
            if not more:
                await self._clock.sleep(REPAIR_RHYTHM)

    async def step(self) -> bool:
        """Repair once; whether more is left."""
        async with self._database.hot() as connection:
            reclaimed = await deliveries.reclaim(connection, limit=REPAIRS)
        if reclaimed:
            log.warning("webhook_claims_expired", count=reclaimed)
            self._worker.hungry.set()
        self._worker.lanes.forget_idle()
        self._directory.forget_old()
        await self._relay.oldest_age()
        return reclaimed == REPAIRS


class Forgetting:
    """Deletes what is older than anybody may ask for, or than its tenant keeps messages."""

    def __init__(
        self, *, database: Database, clock: Clock, metrics: WebhooksMetrics, kept: timedelta
    ) -> None:
        self._database = database
        self._clock = clock
        self._metrics = metrics
        self._kept = kept

    async def run(self) -> None:
        """Forget until cancelled."""
        while True:
            more = await _guarded(self.step, "forgetting", clock=self._clock, metrics=self._metrics)
            await self._clock.sleep(BREATH if more else FORGET_RHYTHM)

    async def step(self) -> bool:
        """Delete one batch of everybody's, and of each who keeps less; whether more is left."""
        now = self._clock.now()
        async with self._database.hot() as connection:
            gone = [await deliveries.forget(connection, before=now - self._kept, limit=DELETIONS)]
            for tenant_id, kept in await deliveries.retentions(connection, shorter_than=self._kept):
                gone.append(
                    await deliveries.forget_of(
                        connection, tenant_id, before=now - kept, limit=DELETIONS
                    )
                )
        return DELETIONS in gone


async def _guarded(
    step: Callable[[], Awaitable[bool]], name: str, *, clock: Clock, metrics: WebhooksMetrics
) -> bool:
    """One turn of a loop; whether more is left. One that could not be done is waited after."""
    more = await attempt(step, loop=name, failed="step_postponed", clock=clock, metrics=metrics)
    if more is None:
        await clock.sleep(AFTER_FAILURE)
    return more or False
