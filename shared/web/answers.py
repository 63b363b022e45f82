"""How many requests were answered lately, and how many of them with an error of ours."""

from collections.abc import Callable
from typing import NamedTuple

MINUTES = 5


class Share(NamedTuple):
    """Of so many, so many failed."""

    all: int
    failed: int

    @property
    def percent(self) -> float:
        """How many of a hundred failed; none if there were none."""
        return round(100 * self.failed / self.all, 2) if self.all else 0.0


class Answers:
    """Counts by the minute, for ``MINUTES`` back."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._minutes: dict[int, list[int]] = {}

    def note(self, status: int) -> None:
        """A request was answered."""
        minute = int(self._monotonic() // 60)
        counts = self._minutes.get(minute)
        if counts is None:
            self._forget(minute)
            counts = self._minutes[minute] = [0, 0]
        counts[0] += 1
        if status >= 500:
            counts[1] += 1

    def recent(self) -> Share:
        """Those of the last minutes."""
        self._forget(int(self._monotonic() // 60))
        counts = self._minutes.values()
        return Share(sum(each[0] for each in counts), sum(each[1] for each in counts))

    def _forget(self, minute: int) -> None:
        for old in [each for each in self._minutes if each <= minute - MINUTES]:
            del self._minutes[old]
