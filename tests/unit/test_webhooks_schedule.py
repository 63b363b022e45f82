"""When a delivery is tried again."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.webhooks.domain.schedule import (
    LONGEST_HINT,
    ONCE,
    SCHEDULE,
    GiveUp,
    TryAgain,
    after_failure,
    retry_after,
)
from tests.support.builders import NOON


def test_twelve_attempts_take_about_three_days() -> None:
    assert len(SCHEDULE) + 1 == 12
    assert timedelta(hours=70) < sum(SCHEDULE, timedelta()) < timedelta(hours=72)


@pytest.mark.parametrize(("attempt", "wait"), list(enumerate(SCHEDULE, start=1)))
def test_each_failure_waits_for_its_part_of_the_schedule(attempt: int, wait: timedelta) -> None:
    assert after_failure(attempt, now=NOON, jitter=0) == TryAgain(NOON + wait)


def test_the_twelfth_failure_is_the_last() -> None:
    assert after_failure(12, now=NOON, jitter=0) == GiveUp()


def test_a_test_is_not_tried_again() -> None:
    assert after_failure(1, now=NOON, jitter=0, schedule=ONCE) == GiveUp()


@given(
    attempt=st.integers(1, 11),
    jitter=st.floats(-1, 1),
    hint=st.none() | st.timedeltas(timedelta(0), timedelta(days=400)),
)
def test_a_wait_stays_within_a_fifth_of_the_schedule_or_follows_the_hint(
    attempt: int, jitter: float, hint: timedelta | None
) -> None:
    then = after_failure(attempt, now=NOON, jitter=jitter, hint=hint)
    assert isinstance(then, TryAgain)
    wait, base = then.at - NOON, SCHEDULE[attempt - 1]
    assert wait >= base * 0.8 - timedelta(microseconds=1)
    assert wait <= max(base * 1.2, LONGEST_HINT) + timedelta(microseconds=1)
    if hint is not None:
        assert wait >= min(hint, LONGEST_HINT)


@pytest.mark.parametrize(
    ("header", "wait"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("\uff10", None),
        (" 120 ", timedelta(minutes=2)),
        ("0", timedelta(0)),
        ("9" * 5000, LONGEST_HINT),
        ("Thu, 15 Jan 2026 12:00:30 GMT", timedelta(seconds=30)),
        ("Thu, 15 Jan 2026 11:00:00 GMT", timedelta(0)),
        ("Thu, 15 Jan 2026 12:00:30 -0000", None),
        ("Thu, 99 Jan 2026 12:00:30 GMT", None),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(
    header: str | None, wait: timedelta | None
) -> None:
    assert retry_after(header, now=NOON) == wait
