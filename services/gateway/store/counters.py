"""What the statistics service has counted."""

from dataclasses import dataclass
from datetime import date, datetime
from uuid import UUID

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from services.gateway.domain.periods import RECEIVED, SENT, Calendar
from services.gateway.domain.principal import Scope
from shared.db.tables.stats import DailyCounterRow, HourlyCounterRow


@dataclass(frozen=True, slots=True)
class Counts:
    """Messages sent and received."""

    sent: int = 0
    received: int = 0


@dataclass(frozen=True, slots=True)
class Hour:
    """What was counted in one hour, by metric."""

    began: datetime
    counts: dict[str, int]


@dataclass(frozen=True, slots=True)
class Totals:
    """Counts by how far back they reach."""

    today: Counts
    this_week: Counts
    this_month: Counts
    total: Counts


async def totals(tx: AsyncConnection, scope: Scope, calendar: Calendar) -> Totals:
    """How many messages were sent and received today, this week, this month and ever."""
    counted = DailyCounterRow.count
    day = DailyCounterRow.day
    rows = await tx.execute(
        select(
            DailyCounterRow.metric,
            func.coalesce(func.sum(counted).filter(day == calendar.today), 0),
            func.coalesce(func.sum(counted).filter(day >= calendar.week), 0),
            func.coalesce(func.sum(counted).filter(day >= calendar.month), 0),
            func.sum(counted),
        )
        .where(*_visible(scope))
        .group_by(DailyCounterRow.metric)
    )
    by_metric = {metric: [int(value) for value in values] for metric, *values in rows}
    nothing = [0, 0, 0, 0]
    pairs = zip(by_metric.get(SENT, nothing), by_metric.get(RECEIVED, nothing), strict=True)
    return Totals(*(Counts(sent, received) for sent, received in pairs))


async def by_day(
    tx: AsyncConnection, scope: Scope, *, start: date, end: date
) -> dict[date, Counts]:
    """The counts of each day of a range on which there was anything."""
    rows = await tx.execute(
        select(DailyCounterRow.day, DailyCounterRow.metric, func.sum(DailyCounterRow.count))
        .where(*_visible(scope), DailyCounterRow.day.between(start, end))
        .group_by(DailyCounterRow.day, DailyCounterRow.metric)
    )
    found: dict[date, dict[str, int]] = {}
    for day, metric, counted in rows:
        found.setdefault(day, {})[metric] = int(counted)
    return {
        day: Counts(sent=metrics.get(SENT, 0), received=metrics.get(RECEIVED, 0))
        for day, metrics in found.items()
    }


def _visible(scope: Scope) -> list[ColumnElement[bool]]:
    conditions = [
        DailyCounterRow.tenant_id == scope.tenant_id,
        DailyCounterRow.metric.in_((SENT, RECEIVED)),
    ]
    if scope.instances is not None:
        conditions.append(DailyCounterRow.instance_id.in_(scope.instances))
    return conditions


async def by_hour(
    tx: AsyncConnection, tenant_id: UUID, instance_id: UUID, *, begin: datetime, until: datetime
) -> list[Hour]:
    """What was counted for an instance in each hour in which something was."""
    rows = await tx.execute(
        select(HourlyCounterRow.hour, HourlyCounterRow.metric, HourlyCounterRow.count)
        .where(
            HourlyCounterRow.tenant_id == tenant_id,
            HourlyCounterRow.instance_id == instance_id,
            HourlyCounterRow.hour >= begin,
            HourlyCounterRow.hour < until,
        )
        .order_by(HourlyCounterRow.hour)
    )
    hours: dict[datetime, dict[str, int]] = {}
    for began, metric, number in rows:
        hours.setdefault(began, {})[metric] = number
    return [Hour(began, counts) for began, counts in hours.items()]
