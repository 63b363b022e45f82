"""How many may go now, and when the next may."""

from datetime import timedelta
from uuid import UUID

from services.dispatcher.domain.pacing import (
    DAY,
    HOUR,
    MINUTE,
    Cause,
    Last,
    Limit,
    Quiet,
    Room,
    Usage,
    limits,
    paused_until,
    pauses,
    quiet,
    room,
)
from shared.contracts.guard import QuietHours
from tests.support.builders import NOON


def room_at_noon(
    *usages: Usage,
    in_flight: int = 0,
    throttled: timedelta | None = None,
    paused: timedelta | None = None,
    hours: QuietHours | None = None,
) -> Room:
    """The room at noon."""
    return room(
        usages,
        in_flight=in_flight,
        at_most_in_flight=100,
        throttled_until=None if throttled is None else NOON + throttled,
        paused_until=None if paused is None else NOON + paused,
        quiet=Quiet(hours, "UTC"),
        now=NOON,
    )


def free(*usages: Usage, in_flight: int = 0, throttled: timedelta | None = None) -> object:
    """The room at noon, as a pair."""
    found = room_at_noon(*usages, in_flight=in_flight, throttled=throttled)
    return found.count, found.next_slot


def test_without_limits_only_what_is_in_flight_bounds_the_room() -> None:
    assert free() == (100, None)
    assert free(in_flight=97) == (3, None)
    assert free(in_flight=120) == (0, None)


def test_the_tightest_limit_decides() -> None:
    minute = Usage(Limit(20, MINUTE), 15, NOON)
    day = Usage(Limit(1000, DAY), 998, NOON)
    assert free(minute, day) == (2, None)


def test_a_full_window_names_the_moment_its_oldest_leaves() -> None:
    usage = Usage(Limit(20, MINUTE), 20, NOON - timedelta(seconds=50))
    assert free(usage) == (0, NOON + timedelta(seconds=10))


def test_of_several_full_windows_the_last_to_open_names_the_slot() -> None:
    minute = Usage(Limit(1, MINUTE), 1, NOON - timedelta(seconds=50))
    hour = Usage(Limit(2, HOUR), 2, NOON - timedelta(minutes=30))
    assert free(minute, hour) == (0, NOON + timedelta(minutes=30))


def test_what_whatsapp_said_comes_before_every_limit() -> None:
    assert free(throttled=timedelta(seconds=10)) == (0, NOON + timedelta(seconds=10))
    assert free(throttled=timedelta(seconds=-1)) == (100, None)


def test_a_limit_of_zero_is_no_limit() -> None:
    guard = {"perMinute": 20, "perHour": 0, "perDay": 1000, "typing": True}
    assert limits(guard, zone="UTC", now=NOON) == (Limit(20, MINUTE), Limit(1000, DAY))


def test_quiet_hours_leave_no_room_and_name_their_end() -> None:
    hours = QuietHours(from_="12:00", to="14:00")
    assert room_at_noon(hours=hours) == Room(0, NOON + timedelta(hours=2), Cause.QUIET_HOURS)
    assert room_at_noon(hours=QuietHours(from_="12:01", to="14:00")).count == 100


def test_a_slot_that_falls_into_quiet_hours_waits_for_their_end() -> None:
    usage = Usage(Limit(2, HOUR), 2, NOON - timedelta(minutes=30))
    assert room_at_noon(usage) == Room(0, NOON + timedelta(minutes=30), Cause.LIMITS)
    hours = QuietHours(from_="12:30", to="13:00")
    assert room_at_noon(usage, hours=hours) == Room(0, NOON + HOUR, Cause.QUIET_HOURS)
    ended = QuietHours(from_="11:00", to="12:00")
    assert room_at_noon(usage, hours=ended).cause is Cause.LIMITS


def test_quiet_hours_are_the_organizations_unless_they_name_a_time_zone() -> None:
    hours: dict[str, object] = {"from": "12:00", "to": "13:00"}
    named = {**hours, "timeZone": "Asia/Tokyo"}
    assert quiet({"quietHours": hours}, zone="UTC").over(NOON) == NOON + HOUR
    assert quiet({"quietHours": hours}, zone="Asia/Tokyo").over(NOON) == NOON
    assert quiet({"quietHours": named}, zone="UTC").over(NOON) == NOON
    assert quiet({"perMinute": 1}, zone="UTC").over(NOON) == NOON


def test_a_warm_up_reduces_the_limit_of_a_day_alone_until_it_is_over() -> None:
    warm_up = {"days": 10, "start": NOON.date().isoformat(), "from": 100}
    guard = {"perMinute": 20, "perHour": 200, "perDay": 1000, "warmUp": warm_up}
    tomorrow = NOON + timedelta(hours=12)
    minute, hour, day = limits(guard, zone="UTC", now=NOON)
    assert (minute, hour) == (Limit(20, MINUTE), Limit(200, HOUR))
    assert day == Limit(100, DAY, grows_at=tomorrow)
    assert limits(guard, zone="UTC", now=tomorrow)[2].count == 190
    assert limits(guard, zone="UTC", now=NOON + 10 * DAY)[2] == Limit(1000, DAY)
    # There it is tomorrow already.
    assert limits(guard, zone="Pacific/Kiritimati", now=NOON)[2].count == 190


def test_a_day_that_is_full_opens_when_its_limit_grows_if_that_comes_first() -> None:
    limit = Limit(100, DAY, grows_at=NOON + timedelta(hours=12))
    assert free(Usage(limit, 100, NOON)) == (0, NOON + timedelta(hours=12))
    assert free(Usage(limit, 100, NOON - timedelta(hours=20))) == (0, NOON + timedelta(hours=4))


def test_a_pause_leaves_no_room_until_it_is_over() -> None:
    assert room_at_noon(paused=MINUTE) == Room(0, NOON + MINUTE, Cause.PAUSES)
    assert room_at_noon(paused=timedelta(0)).count == 100
    # Of all that holds an instance back, the last to end is told.
    usage = Usage(Limit(1, HOUR), 1, NOON)
    assert room_at_noon(usage, paused=MINUTE) == Room(0, NOON + HOUR, Cause.LIMITS)
    night = QuietHours(from_="12:01", to="13:00")
    assert room_at_noon(paused=MINUTE, hours=night).next_slot == NOON + HOUR


def test_a_pause_follows_the_newest_transmission_if_the_guard_wants_any() -> None:
    wanted = pauses({"pauses": {"min": 10, "max": 20}})
    last = Last(UUID("8f14e45f-ceea-467f-9a1e-800000000000"), NOON)
    assert paused_until(wanted, last) == NOON + timedelta(seconds=15)
    assert paused_until(wanted, None) is None
    assert paused_until(pauses({"perMinute": 1}), last) is None
