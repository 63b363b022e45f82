"""When a delivery is tried again: the whole schedule is data."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

# Twelve attempts in about 71 hours: soon at first, for a restart; then through a bad weekend.
SCHEDULE: Final = (
    timedelta(seconds=5),
    timedelta(seconds=30),
    timedelta(minutes=2),
    timedelta(minutes=10),
    timedelta(minutes=30),
    timedelta(hours=1),
    timedelta(hours=3),
    timedelta(hours=6),
    timedelta(hours=12),
    timedelta(hours=24),
    timedelta(hours=24),
)
# Somebody is watching a test: it is not tried again when they have gone.
ONCE: Final[Sequence[timedelta]] = ()
JITTER: Final = 0.2
LONGEST_HINT: Final = timedelta(hours=6)


@dataclass(frozen=True, slots=True)
class TryAgain:
    """There is another attempt, then."""

    at: datetime


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The last attempt has failed."""


def after_failure(
    attempt: int,
    *,
    now: datetime,
    jitter: float,
    hint: timedelta | None = None,
    schedule: Sequence[timedelta] = SCHEDULE,
) -> TryAgain | GiveUp:
    """What becomes of a delivery whose ``attempt``-th POST (1 is the first) has just failed.

    ``jitter`` is a number from -1 to 1, drawn by the caller. ``hint`` is what the endpoint asked
    for with ``Retry-After``: it can make us wait longer, within bounds, and never come sooner.
    """
    if attempt > len(schedule):
        return GiveUp()
    wait = schedule[attempt - 1] * (1 + JITTER * jitter)
    if hint is not None:
        wait = max(wait, min(hint, LONGEST_HINT))
    return TryAgain(at=now + wait)


def retry_after(value: str | None, *, now: datetime) -> timedelta | None:
    """What a ``Retry-After`` header asks for: seconds or an HTTP date; nothing if it is neither."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdecimal():
        # More digits than a year of seconds are no wish that anybody has.
        return timedelta(seconds=int(text)) if len(text) <= 9 else LONGEST_HINT
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    if at.tzinfo is None:
        return None
    return max(at - now, timedelta(0))
