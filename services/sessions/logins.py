"""Logins in moderation: WhatsApp takes a flood of them for an attack."""

from datetime import timedelta

from shared.clock import Clock


class LoginBudget:
    """Gives out turns, no two closer together than the budget allows."""

    def __init__(self, *, clock: Clock, per_second: float) -> None:
        self._clock = clock
        self._apart = 1.0 / per_second
        self._next = float("-inf")

    async def turn(self) -> None:
        """Wait for a turn. Turns are given in the order of asking."""
        now = self._clock.monotonic()
        at = max(now, self._next)
        self._next = at + self._apart
        if at > now:
            await self._clock.sleep(timedelta(seconds=at - now))
