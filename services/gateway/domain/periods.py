"""Days, weeks and months as the organization's calendar has them."""

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

LONGEST_RANGE: Final = 366

# The statistics service counts one for each event, under these names.
SENT: Final = "sent"
RECEIVED: Final = "received"


@dataclass(frozen=True, slots=True)
class Calendar:
    """Today, and when its week (Monday is first) and its month began."""

    today: date
    week: date
    month: date


def calendar(now: datetime, zone: ZoneInfo) -> Calendar:
    """The calendar at ``now`` in ``zone``."""
    today = now.astimezone(zone).date()
    return Calendar(
        today=today, week=today - timedelta(days=today.weekday()), month=today.replace(day=1)
    )


def days(start: date, end: date) -> list[date]:
    """Every day from ``start`` to ``end``, both included."""
    return [start + timedelta(days=offset) for offset in range((end - start).days + 1)]


def bounds(start: date, end: date, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """When the first of these days begins in ``zone``, and when the last has ended."""
    midnight = time()
    return (
        datetime.combine(start, midnight, zone),
        datetime.combine(end + timedelta(days=1), midnight, zone),
    )
