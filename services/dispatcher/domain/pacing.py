"""How many messages an instance may send now, and if none, when the next may go."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

from shared.contracts.guard import Pauses, QuietHours, WarmUp, chance_of, day_of, midnight

MINUTE: Final = timedelta(minutes=1)
HOUR: Final = timedelta(hours=1)
DAY: Final = timedelta(days=1)

# The guard's names for the windows; a limit of zero means none.
WINDOWS: Final[Mapping[str, timedelta]] = {"perMinute": MINUTE, "perHour": HOUR, "perDay": DAY}


@dataclass(frozen=True, slots=True)
class Limit:
    """At most ``count`` transmissions in any ``span``; more of them from ``grows_at`` on."""

    count: int
    span: timedelta
    grows_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """How much of a limit is used, and when the oldest transmission that counts was made.

    ``oldest`` is that of the newest ``limit.count`` transmissions: when it leaves the window, one
    more may go.
    """

    limit: Limit
    used: int
    oldest: datetime | None


class Cause(StrEnum):
    """What holds an instance back; the timeline says it."""

    LIMITS = "limits"
    WHATSAPP = "whatsapp"
    QUIET_HOURS = "quiet_hours"
    PAUSES = "pauses"


@dataclass(frozen=True, slots=True)
class Room:
    """``count`` may be transmitted now; if the guard allows none, the next one at ``next_slot``.

    ``cause`` is what allows none until then.
    """

    count: int
    next_slot: datetime | None = None
    cause: Cause | None = None


@dataclass(frozen=True, slots=True)
class Quiet:
    """The quiet hours of an instance, if it has any, and its organization's time zone."""

    hours: QuietHours | None
    zone: str

    def over(self, moment: datetime) -> datetime:
        """``moment``, or the end of the quiet hours that it lies in."""
        return moment if self.hours is None else self.hours.over(moment, zone=self.zone)


def quiet(guard: Mapping[str, object], *, zone: str) -> Quiet:
    """The quiet hours that an instance's guard sets."""
    hours = guard.get("quietHours")
    return Quiet(None if hours is None else QuietHours.model_validate(hours), zone)


def limits(guard: Mapping[str, object], *, zone: str, now: datetime) -> tuple[Limit, ...]:
    """The limits that an instance's guard sets; ``zone`` is its organization's."""
    found = []
    for name, span in WINDOWS.items():
        count = guard.get(name)
        if isinstance(count, int) and count > 0:
            limit = Limit(count, span)
            warm_up = guard.get("warmUp") if span == DAY else None
            found.append(limit if warm_up is None else _warmed(limit, warm_up, zone=zone, now=now))
    return tuple(found)


def _warmed(limit: Limit, warm_up: object, *, zone: str, now: datetime) -> Limit:
    rule = WarmUp.model_validate(warm_up)
    today = day_of(now, zone=zone)
    grows_on = rule.grows_on(limit.count, today=today)
    return Limit(
        rule.limit(limit.count, today=today),
        limit.span,
        None if grows_on is None else midnight(grows_on, zone=zone),
    )


@dataclass(frozen=True, slots=True)
class Last:
    """The newest transmission of an instance, and when it ended or, while it has not, began."""

    id: UUID
    at: datetime


def pauses(guard: Mapping[str, object]) -> Pauses | None:
    """The pauses that an instance's guard sets."""
    found = guard.get("pauses")
    return None if found is None else Pauses.model_validate(found)


def paused_until(wanted: Pauses | None, last: Last | None) -> datetime | None:
    """When the pause after the newest transmission is over, if there is one."""
    if wanted is None or last is None:
        return None
    return last.at + wanted.after(chance_of(last.id))


def room(
    usages: Sequence[Usage],
    *,
    in_flight: int,
    at_most_in_flight: int,
    throttled_until: datetime | None,
    paused_until: datetime | None,
    quiet: Quiet,
    now: datetime,
) -> Room:
    """What the guard, WhatsApp's own word and the number in flight allow at once."""
    held = _held(usages, throttled_until=throttled_until, paused_until=paused_until, now=now)
    slot = now if held.next_slot is None else held.next_slot
    over = quiet.over(slot)
    # What is free again during quiet hours waits for their end all the same.
    if over > slot:
        return Room(0, over, Cause.QUIET_HOURS)
    if held.next_slot is not None:
        return held
    free = [usage.limit.count - usage.used for usage in usages]
    return Room(max(0, min([at_most_in_flight - in_flight, *free])))


def _held(
    usages: Sequence[Usage],
    *,
    throttled_until: datetime | None,
    paused_until: datetime | None,
    now: datetime,
) -> Room:
    """Until when limits, pauses or WhatsApp allow nothing, if they do not now."""
    slots = [
        (_opens(usage, now=now), Cause.LIMITS)
        for usage in usages
        if usage.used >= usage.limit.count
    ]
    for until, cause in ((throttled_until, Cause.WHATSAPP), (paused_until, Cause.PAUSES)):
        if until is not None and until > now:
            slots.append((until, cause))
    if not slots:
        return Room(0)
    slot, cause = max(slots)
    return Room(0, slot, cause)


def _opens(usage: Usage, *, now: datetime) -> datetime:
    """When a full window has room again: its oldest leaves it, or the limit grows before."""
    leaves = now if usage.oldest is None else usage.oldest + usage.limit.span
    grows_at = usage.limit.grows_at
    return leaves if grows_at is None else min(leaves, grows_at)
