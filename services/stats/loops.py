"""Timed work: forgetting what no event can repeat any more."""

from datetime import timedelta
from typing import Final

from services.stats import store
from services.stats.metrics import StatsMetrics
from shared.clock import Clock
from shared.db.database import Database
from shared.runtime.steps import attempt

RHYTHM: Final = timedelta(minutes=5)
# Between two batches of deletions, so that whoever else needs the disk gets it.
BREATH: Final = timedelta(milliseconds=200)
LIMIT: Final = 5000
# Whoever writes to somebody after so long does not answer them.
UNANSWERED_FOR: Final = timedelta(days=7)


class Forgetting:
    """Deletes old rows of the inbox and old hours, a batch at a time."""

    def __init__(
        self,
        *,
        database: Database,
        clock: Clock,
        metrics: StatsMetrics,
        kept: timedelta,
        hours_kept: timedelta,
    ) -> None:
        self._database = database
        self._clock = clock
        self._metrics = metrics
        self._kept = kept
        self._hours_kept = hours_kept

    async def run(self) -> None:
        """Forget until cancelled."""
        while True:
            more = await attempt(
                self.step,
                loop="forgetting",
                failed="step_postponed",
                clock=self._clock,
                metrics=self._metrics,
            )
            await self._clock.sleep(BREATH if more else RHYTHM)

    async def step(self) -> bool:
        """Delete one batch; whether more is left."""
        now = self._clock.now()
        async with self._database.hot() as connection:
            forgotten = [
                await store.forget(connection, before=now - self._kept, limit=LIMIT),
                await store.forget_hours(connection, before=now - self._hours_kept, limit=LIMIT),
                await store.forget_unanswered(connection, before=now - UNANSWERED_FOR, limit=LIMIT),
            ]
        return LIMIT in forgotten
