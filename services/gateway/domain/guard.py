"""The limits that protect a number and its recipients, and how much of them is used."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from shared.contracts.guard import Pauses, QuietHours, WarmUp, chance_of, day_of, midnight

_MOST: Final = 1_000_000


class Guard(BaseModel):
    """How many messages may go out in any minute, hour and day; zero: no limit.

    ``proxy`` is the URL by which the instance connects, sealed, since it may hold a password;
    ``proxy_shown`` is what may be seen of it. ``device_name`` is what the phone calls it. Nothing
    goes out in ``quiet_hours``; while there is a ``warm_up``, it reduces the limit of a day.
    There are ``pauses`` between two, and ``typing`` is shown before a text.
    """

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True
    )

    per_minute: int = Field(default=20, ge=0, le=_MOST)
    per_hour: int = Field(default=200, ge=0, le=_MOST)
    per_day: int = Field(default=1000, ge=0, le=_MOST)
    quiet_hours: QuietHours | None = None
    warm_up: WarmUp | None = None
    pauses: Pauses | None = None
    typing: bool = False
    proxy: str | None = Field(default=None, repr=False)
    proxy_shown: str | None = None
    device_name: str | None = None

    def limits(self, *, today: date) -> dict[str, int]:
        """What the limits are on a day of the organization's, by the names of their windows."""
        warm_up, per_day = self.warm_up, self.per_day
        return {
            "perMinute": self.per_minute,
            "perHour": self.per_hour,
            "perDay": per_day if warm_up is None else warm_up.limit(per_day, today=today),
        }

    @property
    def stored(self) -> dict[str, object]:
        """The guard as it is kept."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


WINDOWS: Final[Mapping[str, timedelta]] = {
    "perMinute": timedelta(minutes=1),
    "perHour": timedelta(hours=1),
    "perDay": timedelta(days=1),
}


@dataclass(frozen=True, slots=True)
class Used:
    """How much of one window is used. ``deciding`` is when that transmission was made which, when
    it leaves the window, makes room for one more; there is none while there is room.
    """

    count: int
    deciding: datetime | None


@dataclass(frozen=True, slots=True)
class Last:
    """The newest transmission; ``ended_at`` is nothing while it is in flight."""

    id: UUID
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class WindowUsage:
    """One limit: what is used of it and what remains; ``remaining`` is nothing without a limit."""

    limit: int
    used: int
    remaining: int | None


def usage_of(limit: int, used: int) -> WindowUsage:
    """How one limit stands."""
    return WindowUsage(limit, used, max(0, limit - used) if limit else None)


def next_slot(
    guard: Guard,
    used: Mapping[str, Used],
    *,
    last: Last | None,
    held_until: datetime | None,
    zone: str,
    now: datetime,
) -> datetime:
    """When the next message may go out: now, or when every full window has room again, the pause
    after the ``last`` is over and no quiet hours are.

    ``held_until`` is what WhatsApp itself said, when it asked to slow down. ``zone`` is the
    organization's.
    """
    slots = [
        _opens(guard, name, window, window.deciding + WINDOWS[name], zone=zone, now=now)
        for name, window in used.items()
        if window.deciding is not None
    ]
    if held_until is not None:
        slots.append(held_until)
    if guard.pauses is not None and last is not None:
        slots.append((last.ended_at or now) + guard.pauses.after(chance_of(last.id)))
    slot = max([now, *slots])
    return slot if guard.quiet_hours is None else guard.quiet_hours.over(slot, zone=zone)


def _opens(
    guard: Guard, name: str, window: Used, leaves: datetime, *, zone: str, now: datetime
) -> datetime:
    """When a full window has room: one ``leaves`` it, or a warm-up lets the limit grow before."""
    if name != "perDay" or guard.warm_up is None:
        return leaves
    day = guard.warm_up.grows_on(guard.per_day, today=day_of(now, zone=zone))
    if day is None or window.count >= guard.warm_up.limit(guard.per_day, today=day):
        return leaves
    return min(leaves, midnight(day, zone=zone))
