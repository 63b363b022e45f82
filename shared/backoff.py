"""How long to wait before trying again: one pure function for every outage."""

from datetime import timedelta


def exponential(attempt: int, *, base: timedelta, cap: timedelta, jitter: float) -> timedelta:
    """The wait after the ``attempt``-th failure, counted from 1: doubled each time, up to ``cap``.

    ``jitter`` is a number from -1 to 1, drawn by the caller; the wait moves by up to a fifth with
    it, so that those who failed together do not return together.
    """
    doubled: timedelta = base * float(2 ** min(attempt - 1, 32))
    return min(doubled, cap) * (1 + 0.2 * jitter)
