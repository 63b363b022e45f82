"""When a breaker opens, when an endpoint is given up, and when it is back."""

from datetime import datetime, timedelta

import pytest

from services.webhooks.domain.delivery import Verdict, verdict_on
from services.webhooks.domain.health import Announcement, Health, after_attempt, revived
from tests.support.builders import NOON


def after(*verdicts: Verdict, health: Health | None = None, now: datetime = NOON) -> Health:
    found = health or Health()
    for verdict in verdicts:
        found, _ = after_attempt(found, verdict, probe=False, now=now)
    return found


def probed(health: Health, verdict: Verdict, *, now: datetime = NOON) -> Health:
    return after_attempt(health, verdict, probe=True, now=now)[0]


def test_five_timeouts_in_a_row_open_the_breaker_for_half_a_minute() -> None:
    assert after(*[Verdict.UNREACHABLE] * 4).opened == 0
    health = after(*[Verdict.UNREACHABLE] * 5)
    assert (health.opened, health.open_until) == (1, NOON + timedelta(seconds=30))


@pytest.mark.parametrize("verdict", [Verdict.DELIVERED, Verdict.FAILED, Verdict.THROTTLED])
def test_any_answer_breaks_the_row(verdict: Verdict) -> None:
    row = [Verdict.UNREACHABLE] * 4
    assert after(*row, verdict, *row).opened == 0


def test_what_was_never_called_says_nothing_about_reachability() -> None:
    assert after(*[Verdict.MISCONFIGURED] * 20).opened == 0
    row = [Verdict.UNREACHABLE] * 4
    assert after(*row, Verdict.MISCONFIGURED, Verdict.UNREACHABLE).opened == 1


def test_each_failed_probe_doubles_the_pause_up_to_ten_minutes() -> None:
    health = after(*[Verdict.UNREACHABLE] * 5)
    pauses = []
    for _ in range(6):
        health = probed(health, Verdict.UNREACHABLE)
        assert health.open_until is not None
        pauses.append((health.open_until - NOON).total_seconds())
    assert pauses == [60, 120, 240, 480, 600, 600]


def test_posts_that_were_under_way_when_it_opened_do_not_prolong_the_pause() -> None:
    health = after(*[Verdict.UNREACHABLE] * 40)
    assert (health.opened, health.open_until) == (1, NOON + timedelta(seconds=30))


@pytest.mark.parametrize("verdict", [Verdict.DELIVERED, Verdict.FAILED])
def test_a_probe_that_is_answered_closes_the_breaker(verdict: Verdict) -> None:
    health = probed(after(*[Verdict.UNREACHABLE] * 5), verdict)
    assert (health.opened, health.open_until) == (0, None)


def test_gone_disables_at_once() -> None:
    health, told = after_attempt(Health(), Verdict.GONE, probe=False, now=NOON)
    assert health.disabled_at == NOON
    assert told is Announcement.DISABLED


def test_failing_for_five_days_without_success_disables() -> None:
    failing = after(Verdict.FAILED)
    later = NOON + timedelta(hours=120)
    early = after(Verdict.FAILED, health=failing, now=later - timedelta(seconds=1))
    assert early.disabled_at is None
    health, told = after_attempt(failing, Verdict.FAILED, probe=False, now=later)
    assert health.disabled_at == later
    assert told is Announcement.DISABLED


def test_a_success_in_between_starts_the_five_days_anew() -> None:
    health = after(Verdict.FAILED, Verdict.DELIVERED)
    health = after(Verdict.FAILED, health=health, now=NOON + timedelta(hours=119))
    health = after(Verdict.FAILED, health=health, now=NOON + timedelta(hours=121))
    assert health.disabled_at is None


def test_nothing_is_announced_twice_about_a_disabled_endpoint() -> None:
    disabled = after(Verdict.GONE)
    for verdict in Verdict:
        assert after_attempt(disabled, verdict, probe=False, now=NOON) == (disabled, None)


@pytest.mark.parametrize(("failures", "told"), [(4, None), (5, Announcement.RECOVERED)])
def test_recovery_is_announced_after_repeated_failure(
    failures: int, told: Announcement | None
) -> None:
    health = after(*[Verdict.FAILED] * failures)
    recovered, said = after_attempt(health, Verdict.DELIVERED, probe=False, now=NOON)
    assert said is told
    assert recovered == Health(last_success_at=NOON)


def test_a_revived_endpoint_has_a_new_chance_and_announces_its_first_success() -> None:
    health = revived(after(Verdict.GONE))
    assert (health.disabled_at, health.failing_since, health.opened) == (None, None, 0)
    assert after_attempt(health, Verdict.DELIVERED, probe=False, now=NOON)[1] is (
        Announcement.RECOVERED
    )


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (200, Verdict.DELIVERED),
        (299, Verdict.DELIVERED),
        (301, Verdict.FAILED),
        (400, Verdict.FAILED),
        (410, Verdict.GONE),
        (429, Verdict.THROTTLED),
        (500, Verdict.FAILED),
        (503, Verdict.THROTTLED),
    ],
)
def test_statuses(status: int, verdict: Verdict) -> None:
    assert verdict_on(status) is verdict
