"""Reading anew what is remembered and in use, before it is too old."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Final

from services.gateway.metrics import GatewayMetrics
from shared.clock import Clock
from shared.errors import Transient
from shared.log import get_logger

log = get_logger()


class KeepFresh:
    """Reads what is remembered and in use before it is too old, so that no request waits for it."""

    RHYTHM: Final = timedelta(milliseconds=100)
    AFTER_FAILURE: Final = timedelta(seconds=1)
    DEADLINE: Final = timedelta(seconds=2)

    def __init__(
        self,
        refresh: Sequence[Callable[[], Awaitable[None]]],
        *,
        clock: Clock,
        metrics: GatewayMetrics,
    ) -> None:
        self._refresh = refresh
        self._clock = clock
        self._metrics = metrics

    async def run(self) -> None:
        """Refresh until cancelled."""
        while True:
            pause = self.RHYTHM
            try:
                await self.step()
            except (TimeoutError, Transient) as error:
                log.warning("not_kept_fresh", reason=str(error) or type(error).__name__)
                pause = self.AFTER_FAILURE
            else:
                self._metrics.loop_succeeded.labels("keep_fresh").set(self._clock.now().timestamp())
            await self._clock.sleep(pause)

    async def step(self) -> None:
        """Read again what is in use and will soon be too old. Raises ``Transient``."""
        async with asyncio.timeout(self.DEADLINE.total_seconds()):
            for refresh in self._refresh:
                await refresh()
