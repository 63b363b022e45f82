"""Health: what is reported when checks pass, fail, hang, or when the service is stopping."""

import asyncio
from datetime import timedelta

import pytest

from shared import health
from shared.errors import Transient
from shared.health import Health, Report
from tests.support.clock import HandClock


async def fine() -> None:
    """A check that passes."""


async def failing() -> None:
    """A check that fails."""
    raise Transient("not connected")


async def hanging() -> None:
    """A check that never returns."""
    await asyncio.Event().wait()


@pytest.fixture
def checked() -> Health:
    return Health(HandClock())


async def test_a_service_without_checks_is_ready(checked: Health) -> None:
    assert await checked.ready() == Report("up", {})


async def test_one_failing_check_makes_all_of_it_unready_and_says_why(checked: Health) -> None:
    checked.add("database", fine)
    checked.add("broker", failing)
    assert await checked.ready() == Report("down", {"database": "up", "broker": "not connected"})


async def test_a_check_that_is_not_required_is_told_and_changes_nothing(checked: Health) -> None:
    checked.add("database", fine)
    checked.add("broker", failing, required=False)
    assert await checked.ready() == Report("up", {"database": "up", "broker": "not connected"})


async def test_a_check_that_hangs_fails_after_a_few_seconds(
    checked: Health, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "CHECK_TIMEOUT", timedelta(milliseconds=10))
    checked.add("database", hanging)
    checked.add("broker", fine)
    report = await checked.ready()
    assert report == Report("down", {"database": "no answer within 0 s", "broker": "up"})


def test_a_check_is_given_up_before_a_probe_gives_up() -> None:
    # The manifests give probes four seconds or more.
    assert timedelta(seconds=4) > health.CHECK_TIMEOUT


async def test_checks_run_at_once(checked: Health) -> None:
    both = asyncio.Barrier(2)

    async def meeting() -> None:
        await both.wait()

    checked.add("one", meeting)
    checked.add("other", meeting)
    async with asyncio.timeout(2):
        assert (await checked.ready()).status == "up"


async def test_a_service_that_is_stopping_is_not_ready_whatever_its_checks_say(
    checked: Health,
) -> None:
    checked.add("database", fine)
    checked.stop()
    assert await checked.ready() == Report("down", {"database": "up", "process": "stopping"})


async def test_a_check_that_recovers_makes_the_service_ready_again(checked: Health) -> None:
    checked.add("broker", failing)
    assert (await checked.ready()).status == "down"
    checked.add("broker", fine)
    assert (await checked.ready()).status == "up"


def test_uptime_is_told_by_the_clock() -> None:
    clock = HandClock()
    checked = Health(clock)
    clock.move(timedelta(minutes=3))
    assert checked.uptime == timedelta(minutes=3)
