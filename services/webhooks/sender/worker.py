"""The worker: posts what its lanes hold, as much at once as slots allow."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final
from uuid import UUID

from services.webhooks.domain.delivery import Attempt, Delivery
from services.webhooks.domain.endpoint import Endpoint
from services.webhooks.domain.pacing import may_start
from services.webhooks.metrics import WebhooksMetrics
from services.webhooks.sender.lanes import Lane, Lanes
from services.webhooks.sender.ledger import Ledger
from services.webhooks.sender.posting import Poster
from services.webhooks.store import deliveries as store
from shared.clock import Clock
from shared.db.database import Database
from shared.errors import Transient
from shared.log import get_logger
from shared.nudge import Nudge
from shared.security.egress import EgressClient

log = get_logger()

# A claim lasts this long; a worker that dies delays what it had by as much.
LEASE: Final = timedelta(seconds=60)
# What remains of a claim after the longest POST, for writing down what came of it.
MARGIN: Final = timedelta(seconds=10)
MOST_TESTS: Final = 32


class Worker:
    """Posts deliveries that are claimed in its name, ``name``.

    ``hungry`` wakes the loop that claims: a lane runs low and more is waiting for it.
    """

    def __init__(
        self,
        *,
        name: str,
        client: EgressClient,
        poster: Poster,
        lanes: Lanes,
        ledger: Ledger,
        database: Database,
        clock: Clock,
        metrics: WebhooksMetrics,
        slots: int,
        drain: timedelta,
    ) -> None:
        self.name = name
        self.lanes = lanes
        self.hungry = Nudge()
        self._client = client
        self._poster = poster
        self._ledger = ledger
        self._database = database
        self._clock = clock
        self._slots = slots
        self._drain = drain
        self._used = 0
        self._used_by: Counter[UUID] = Counter()
        self._line: dict[UUID, Lane] = {}  # lanes that wait for a slot, longest first
        self._tasks: set[asyncio.Task[None]] = set()
        self._group: asyncio.TaskGroup | None = None
        self._tests = 0
        metrics.posting.set_function(lambda: float(self._used + self._tests))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Post for as long as the context is open.

        On exit what is under way may finish, within bounds, and is written; whatever else is
        claimed goes back at once, for other workers to take.
        """
        try:
            async with self._client, self._ledger.running(), self._posting():
                yield
        finally:
            await self._release_all()

    def good_until(self, *, timeout: timedelta) -> float:
        """Until when a POST may start on a claim that is made now."""
        return self._clock.monotonic() + (LEASE - timeout - MARGIN).total_seconds()

    def start(self, endpoint: Endpoint, delivery: Delivery) -> None:
        """Post a delivery for which room was reserved."""
        self._pump(self.lanes.start(endpoint, delivery))

    def take(self, endpoint: Endpoint, deliveries: Sequence[Delivery], *, asked: int) -> None:
        """Post what was claimed for an endpoint."""
        self._pump(self.lanes.take(endpoint, deliveries, asked=asked))

    async def quiet(self) -> None:
        """Return once no POST is under way and what came of all of them is written."""
        while self._tasks:
            await asyncio.wait(self._tasks)
        await self._ledger.written()

    def may_test(self) -> bool:
        """Whether one more test can be posted at once. Tests need no slot: somebody is watching."""
        return self._group is not None and self._tests < MOST_TESTS

    def test(self, endpoint: Endpoint, delivery: Delivery) -> None:
        """Post a delivery past lanes and slots."""
        self._tests += 1
        self._spawn(self._test(endpoint, delivery))

    @asynccontextmanager
    async def _posting(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                yield
            finally:
                self._group = None
                if self._tasks:
                    await asyncio.wait(self._tasks, timeout=self._drain.total_seconds())
                for task in self._tasks:
                    task.cancel()

    async def _release_all(self) -> None:
        try:
            async with self._database.hot() as connection:
                released = await store.release_all(connection, worker=self.name)
        except Transient as error:
            log.warning("webhook_claims_not_released", reason=error.message)
        else:
            log.info("webhook_claims_released", count=released)

    def _spawn(self, coroutine: Coroutine[object, None, None]) -> None:
        if self._group is None:  # leaving: what is claimed is about to be given back
            coroutine.close()
            return
        task = self._group.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _pump(self, lane: Lane) -> None:
        """Have as many runners at work on a lane as it may have, and as there are slots for."""
        tenant_id = lane.endpoint.tenant_id
        while self._group is not None and lane.waiting and lane.active < lane.limit:
            mine = self._used_by[tenant_id]
            if not may_start(tenant=mine, used=self._used, total=self._slots):
                self._line.setdefault(lane.endpoint.id, lane)
                return
            delivery = self.lanes.next(lane)
            if delivery is None:
                return
            lane.active += 1
            self._used += 1
            self._used_by[tenant_id] += 1
            self._spawn(self._run(lane, tenant_id, delivery))

    async def _run(self, lane: Lane, tenant_id: UUID, first: Delivery) -> None:
        """Post one delivery of a lane after the other, for as long as nobody waits for the slot."""
        delivery: Delivery | None = first
        try:
            while delivery is not None:
                await self._post(lane, delivery)
                if lane.backlog and lane.room() > lane.held:  # less than half full
                    self.hungry.set()
                if self._group is None or self._line or lane.active > lane.limit:
                    break
                delivery = self.lanes.next(lane)
        finally:
            lane.active -= 1
            self._used -= 1
            self._used_by[tenant_id] -= 1
            if not self._used_by[tenant_id]:
                del self._used_by[tenant_id]
            self._next_in_line()
            self._pump(lane)

    def _next_in_line(self) -> None:
        """Give free slots to the lanes that have waited longest and whose tenants may have one."""
        for id_, lane in list(self._line.items()):
            if self._used >= self._slots:
                return
            del self._line[id_]
            self._pump(lane)

    async def _post(self, lane: Lane, delivery: Delivery) -> None:
        endpoint = lane.endpoint
        try:
            answer = await self._poster.post(endpoint, delivery)
        finally:
            self.lanes.finished()
        lane.learn(answer)
        await self._ledger.record(Attempt(delivery=delivery, endpoint=endpoint, answer=answer))

    async def _test(self, endpoint: Endpoint, delivery: Delivery) -> None:
        try:
            answer = await self._poster.post(endpoint, delivery)
            await self._ledger.record(Attempt(delivery=delivery, endpoint=endpoint, answer=answer))
        finally:
            self._tests -= 1
