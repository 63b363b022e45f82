"""The smaller rules of the gateway."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from pydantic import SecretStr, ValidationError

from services.gateway.domain import engines
from services.gateway.domain.engines import ENGINES, Engine, EngineSettings, SandboxSettings
from services.gateway.domain.event_names import UnknownEventName, checked, selection
from services.gateway.domain.guard import Guard, Last, Used, WindowUsage, next_slot, usage_of
from services.gateway.domain.media_types import preferred
from services.gateway.domain.periods import calendar, days
from services.gateway.domain.plans import PLANS, month_at
from services.gateway.domain.principal import Scope
from services.gateway.domain.readiness import not_ready, takes_messages, was_paired
from services.gateway.domain.rooms import rooms_of, rooms_of_event
from shared.contracts.guard import Pauses, QuietHours, WarmUp
from shared.ids import new_id

NOW = datetime(2026, 1, 15, 12, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")
OFFERED = ("application/json", "image/png", "image/svg+xml")


@pytest.mark.parametrize(
    ("status", "connected", "takes"),
    [
        ("ready", True, True),
        ("disconnected", True, True),
        ("connecting", True, True),
        ("ready", False, False),
        ("disconnected", False, False),
        ("created", True, False),
        ("created", False, False),
        ("qr", True, False),
        ("pairing", True, False),
        ("logged_out", True, False),
        ("banned", True, False),
        ("failed", True, False),
    ],
)
def test_an_instance_takes_messages_while_it_is_or_will_be_ready_by_itself(
    status: str, connected: bool, takes: bool
) -> None:
    assert takes_messages(status, connected=connected) is takes


@pytest.mark.parametrize("status", ["created", "qr", "logged_out", "banned", "failed", "ready"])
def test_a_refusal_names_the_status_and_what_to_do(status: str) -> None:
    refusal = not_ready(status)
    assert refusal.code == "INSTANCE_NOT_READY"
    assert refusal.data == {"status": status}
    assert f"({status}); " in refusal.message


def test_only_what_was_paired_can_be_written_to() -> None:
    assert [status for status in ("created", "qr", "ready", "banned") if was_paired(status)] == [
        "ready"
    ]


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("application/json", "application/json"),
        ("*/*", "application/json"),
        ("image/png", "image/png"),
        ("image/svg+xml", "image/svg+xml"),
        ("image/*", "image/png"),
        ("image/png;q=0.5, image/svg+xml", "image/svg+xml"),
        ("text/html, image/png;q=0.9, */*;q=0.1", "image/png"),
        ("image/png;q=0, */*", "application/json"),
        ("image/png;q=nonsense", "application/json"),
        ("text/html", "application/json"),
        ("", "application/json"),
    ],
)
def test_the_form_that_the_caller_likes_best_is_chosen(accept: str, chosen: str) -> None:
    assert preferred(accept, OFFERED) == chosen


def test_families_and_names_of_events_are_told_apart() -> None:
    wanted = selection(["message.*", "test"])
    assert wanted.names == {"test"}
    assert wanted.families == {"message."}
    assert not wanted.everything


@pytest.mark.parametrize("patterns", [[], ["*"], ["*", "message.sent"]])
def test_nothing_named_and_a_star_mean_everything(patterns: list[str]) -> None:
    assert selection(patterns).everything


@pytest.mark.parametrize("pattern", ["message.snet", "message", "mess*", "", ".*", "x.*"])
def test_an_event_that_does_not_exist_is_refused_with_those_that_do(pattern: str) -> None:
    with pytest.raises(UnknownEventName, match=r"message\.received"):
        checked([pattern])


def test_the_sandbox_has_no_limits_and_others_have_the_contracts() -> None:
    assert ENGINES["sandbox"].guard == Guard(per_minute=0, per_hour=0, per_day=0)
    assert ENGINES["whatsmeow"].guard.stored == {
        "perMinute": 20,
        "perHour": 200,
        "perDay": 1000,
        "typing": False,
    }


def test_settings_of_the_sandbox_are_stored_as_the_session_service_reads_them() -> None:
    settings = SandboxSettings(auto_scan=False, unconfirmed_after=2)
    assert engines.stored(settings) == {
        "autoScan": False,
        "unconfirmedAfter": 2.0,
        "receipts": True,
        "autoRead": True,
    }
    assert engines.shown("sandbox", engines.stored(settings)) == engines.stored(settings)


def test_a_setting_that_an_engine_does_not_know_is_refused() -> None:
    with pytest.raises(ValidationError):
        SandboxSettings.model_validate({"autoscan": False})


def test_secret_settings_are_stored_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    class CloudSettings(EngineSettings):
        token: SecretStr
        spare: SecretStr | None = None
        number: str

    known = {**ENGINES, "cloud": Engine("cloud", CloudSettings, Guard(), frozenset())}
    monkeypatch.setattr(engines, "ENGINES", known)
    kept = engines.stored(CloudSettings.model_validate({"token": "s3cret", "number": "1"}))
    assert kept == {"token": "s3cret", "number": "1"}
    assert engines.shown("cloud", kept) == {"number": "1"}
    assert engines.shown("unheard-of", kept) == {}


def test_usage_of_a_limit_never_shows_less_than_nothing_left() -> None:
    assert usage_of(20, 3) == WindowUsage(20, 3, 17)
    assert usage_of(20, 25) == WindowUsage(20, 25, 0)
    assert usage_of(0, 25) == WindowUsage(0, 25, None)


def slot(
    used: Mapping[str, Used],
    guard: Guard | None = None,
    *,
    last: Last | None = None,
    held_until: datetime | None = None,
) -> datetime:
    return next_slot(guard or Guard(), used, last=last, held_until=held_until, zone="UTC", now=NOW)


def test_the_next_slot_is_when_every_full_window_has_room_again() -> None:
    minute = Used(2, NOW - timedelta(seconds=20))
    hour = Used(9, NOW - timedelta(minutes=10))
    free = Used(1, None)
    assert slot({"perMinute": free}) == NOW
    assert slot({"perMinute": minute}) == NOW + timedelta(seconds=40)
    both = {"perMinute": minute, "perHour": hour}
    assert slot(both) == NOW + timedelta(minutes=50)
    later = NOW + timedelta(hours=2)
    assert slot(both, held_until=later) == later
    assert slot({"perMinute": free}, held_until=NOW - timedelta(1)) == NOW


def test_a_slot_in_quiet_hours_is_at_their_end() -> None:
    begins, ends = NOW + timedelta(minutes=30), NOW + timedelta(hours=1)
    hours = QuietHours(from_=begins.strftime("%H:%M"), to=ends.strftime("%H:%M"))
    guard = Guard(quiet_hours=hours)
    hour = {"perHour": Used(9, NOW - timedelta(minutes=15))}
    assert slot({"perHour": Used(1, None)}, guard) == NOW
    assert slot(hour) == NOW + timedelta(minutes=45)
    assert slot(hour, guard) == ends


def test_a_full_day_of_a_warm_up_has_room_when_its_limit_grows() -> None:
    guard = Guard(per_day=100, warm_up=WarmUp(days=4, start=NOW.date(), from_=20))
    assert guard.limits(today=NOW.date())["perDay"] == 20
    tomorrow = NOW + timedelta(hours=12)
    assert slot({"perDay": Used(20, NOW)}, guard) == tomorrow
    assert slot({"perDay": Used(20, NOW - timedelta(hours=23))}, guard) == NOW + timedelta(hours=1)
    # It was set after so much had gone out that tomorrow's limit is used up as well.
    assert slot({"perDay": Used(40, NOW)}, guard) == NOW + timedelta(days=1)


def test_the_next_slot_is_after_the_pause_that_follows_the_last_message() -> None:
    guard = Guard(pauses=Pauses(min=60, max=60))
    last = Last(new_id(), NOW - timedelta(seconds=10))
    assert slot({}, last=last) == NOW
    assert slot({}, guard) == NOW
    assert slot({}, guard, last=last) == NOW + timedelta(seconds=50)
    assert slot({}, guard, last=Last(last.id, None)) == NOW + timedelta(seconds=60)
    assert slot({}, guard, last=Last(last.id, NOW - timedelta(hours=1))) == NOW


def test_a_month_is_the_calendars_in_the_zone() -> None:
    april = month_at(datetime(2026, 3, 31, 22, 30, tzinfo=UTC), BERLIN)
    assert april.first == date(2026, 4, 1)
    assert april.begins == datetime(2026, 3, 31, 22, tzinfo=UTC)
    assert april.ends == datetime(2026, 4, 30, 22, tzinfo=UTC)
    december = month_at(datetime(2026, 12, 5, tzinfo=UTC), ZoneInfo("UTC"))
    assert december.ends == datetime(2027, 1, 1, tzinfo=UTC)


def test_plans_are_those_of_the_contract() -> None:
    assert {name: (plan.instances, plan.messages) for name, plan in PLANS.items()} == {
        "basic": (5, 10_000),
        "pro": (20, 50_000),
        "max": (40, 100_000),
    }


def test_today_begins_at_midnight_in_the_zone_and_the_week_on_monday() -> None:
    found = calendar(datetime(2026, 2, 28, 23, 30, tzinfo=UTC), BERLIN)
    assert found.today == date(2026, 3, 1)
    assert found.week == date(2026, 2, 23)
    assert found.month == date(2026, 3, 1)


def test_a_range_has_both_its_ends() -> None:
    assert days(date(2026, 1, 30), date(2026, 2, 1)) == [
        date(2026, 1, 30),
        date(2026, 1, 31),
        date(2026, 2, 1),
    ]


def test_a_selection_takes_names_and_families() -> None:
    wanted = selection(["message.*", "test"])
    taken = [
        name for name in ("message.sent", "test", "instance.qr", "messages.x") if wanted.takes(name)
    ]
    assert taken == ["message.sent", "test"]
    assert selection(["*"]).takes("something.new")


def test_nobody_stands_where_more_is_told_than_they_may_see() -> None:
    tenant, own, other = new_id(), new_id(), new_id()
    everything, one, nothing = (
        Scope(tenant),
        Scope(tenant, frozenset({own})),
        Scope(tenant, frozenset()),
    )

    def hears(scope: Scope, instance: UUID | None, of: UUID = tenant) -> int:
        return len(rooms_of(scope).intersection(rooms_of_event(of, instance)))

    assert [hears(everything, at) for at in (own, other, None)] == [1, 1, 1]
    assert [hears(one, at) for at in (own, other, None)] == [1, 0, 0]
    assert [hears(nothing, at) for at in (own, other, None)] == [0, 0, 0]
    assert hears(everything, own, new_id()) == hears(one, own, new_id()) == 0
