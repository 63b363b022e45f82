"""How long the file of a received message is fetched again and again."""

from datetime import datetime, timedelta
from typing import Final

from shared.backoff import exponential

FIRST: Final = timedelta(seconds=5)
LONGEST: Final = timedelta(hours=2)
# With the waits above, a day. WhatsApp itself keeps files for weeks, but whoever waits does not.
TRIES: Final = 23


def next_try(attempt: int, *, now: datetime, jitter: float) -> datetime:
    """When to fetch again what the ``attempt``-th attempt, counted from 1, does not bring."""
    return now + exponential(attempt, base=FIRST, cap=LONGEST, jitter=jitter)


def given_up(attempt: int) -> bool:
    """Whether the ``attempt``-th attempt was the last."""
    return attempt >= TRIES
