"""What an instance's guard asks of its pace beside limits: the dispatcher obeys it, the gateway
tells of it. Pure: time and chance come in as arguments.
"""

from datetime import UTC, date, datetime, time, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

from pydantic import Field

from shared.contracts.model import PublicContract


class QuietHours(PublicContract):
    """Between ``from_`` and ``to``, times of day as ``HH:MM``, nothing of the instance goes out.

    Over midnight where ``to`` is the earlier one. Without ``time_zone`` they are those of the
    organization's.
    """

    from_: str = Field(alias="from")
    to: str
    time_zone: str | None = None

    def over(self, moment: datetime, *, zone: str) -> datetime:
        """``moment`` itself, or the end of the quiet hours that it lies in.

        ``zone`` is the organization's. A time of day that a change of clocks skips or repeats means
        whichever of its two readings makes the quiet hours longer: in doubt nobody is woken.
        """
        there = ZoneInfo(self.time_zone or zone)
        begins, ends = time.fromisoformat(self.from_), time.fromisoformat(self.to)
        nights = timedelta(days=0 if begins < ends else 1)
        today = moment.astimezone(there).date()
        # In order, so that quiet hours that reach into the next day's are left after those.
        for day in (today - timedelta(days=1), today, today + timedelta(days=1)):
            first = min(_readings(day, begins, there))
            last = max(_readings(day + nights, ends, there))
            if first <= moment < last:
                moment = last
        return moment


class WarmUp(PublicContract):
    """A new number may not send all that it may send one day: ``from_`` messages on the first day,
    and each day as much more as makes it the whole limit ``days`` days after ``start``.
    """

    days: int
    start: date
    from_: int = Field(alias="from")

    def limit(self, per_day: int, *, today: date) -> int:
        """What is left of a limit today; never more than the limit itself, nor less than one."""
        done = (today - self.start).days
        if done >= self.days:
            return per_day
        grown = (per_day - self.from_) * max(0, done) // self.days
        return min(per_day, self.from_ + grown)

    def grows_on(self, per_day: int, *, today: date) -> date | None:
        """The first day after today on which the limit is a higher one."""
        now = self.limit(per_day, today=today)
        coming = (self.start + timedelta(days=done) for done in range(1, self.days + 1))
        return next(
            (day for day in coming if day > today and self.limit(per_day, today=day) > now), None
        )


class Pauses(PublicContract):
    """Between the end of one transmission and the next at least a pause, of ``min`` to ``max``
    seconds.
    """

    min: int
    max: int

    def after(self, chance: float) -> timedelta:
        """The pause that ``chance``, from 0 to 1, makes of it."""
        return timedelta(seconds=self.min + (self.max - self.min) * chance)


def chance_of(transmission_id: UUID) -> float:
    """A transmission's own number from 0 to 1, below 1: random as its id is, and the same for
    everybody who asks, so that no replica takes a pause for shorter than another does.
    """
    # The bits above these say of which version the id is.
    return (transmission_id.int & ((1 << 48) - 1)) / (1 << 48)


def day_of(moment: datetime, *, zone: str) -> date:
    """What day it is there."""
    return moment.astimezone(ZoneInfo(zone)).date()


def midnight(day: date, *, zone: str) -> datetime:
    """When a day begins there."""
    return datetime.combine(day, time(), ZoneInfo(zone)).astimezone(UTC)


def _readings(day: date, at: time, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """A time of day before and after a change of the clocks; nearly always they are the same."""
    local = datetime.combine(day, at, zone)
    return local.astimezone(UTC), local.replace(fold=1).astimezone(UTC)
