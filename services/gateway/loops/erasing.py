"""Removing files from the media store that nothing speaks of any more."""

from datetime import timedelta
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from services.gateway.metrics import GatewayMetrics
from services.gateway.store import media
from shared.clock import Clock
from shared.db.database import Database
from shared.media.keeping import alone
from shared.media.store import MediaStore
from shared.runtime.steps import attempt


class EraseMedia:
    """Removes files from the media store that nothing speaks of any more.

    Those whose rows were deleted go within a minute. Those that nobody is to keep, because their
    organization keeps no content or not for so long, are marked each hour, and so are those that
    came with a message a day ago of which nothing has become. Those that never got a
    row, because somebody died between storing and recording, are looked for once a day among all
    that is stored, and go when they are a day old.
    """

    RHYTHM: Final = timedelta(minutes=1)
    PORTION: Final = 200
    ORPHANS_AFTER_START: Final = timedelta(minutes=10)
    ORPHANS: Final = timedelta(days=1)
    OUTLIVED: Final = timedelta(hours=1)
    # A file is stored before its message is; until then nothing says that it is needed.
    PASSING: Final = timedelta(days=1)

    def __init__(
        self,
        *,
        database: Database,
        store: MediaStore,
        clock: Clock,
        metrics: GatewayMetrics,
        received_kept: timedelta,
    ) -> None:
        self._database = database
        self._store = store
        self._received_kept = received_kept
        self._clock = clock
        self._metrics = metrics
        self._outlived_due = self._orphans_due = clock.now()

    async def run(self) -> None:
        """Erase until cancelled."""
        self._outlived_due = self._clock.now()
        self._orphans_due = self._outlived_due + self.ORPHANS_AFTER_START
        while True:
            erased = await attempt(
                self._turn,
                loop="erase_media",
                failed="media_not_erased",
                clock=self._clock,
                metrics=self._metrics,
            )
            if (erased or 0) < self.PORTION:
                await self._clock.sleep(self.RHYTHM)

    async def _turn(self) -> int:
        now = self._clock.now()
        if now >= self._outlived_due:
            marked = max(await self.outlive(), await self.forsaken())
            if marked < self.PORTION:
                self._outlived_due = now + self.OUTLIVED
        erased = await self.step()
        if self._clock.now() >= self._orphans_due:
            await self.orphans()
            self._orphans_due = self._clock.now() + self.ORPHANS
        return erased

    async def step(self) -> int:
        """Erase files whose rows were deleted; returns for how many this was settled."""
        async with self._database.tx() as tx:
            files = await media.erasable(tx, at_most=self.PORTION)
        for tenant_id, sha256 in files:
            async with self._database.tx() as tx:
                if await self._erase(tx, tenant_id, sha256):
                    self._metrics.media_erased.inc()
                await media.note_erased(tx, tenant_id, sha256, now=self._clock.now())
        return len(files)

    async def outlive(self) -> int:
        """Mark files that nobody is to keep any more; returns how many, at most twice a portion."""
        now = self._clock.now()
        async with self._database.tx() as tx:
            return await media.outlive(
                tx,
                now=now,
                passing_before=now - self.PASSING,
                received_before=now - self._received_kept,
                at_most=self.PORTION,
            )

    async def forsaken(self) -> int:
        """Settle files whose requests have died; returns how many that were, at most a portion."""
        now = self._clock.now()
        async with self._database.tx() as tx:
            return await media.forsaken(
                tx, before=now - self.PASSING, now=now, at_most=self.PORTION
            )

    async def orphans(self) -> int:
        """Remove what was stored over a day ago and never recorded; returns how many files."""
        before = self._clock.now() - self.ORPHANS
        removed = await self._store.forget_unfinished(before=before)
        async for page in self._store.objects():
            old = [(kept.tenant_id, kept.sha256) for kept in page if kept.stored_at < before]
            removed += await self._remove_orphans(old)
        self._metrics.media_orphans.inc(removed)
        return removed

    async def _remove_orphans(self, files: list[tuple[UUID, str]]) -> int:
        async with self._database.tx() as tx:
            lost = await media.unreferenced(tx, files)
        removed = 0
        for tenant_id, sha256 in lost:
            async with self._database.tx() as tx:
                removed += await self._erase(tx, tenant_id, sha256)
        return removed

    async def _erase(self, tx: AsyncConnection, tenant_id: UUID, sha256: str) -> bool:
        """Remove a file unless something speaks of it; nothing can begin to meanwhile."""
        await alone(tx, tenant_id, sha256)
        if not await media.unreferenced(tx, [(tenant_id, sha256)]):
            return False
        await self._store.delete(tenant_id, sha256)
        return True
