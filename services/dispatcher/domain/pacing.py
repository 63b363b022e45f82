"""How many messages an instance may send now, and if none, when the next may go."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

MINUTE: Final = timedelta(minutes=1)
HOUR: Final = timedelta(hours=1)
DAY: Final = timedelta(days=1)

# The guard's names for the windows; a limit of zero means none.
WINDOWS: Final[Mapping[str, timedelta]] = {"perMinute": MINUTE, "perHour": HOUR, "perDay": DAY}


@dataclass(frozen=True, slots=True)
class Limit:
    """At most ``count`` transmissions in any ``span``."""

    count: int
    span: timedelta


@dataclass(frozen=True, slots=True)
class Usage:
    """How much of a limit is used, and when the oldest transmission that counts was made.

    ``oldest`` is that of the newest ``limit.count`` transmissions: when it leaves the window, one
    more may go.
    """

    limit: Limit
    used: int
    oldest: datetime | None


@dataclass(frozen=True, slots=True)
class Room:
    """``count`` may be transmitted now; if limits allow none, the next one at ``next_slot``."""

    count: int
    next_slot: datetime | None = None


def limits(guard: Mapping[str, object]) -> tuple[Limit, ...]:
    """The limits that an instance's guard sets."""
    found = []
    for name, span in WINDOWS.items():
        count = guard.get(name)
        if isinstance(count, int) and count > 0:
            found.append(Limit(count, span))
    return tuple(found)


def room(
    usages: Sequence[Usage],
    *,
    in_flight: int,
    at_most_in_flight: int,
    throttled_until: datetime | None,
    now: datetime,
) -> Room:
    """What every limit, WhatsApp's own word and the number in flight allow at once."""
    if throttled_until is not None and throttled_until > now:
        return Room(0, throttled_until)
    full = [usage for usage in usages if usage.used >= usage.limit.count]
    if full:
        slots = [usage.oldest + usage.limit.span for usage in full if usage.oldest is not None]
        return Room(0, max(slots, default=now))
    free = [usage.limit.count - usage.used for usage in usages]
    return Room(max(0, min([at_most_in_flight - in_flight, *free])))
