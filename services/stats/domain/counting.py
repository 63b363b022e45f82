"""From events to counters: what each counts as, and the day on which it happened."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, tzinfo
from typing import Final
from uuid import UUID

METRICS: Final[Mapping[str, str]] = {
    "message.received": "received",
    "message.sent": "sent",
    "message.delivered": "delivered",
    "message.read": "read",
    "message.failed": "failed",
}
# For an event that names no instance.
NO_INSTANCE: Final = UUID(int=0)

Key = tuple[UUID, date, UUID, str]


@dataclass(frozen=True, slots=True)
class Happening:
    """One event as far as counting is concerned."""

    id: UUID
    tenant_id: UUID
    instance_id: UUID
    metric: str
    at: datetime


def tally(happenings: Iterable[Happening], zones: Mapping[UUID, tzinfo]) -> dict[Key, int]:
    """How much each counter grows: by tenant, day in the tenant's zone, instance and metric.

    Counters come sorted: two consumers that update the same ones in different orders deadlock.
    """
    counted: Counter[Key] = Counter(
        (
            one.tenant_id,
            one.at.astimezone(zones[one.tenant_id]).date(),
            one.instance_id,
            one.metric,
        )
        for one in happenings
    )
    return dict(sorted(counted.items()))
