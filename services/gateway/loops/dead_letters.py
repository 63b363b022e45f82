"""Measuring how many dead letters wait, and for how long."""

from datetime import timedelta
from typing import Final

from services.gateway.metrics import GatewayMetrics
from services.gateway.store import dead_letters
from shared.clock import Clock
from shared.db.database import Database
from shared.runtime.steps import attempt


class WatchDeadLetters:
    """Measures how many dead letters wait for somebody, and how long the oldest has."""

    RHYTHM: Final = timedelta(seconds=15)

    def __init__(self, *, database: Database, clock: Clock, metrics: GatewayMetrics) -> None:
        self._database = database
        self._clock = clock
        self._metrics = metrics

    async def run(self) -> None:
        """Measure until cancelled."""
        while True:
            await attempt(
                self.step,
                loop="dead_letters",
                failed="dead_letters_not_measured",
                clock=self._clock,
                metrics=self._metrics,
            )
            await self._clock.sleep(self.RHYTHM)

    async def step(self) -> None:
        """Measure once. Raises ``Transient``."""
        async with self._database.tx() as tx:
            number, oldest = await dead_letters.waiting(tx)
        age = timedelta(0) if oldest is None else self._clock.now() - oldest
        self._metrics.dead_letters.set(number)
        self._metrics.dead_letter_age.set(max(0.0, age.total_seconds()))
