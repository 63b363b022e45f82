"""Health: alive means the event loop turns; ready means that what is needed can be reached."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Literal

from shared.clock import Clock
from shared.errors import PlatformError

Check = Callable[[], Awaitable[None]]

# A check that takes longer is a check that failed: probes give up after a few seconds themselves.
CHECK_TIMEOUT: Final = timedelta(seconds=3)


@dataclass(frozen=True, slots=True)
class Report:
    """What the checks found; ``checks`` says ``up`` or why not, by name."""

    status: Literal["up", "down"]
    checks: Mapping[str, str]


class Health:
    """The checks of one service. Each returns, or raises a ``PlatformError`` that says why not."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._started = clock.monotonic()
        self._checks: dict[str, Check] = {}
        self._optional: set[str] = set()
        self._stopping = False

    def add(self, name: str, check: Check, *, required: bool = True) -> None:
        """Show ``check`` in every report and, if it is required, let readiness depend on it."""
        self._checks[name] = check
        if not required:
            self._optional.add(name)

    def stop(self) -> None:
        """Fail readiness from now on, so that nobody sends more work here."""
        self._stopping = True

    @property
    def uptime(self) -> timedelta:
        """How long the service has been running."""
        return timedelta(seconds=self._clock.monotonic() - self._started)

    async def ready(self) -> Report:
        """Run all checks at once."""
        names = list(self._checks)
        found = await asyncio.gather(*(self._run(self._checks[name]) for name in names))
        checks = dict(zip(names, found, strict=True))
        if self._stopping:
            checks["process"] = "stopping"
        up = all(result == "up" or name in self._optional for name, result in checks.items())
        return Report("up" if up else "down", checks)

    async def _run(self, check: Check) -> str:
        try:
            async with asyncio.timeout(CHECK_TIMEOUT.total_seconds()):
                await check()
        except PlatformError as error:
            return error.message
        except TimeoutError:
            return f"no answer within {CHECK_TIMEOUT.total_seconds():.0f} s"
        return "up"
