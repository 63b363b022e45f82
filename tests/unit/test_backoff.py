"""The wait between attempts: it doubles, it ends somewhere, and chance keeps a crowd apart."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.backoff import exponential

SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)


@pytest.mark.parametrize(("attempt", "seconds"), [(1, 1), (2, 2), (3, 4), (11, 1024)])
def test_each_failure_doubles_the_wait(attempt: int, seconds: int) -> None:
    assert exponential(attempt, base=SECOND, cap=HOUR, jitter=0) == seconds * SECOND


@given(attempt=st.integers(1, 10**9), jitter=st.floats(-1, 1))
def test_a_wait_never_leaves_a_fifth_around_the_cap(attempt: int, jitter: float) -> None:
    wait = exponential(attempt, base=SECOND, cap=HOUR, jitter=jitter)
    assert 0.8 * SECOND <= wait <= 1.2 * HOUR


def test_a_cap_below_the_base_wins() -> None:
    assert exponential(1, base=HOUR, cap=SECOND, jitter=0) == SECOND


def test_those_who_failed_together_return_up_to_a_fifth_apart() -> None:
    soonest, latest = (exponential(1, base=SECOND, cap=HOUR, jitter=by) for by in (-1.0, 1.0))
    assert (soonest, latest) == (0.8 * SECOND, 1.2 * SECOND)
