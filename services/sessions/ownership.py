"""Ownership: which shards are this process's, taken, kept and given up by leases."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final, Self

from services.sessions.domain.lease import Lease, surplus, to_claim
from services.sessions.leases import Leases
from services.sessions.metrics import SessionsMetrics
from services.sessions.settings import SessionsSettings
from services.sessions.store import shards
from services.sessions.store.fence import Fence
from shared.broker.topology import SHARDS
from shared.clock import Clock
from shared.db.database import Database
from shared.db.group_commit import GroupCommit
from shared.errors import Transient
from shared.log import get_logger

log = get_logger()

# How often to look whether a local deadline has passed; what sends looks by itself.
GUARD_EVERY: Final = timedelta(milliseconds=250)
# What closing the sessions of a shard may take beyond the drain of its transmissions.
CLOSING: Final = timedelta(seconds=5)


class Tenure:
    """One process's hold of one shard, from the claim until it is given up or lost."""

    def __init__(self, lease: Lease) -> None:
        self.lease = lease
        self.ended = asyncio.Event()
        self.lost = asyncio.Event()

    def finish(self) -> None:
        """Give the shard up in good order."""
        self.ended.set()

    def lose(self) -> None:
        """The shard is, or may be, somebody else's: nothing may be sent or written any more."""
        self.lost.set()
        self.ended.set()


Serve = Callable[[Tenure], Awaitable[None]]


class Ownership:
    """Claims a fair share of the shards, renews the leases, and gives up what is too much.

    ``serve`` does the work of one shard: it returns once ``tenure.ended`` is set and everything
    has been put down. It runs under a valid lease, which is released when it has returned.
    """

    def __init__(
        self,
        *,
        replica: str,
        database: Database,
        fence: Fence,
        leases: Leases,
        clock: Clock,
        serve: Serve,
        settings: SessionsSettings,
        metrics: SessionsMetrics,
    ) -> None:
        self._replica = replica
        self._database = database
        self._fence = fence
        self._leases = leases
        self._clock = clock
        self._serve = serve
        self._settings = settings
        self._metrics = metrics
        self._tenures: dict[Lease, Tenure] = {}
        self._holds: set[asyncio.Task[None]] = set()
        self._group: asyncio.TaskGroup | None = None
        self._live = 1
        self._draining = False
        self._released_at = float("-inf")
        # Together, because a process that ends gives up all its shards at once.
        self._releases: GroupCommit[Lease, None] = GroupCommit(self._release, name="releases")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Own shards for as long as the context is open; on exit give all of them up in order."""
        rhythms = (
            (self.renew, self._settings.renewal),
            (self.claim, timedelta(seconds=self._settings.claim_every)),
            (self.guard, GUARD_EVERY),
        )
        async with self._releases.running(), asyncio.TaskGroup() as group:
            self._group = group
            keepers = [
                group.create_task(self._repeat(step, every), name=f"ownership:{step.__name__}")
                for step, every in rhythms
            ]
            try:
                yield self
            finally:
                await self._give_up_all()
                for keeper in keepers:
                    keeper.cancel()

    async def renew(self) -> None:
        """Show that this replica lives, and prolong all its leases with one statement."""
        held = [lease for lease in self._leases.all() if lease in self._tenures]
        asked_at = self._clock.monotonic()
        async with self._fence.changing() as tx:
            await shards.beat(tx, replica=self._replica, draining=self._draining)
            kept = await shards.renew(tx, held, ttl=self._settings.ttl)
            self._live = await shards.live_replicas(tx, dead_after=self._settings.dead_after)
        self._metrics.renewal_seconds.observe(self._clock.monotonic() - asked_at)
        self._leases.grant(
            [lease for lease in held if lease.shard in kept and lease in self._tenures],
            asked_at=asked_at,
        )
        for lease in held:
            if lease.shard not in kept:
                self._lose(lease, reason="taken")

    async def claim(self) -> None:
        """Take shards that nobody has, up to a fair share; give one up if there are too many."""
        if self._draining:
            return
        held = len(self._tenures)
        wanted = to_claim(shards=SHARDS, replicas=self._live, held=held)
        if wanted == 0:
            self._shed()
            return
        asked_at = self._clock.monotonic()
        async with self._fence.changing() as tx:
            claimed = await shards.claim(
                tx, owner=self._replica, limit=wanted, ttl=self._settings.ttl
            )
        self._leases.grant(claimed, asked_at=asked_at)
        for lease in claimed:
            self._begin(lease)
        if claimed:
            log.info("shards_claimed", count=len(claimed), held=len(self._tenures))

    async def guard(self) -> None:
        """Stop acting for shards whose lease could not be renewed in time."""
        for lease, tenure in list(self._tenures.items()):
            if not tenure.lost.is_set() and not self._leases.holds(lease):
                self._lose(lease, reason="not_renewed")

    def _shed(self) -> None:
        staying = [tenure for tenure in self._tenures.values() if not tenure.ended.is_set()]
        now = self._clock.monotonic()
        if now - self._released_at < self._settings.release_every:
            return
        if surplus(shards=SHARDS, replicas=self._live, held=len(staying)):
            self._released_at = now
            max(staying, key=lambda tenure: tenure.lease).finish()

    def _begin(self, lease: Lease) -> None:
        if self._group is None:
            raise RuntimeError("shards are claimed within running() only")
        tenure = Tenure(lease)
        self._tenures[lease] = tenure
        self._metrics.shards.set(len(self._tenures))
        hold = self._group.create_task(self._hold(tenure), name=f"shard:{lease.shard}")
        self._holds.add(hold)
        hold.add_done_callback(self._holds.discard)

    async def _hold(self, tenure: Tenure) -> None:
        try:
            await self._serve(tenure)
        finally:
            del self._tenures[tenure.lease]
            self._leases.drop(tenure.lease)
            self._metrics.shards.set(len(self._tenures))
        if tenure.lost.is_set():
            return
        try:
            await self._releases.submit(tenure.lease)
        except Transient as error:
            # It runs out by itself; whoever comes next only has to wait longer.
            log.warning("shard_not_released", shard=tenure.lease.shard, reason=error.message)

    async def _release(self, leases: Sequence[Lease]) -> Sequence[None]:
        async with self._fence.changing() as tx:
            await shards.release(tx, leases)
        return [None] * len(leases)

    def _lose(self, lease: Lease, *, reason: str) -> None:
        tenure = self._tenures.get(lease)
        self._leases.drop(lease)
        if tenure is not None and not tenure.lost.is_set():
            self._metrics.shards_lost.inc()
            log.warning("shard_lost", shard=lease.shard, epoch=lease.epoch, reason=reason)
            tenure.lose()

    async def _give_up_all(self) -> None:
        self._draining = True
        try:
            await self.renew()
        except Transient as error:
            log.warning("draining_not_announced", reason=error.message)
        for tenure in self._tenures.values():
            tenure.finish()
        if self._holds:
            limit = timedelta(seconds=self._settings.drain) + CLOSING
            await asyncio.wait(self._holds, timeout=limit.total_seconds())
        for lease in list(self._tenures):
            self._lose(lease, reason="not_drained")
        try:
            async with self._database.tx() as tx:
                await shards.leave(tx, replica=self._replica)
        except Transient as error:
            log.warning("departure_not_announced", reason=error.message)

    async def _repeat(self, step: Callable[[], Awaitable[None]], every: timedelta) -> None:
        while True:
            try:
                await step()
            except Transient as error:
                log.warning("ownership_step_failed", step=step.__name__, reason=error.message)
            await self._clock.sleep(every)
