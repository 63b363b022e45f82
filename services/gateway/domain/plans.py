"""What an organization has paid for."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo


@dataclass(frozen=True, slots=True)
class Plan:
    """How many instances at a time, and how many messages in a calendar month."""

    name: str
    instances: int
    messages: int


PLANS: Final[Mapping[str, Plan]] = {
    plan.name: plan
    for plan in (Plan("basic", 5, 10_000), Plan("pro", 20, 50_000), Plan("max", 40, 100_000))
}


def month_of(now: datetime, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """When the calendar month of ``now`` began in ``zone``, and when the next one does; in UTC."""
    local = now.astimezone(zone)
    first = local.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    year, month = (local.year + 1, 1) if local.month == 12 else (local.year, local.month + 1)
    return first.astimezone(UTC), first.replace(year=year, month=month).astimezone(UTC)
