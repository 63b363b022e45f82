"""What an organization has paid for."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Final
from zoneinfo import ZoneInfo

from shared.contracts.model import rfc3339
from shared.errors import Rejected

# The part of a month's messages at which the tenant is warned.
WARN_AT: Final = 0.8

# These change or answer a message that is there already, so they count against nothing.
FREE: Final = frozenset({"reaction", "edit", "revoke"})


class QuotaExceeded(Rejected):
    """The plan allows no more."""

    code = "QUOTA_EXCEEDED"


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


@dataclass(frozen=True, slots=True)
class Month:
    """A calendar month of a tenant: its first day there, and when it begins and ends."""

    first: date
    begins: datetime
    ends: datetime


def month_at(now: datetime, zone: ZoneInfo) -> Month:
    """The month of ``now`` in ``zone``; its beginning and end are in UTC."""
    local = now.astimezone(zone)
    begins = local.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    year, month = (local.year + 1, 1) if local.month == 12 else (local.year, local.month + 1)
    ends = begins.replace(year=year, month=month)
    return Month(begins.date(), begins.astimezone(UTC), ends.astimezone(UTC))


def warn_from(plan: Plan) -> int:
    """With how many messages accepted a tenant is to be warned."""
    return math.ceil(plan.messages * WARN_AT)


def no_more_messages(plan: Plan, *, used: int, resets_at: datetime) -> QuotaExceeded:
    """What to tell whoever wanted to send one more."""
    until = rfc3339(resets_at)
    return QuotaExceeded(
        f"The plan {plan.name} has {plan.messages} messages a month, and they are used up; wait"
        f" until {until}, or ask for a larger plan.",
        data={"used": used, "limit": plan.messages, "resetsAt": until},
    )
