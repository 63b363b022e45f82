"""When a guard lets the next message go, whatever the clocks on the wall do."""

from datetime import UTC, date, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from shared.contracts.guard import Pauses, QuietHours, WarmUp, chance_of, day_of, midnight

BERLIN = "Europe/Berlin"
NIGHT = QuietHours(from_="22:00", to="07:00")


def utc(month: int, day: int, hour: int, minute: int = 0) -> datetime:
    return datetime(2026, month, day, hour, minute, tzinfo=UTC)


def test_quiet_hours_include_their_beginning_and_not_their_end() -> None:
    before = utc(1, 10, 20, 59) + timedelta(seconds=59.999)
    assert NIGHT.over(before, zone=BERLIN) == before
    assert NIGHT.over(utc(1, 10, 21), zone=BERLIN) == utc(1, 11, 6)
    assert NIGHT.over(utc(1, 11, 5, 59), zone=BERLIN) == utc(1, 11, 6)
    assert NIGHT.over(utc(1, 11, 6), zone=BERLIN) == utc(1, 11, 6)


def test_quiet_hours_within_a_day_do_not_go_over_midnight() -> None:
    lunch = QuietHours(from_="12:00", to="13:30")
    assert lunch.over(utc(1, 10, 12), zone="UTC") == utc(1, 10, 13, 30)
    assert lunch.over(utc(1, 10, 23), zone="UTC") == utc(1, 10, 23)
    assert lunch.over(utc(1, 10, 3), zone="UTC") == utc(1, 10, 3)


def test_a_time_zone_of_their_own_comes_before_the_organizations() -> None:
    hours = QuietHours(from_="22:00", to="07:00", time_zone="Asia/Tokyo")
    assert hours.over(utc(1, 10, 13), zone=BERLIN) == utc(1, 10, 22)
    assert hours.over(utc(1, 10, 22), zone=BERLIN) == utc(1, 10, 22)


@pytest.mark.parametrize(
    ("begins", "ends"),
    [
        # Clocks go forward on the 29th of March at 01:00 UTC, back on the 25th of October.
        (utc(3, 28, 21), utc(3, 29, 5)),
        (utc(10, 24, 20), utc(10, 25, 6)),
    ],
)
def test_a_night_in_which_the_clocks_change_ends_when_they_show_its_end(
    begins: datetime, ends: datetime
) -> None:
    assert NIGHT.over(begins, zone=BERLIN) == ends
    assert NIGHT.over(ends - timedelta(seconds=1), zone=BERLIN) == ends
    assert NIGHT.over(ends, zone=BERLIN) == ends
    assert NIGHT.over(begins - timedelta(seconds=1), zone=BERLIN) < begins


def test_an_end_that_the_clocks_skip_comes_as_much_later() -> None:
    hours = QuietHours(from_="22:00", to="02:30")
    assert hours.over(utc(3, 29, 0, 45), zone=BERLIN) == utc(3, 29, 1, 30)


def test_an_end_that_the_clocks_repeat_is_the_second_one() -> None:
    hours = QuietHours(from_="22:00", to="02:30")
    for moment in (utc(10, 25, 0, 29), utc(10, 25, 0, 30), utc(10, 25, 1, 29)):
        assert hours.over(moment, zone=BERLIN) == utc(10, 25, 1, 30)


def test_a_beginning_that_the_clocks_repeat_is_the_first_one() -> None:
    hours = QuietHours(from_="02:30", to="04:00")
    assert hours.over(utc(10, 25, 0, 30), zone=BERLIN) == utc(10, 25, 3)
    assert hours.over(utc(10, 25, 1, 10), zone=BERLIN) == utc(10, 25, 3)


