"""What counts as what, on which day."""

from datetime import UTC, date, datetime, tzinfo
from zoneinfo import ZoneInfo

import pytest

from services.stats.domain.counting import Happening, tally
from shared.ids import new_id

TENANT, INSTANCE = new_id(), new_id()


def a_happening(at: datetime, metric: str = "sent") -> Happening:
    return Happening(new_id(), TENANT, INSTANCE, metric, at)


def days(zone: tzinfo, *moments: datetime) -> dict[date, int]:
    counted = tally([a_happening(at) for at in moments], {TENANT: zone})
    return {key[1]: number for key, number in counted.items()}


@pytest.mark.parametrize(
    ("zone", "day"),
    [
        ("UTC", date(2026, 3, 28)),
        ("Europe/Berlin", date(2026, 3, 29)),
        ("America/Los_Angeles", date(2026, 3, 28)),
        ("Pacific/Kiritimati", date(2026, 3, 29)),
    ],
)
def test_a_day_is_the_tenants(zone: str, day: date) -> None:
    assert days(ZoneInfo(zone), datetime(2026, 3, 28, 23, 30, tzinfo=UTC)) == {day: 1}


def test_the_short_and_the_long_day_of_summer_time_count_all_their_hours() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    spring = [datetime(2026, 3, 28 + hour // 24, hour % 24, tzinfo=UTC) for hour in range(20, 48)]
    assert days(berlin, *spring)[date(2026, 3, 29)] == 23
    autumn = [datetime(2026, 10, 24 + hour // 24, hour % 24, tzinfo=UTC) for hour in range(20, 50)]
    assert days(berlin, *autumn)[date(2026, 10, 25)] == 25


def test_counters_come_sorted() -> None:
    tenants = [new_id() for _ in range(5)]
    happenings = [
        Happening(new_id(), tenant, INSTANCE, metric, datetime(2026, 1, day, tzinfo=UTC))
        for tenant in reversed(tenants)
        for metric in ("sent", "read")
        for day in (2, 1)
    ]
    counted = list(tally(happenings, dict.fromkeys(tenants, UTC)))
    assert counted == sorted(counted)
    assert len(counted) == 20
