"""How much was sent and received."""

from datetime import date
from zoneinfo import ZoneInfo

from aiohttp import web
from pydantic import Field

from services.gateway.api.gate import PRINCIPAL
from services.gateway.domain.periods import LONGEST_RANGE, calendar, days
from services.gateway.domain.principal import scope_of
from services.gateway.store import accounts, counters
from services.gateway.store.counters import Counts
from shared.clock import Clock
from shared.db.database import Database
from shared.errors import NotFound
from shared.web.body import invalid, read_query
from shared.web.envelope import respond
from shared.web.schemas import ApiModel, ApiView, Day


class StatsQuery(ApiModel):
    """A range adds a row per day; without `endDate` it ends today."""

    start_date: Day | None = None
    end_date: Day | None = None


class CountsView(ApiView):
    """Messages sent and received."""

    sent: int
    received: int

    @classmethod
    def of(cls, counts: Counts) -> "CountsView":
        return cls(sent=counts.sent, received=counts.received)


class DayView(CountsView):
    """One day of the organization's time zone."""

    date: date


class RangeView(CountsView):
    """All days of a range together, and each by itself."""

    start_date: date
    end_date: date
    days: list[DayView]


class StatsView(ApiView):
    """Counts in the organization's time zone; weeks begin on Monday."""

    timezone: str = Field(examples=["Europe/Berlin"])
    today: CountsView
    this_week: CountsView
    this_month: CountsView
    total: CountsView
    range: RangeView | None = Field(default=None, exclude_if=lambda found: found is None)


class Stats:
    """``/api/stats``."""

    def __init__(self, *, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def get(self, request: web.Request) -> web.StreamResponse:
        query = read_query(request, StatsQuery)
        scope = scope_of(request[PRINCIPAL])
        async with self._database.tx() as tx:
            organization = await accounts.organization(tx, scope.tenant_id)
            if organization is None:
                raise NotFound("The organization does not exist any more.")
            now = calendar(self._clock.now(), ZoneInfo(organization.timezone))
            span = _range(query, today=now.today)
            totals = await counters.totals(tx, scope, now)
            by_day = {}
            if span is not None:
                by_day = await counters.by_day(tx, scope, start=span[0], end=span[1])
        return respond(
            StatsView(
                timezone=organization.timezone,
                today=CountsView.of(totals.today),
                this_week=CountsView.of(totals.this_week),
                this_month=CountsView.of(totals.this_month),
                total=CountsView.of(totals.total),
                range=None if span is None else _range_view(span, by_day),
            )
        )


def _range(query: StatsQuery, *, today: date) -> tuple[date, date] | None:
    if query.start_date is None:
        if query.end_date is not None:
            raise invalid({"startDate": "is missing; add it, since endDate is given"})
        return None
    end = query.end_date or today
    if end < query.start_date:
        raise invalid({"endDate": "is before startDate; swap them"})
    if (end - query.start_date).days >= LONGEST_RANGE:
        raise invalid({"startDate": f"is too early; a range has at most {LONGEST_RANGE} days"})
    return query.start_date, end


def _range_view(span: tuple[date, date], by_day: dict[date, Counts]) -> RangeView:
    start, end = span
    rows = [(day, by_day.get(day, Counts())) for day in days(start, end)]
    return RangeView(
        start_date=start,
        end_date=end,
        sent=sum(counts.sent for _, counts in rows),
        received=sum(counts.received for _, counts in rows),
        days=[
            DayView(date=day, sent=counts.sent, received=counts.received) for day, counts in rows
        ],
    )