def test_all_of_a_day_but_a_minute_leaves_that_minute() -> None:
    hours = QuietHours(from_="00:01", to="00:00")
    for day in range(365):
        moment = datetime(2026, 1, 1, 12, tzinfo=UTC) + timedelta(days=day)
        found = hours.over(moment, zone=BERLIN)
        assert timedelta(0) < found - moment <= timedelta(days=1)
        assert hours.over(found, zone=BERLIN) == found


def test_the_end_of_quiet_hours_is_never_quiet_itself() -> None:
    """Through a year, also where clocks move by half an hour or where they are off by one."""
    for zone in (BERLIN, "Australia/Lord_Howe", "America/St_Johns", "Pacific/Apia"):
        for begins, ends in (("22:00", "07:00"), ("02:30", "02:15"), ("01:45", "02:30")):
            hours = QuietHours(from_=begins, to=ends)
            for quarter in range(0, 4 * 24 * 365, 7):
                moment = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=15 * quarter)
                found = hours.over(moment, zone=zone)
                assert moment <= found
                assert hours.over(found, zone=zone) == found


def test_a_warm_up_grows_in_equal_steps_to_the_whole_limit() -> None:
    warm_up = WarmUp(days=4, start=date(2026, 3, 1), from_=20)
    found = [warm_up.limit(100, today=date(2026, 3, day)) for day in (1, 2, 3, 4, 5, 6)]
    assert found == [20, 40, 60, 80, 100, 100]
    assert warm_up.limit(100, today=date(2026, 2, 1)) == 20
    assert warm_up.limit(100, today=date(2036, 2, 1)) == 100


@pytest.mark.parametrize(("per_day", "first"), [(1000, 1), (7, 3), (3, 7), (1, 1), (1_000_000, 9)])
@pytest.mark.parametrize("days", [1, 3, 60])
def test_a_warm_up_never_shrinks_and_never_raises_a_limit(
    days: int, per_day: int, first: int
) -> None:
    start = date(2026, 3, 1)
    warm_up = WarmUp(days=days, start=start, from_=first)
    found = [
        warm_up.limit(per_day, today=start + timedelta(days=day)) for day in range(-2, days + 2)
    ]
    assert found == sorted(found)
    assert found[0] == min(first, per_day)
    assert found[-1] == per_day


def test_the_day_on_which_a_limit_grows_is_the_first_with_a_higher_one() -> None:
    slow = WarmUp(days=10, start=date(2026, 3, 1), from_=1)
    assert slow.grows_on(3, today=date(2026, 3, 1)) == date(2026, 3, 6)
    assert slow.grows_on(3, today=date(2026, 3, 6)) == date(2026, 3, 11)
    assert slow.grows_on(3, today=date(2026, 3, 11)) is None
    assert slow.grows_on(3, today=date(2026, 2, 1)) == date(2026, 3, 6)
    assert slow.grows_on(1, today=date(2026, 3, 1)) is None


def test_a_day_begins_at_midnight_there() -> None:
    assert day_of(utc(3, 28, 23), zone=BERLIN) == date(2026, 3, 29)
    assert midnight(date(2026, 3, 29), zone=BERLIN) == utc(3, 28, 23)
    assert midnight(date(2026, 3, 30), zone=BERLIN) == utc(3, 29, 22)


def test_a_pause_lies_between_its_bounds_as_chance_has_it() -> None:
    pauses = Pauses(min=2, max=8)
    assert pauses.after(0.0) == timedelta(seconds=2)
    assert pauses.after(0.5) == timedelta(seconds=5)
    assert pauses.after(1.0) == timedelta(seconds=8)
    assert Pauses(min=3, max=3).after(0.7) == timedelta(seconds=3)


def test_the_chance_of_a_transmission_is_its_own_and_lies_anywhere() -> None:
    one = UUID("8f14e45f-ceea-467f-9a1e-800000000000")
    assert chance_of(one) == 0.5
    found = [chance_of(uuid4()) for _ in range(1000)]
    assert 0 <= min(found) < 0.1
    assert 0.9 < max(found) < 1
    assert len(set(found)) == 1000
