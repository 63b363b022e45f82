"""Writing down what was seen: when keys were used, failed logins and the like."""

from datetime import timedelta
from typing import Final

from services.gateway.metrics import GatewayMetrics
from services.gateway.store.keys import KeyUses
from services.gateway.store.sightings import Sightings
from shared.clock import Clock
from shared.runtime.steps import attempt


class NoteKeyUse:
    """Writes down when keys were last used, for all of them at once."""

    RHYTHM: Final = timedelta(seconds=5)

    def __init__(self, *, uses: KeyUses, clock: Clock, metrics: GatewayMetrics) -> None:
        self._uses = uses
        self._clock = clock
        self._metrics = metrics

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._clock.sleep(self.RHYTHM)
            await attempt(
                lambda: self._uses.write(now=self._clock.now()),
                loop="key_use",
                failed="key_use_not_written",
                clock=self._clock,
                metrics=self._metrics,
            )


class NoteSightings:
    """Writes down what was seen without anything being changed: failed logins and the like."""

    RHYTHM: Final = timedelta(seconds=2)

    def __init__(self, *, sightings: Sightings, clock: Clock, metrics: GatewayMetrics) -> None:
        self._sightings = sightings
        self._clock = clock
        self._metrics = metrics

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._clock.sleep(self.RHYTHM)
            await attempt(
                self._sightings.write,
                loop="sightings",
                failed="sightings_not_written",
                clock=self._clock,
                metrics=self._metrics,
            )
