"""When to look for something due, without asking the database every time."""

from heapq import heappop, heappush

# Nobody minds a receipt a tenth of a second later, and those that come together cost a fraction.
GRAIN = 0.1


class Agenda:
    """Moments at which something becomes due, rounded up to a grain, each remembered once.

    Times are monotonic seconds. What other processes have put into the queue is not in here, so
    whoever uses it looks now and then anyway.
    """

    def __init__(self) -> None:
        self._moments: list[int] = []
        self._known: set[int] = set()

    def expect(self, at: float) -> bool:
        """Something will be due at ``at``; whether that is sooner than all that was known."""
        moment = int(at / GRAIN) + 1
        if moment in self._known:
            return False
        self._known.add(moment)
        heappush(self._moments, moment)
        return self._moments[0] == moment

    def next_after(self, now: float) -> float | None:
        """When to look next, after having looked at ``now``."""
        while self._moments and self._moments[0] * GRAIN <= now:
            self._known.discard(heappop(self._moments))
        return self._moments[0] * GRAIN if self._moments else None
