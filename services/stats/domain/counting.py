"""From events to counters: what each counts as, and the day and hour in which it happened."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Final
from uuid import UUID

from shared.ids import id_of

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
# The same by the hour, the instance before the hour.
HourKey = tuple[UUID, UUID, datetime, str]


@dataclass(frozen=True, slots=True)
class Happening:
    """One event as far as counting is concerned. ``chat`` is where it happened."""

    id: UUID
    tenant_id: UUID
    instance_id: UUID
    metric: str
    at: datetime
    message_id: UUID | None = None
    chat: str = ""

    @property
    def chat_id(self) -> UUID:
        """The chat by an id, because nobody's number needs to stand among statistics."""
        return id_of("chat", self.instance_id, self.chat)


@dataclass(frozen=True, slots=True)
class Took:
    """How long something took that ended with this event: ``delivery`` or ``response``."""

    what: str
    happening: Happening
    time: timedelta


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


def hourly(
    happenings: Iterable[Happening], took: Iterable[Took], zones: Mapping[UUID, tzinfo]
) -> dict[HourKey, int]:
    """How much each counter of an hour grows: counts, and durations with how many there were.

    An hour begins with the hour of the tenant's clocks, which is not everywhere that of UTC.
    """
    counted: Counter[HourKey] = Counter((*_place(one, zones), one.metric) for one in happenings)
    for one in took:
        place = _place(one.happening, zones)
        counted[*place, f"{one.what}_ms"] += round(one.time / timedelta(milliseconds=1))
        counted[*place, f"{one.what}_timed"] += 1
    return dict(sorted(counted.items()))


def _place(one: Happening, zones: Mapping[UUID, tzinfo]) -> tuple[UUID, UUID, datetime]:
    local = one.at.astimezone(zones[one.tenant_id])
    began = one.at - timedelta(
        minutes=local.minute, seconds=local.second, microseconds=local.microsecond
    )
    return one.tenant_id, one.instance_id, began.astimezone(UTC)
