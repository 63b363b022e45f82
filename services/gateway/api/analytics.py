"""What an instance has done, hour by hour, and how long it took."""

from datetime import date
from typing import Final
from zoneinfo import ZoneInfo

from aiohttp import web
from pydantic import Field

from services.gateway.api.lookup import instance_in_path
from services.gateway.domain.periods import bounds, calendar
from services.gateway.store import accounts, counters
from services.gateway.store.counters import Hour
from shared.clock import Clock
from shared.db.database import Database
from shared.errors import NotFound
from shared.web.body import invalid, read_query
from shared.web.envelope import respond
from shared.web.schemas import ApiModel, ApiView, Day, Instant

LONGEST: Final = 31


class AnalyticsQuery(ApiModel):
    """Days of the organization's time zone, both included; today, unless said otherwise."""

    start_date: Day | None = None
    end_date: Day | None = None


class AmountsView(ApiView):
    """How many messages."""

    sent: int
    delivered: int
    read: int
    failed: int
    received: int

    @classmethod
    def of(cls, counts: dict[str, int]) -> "AmountsView":
        return cls(**{name: counts.get(name, 0) for name in cls.model_fields})


class AveragesView(ApiView):
    """Rates are in percent of what was sent; times in seconds, null where nothing was timed.

    `deliveryTime` is from WhatsApp's taking a message to its being on the recipient's device,
    `responseTime` from a contact's first unanswered message to the next one sent to them.
    """

    sent_per_day: float
    received_per_day: float
    delivery_rate: float | None
    read_rate: float | None
    delivery_time: float | None = Field(examples=[1.4])
    response_time: float | None = Field(examples=[93.0])


class HourView(AmountsView):
    """One hour in which something happened."""

    hour: Instant


class AnalyticsView(ApiView):
    """What an instance has done between two days, hour by hour."""

    timezone: str = Field(examples=["Europe/Berlin"])
    start_date: date
    end_date: date
    totals: AmountsView
    averages: AveragesView
    hourly_data: list[HourView]


class Analytics:
    """``/api/instances/{id}/analytics``."""

    def __init__(self, *, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def of_instance(self, request: web.Request) -> web.StreamResponse:
        query = read_query(request, AnalyticsQuery)
        async with self._database.tx() as tx:
            instance = await instance_in_path(tx, request)
            organization = await accounts.organization(tx, instance.tenant_id)
            if organization is None:
                raise NotFound("The organization does not exist any more.")
            zone = ZoneInfo(organization.timezone)
            start, end = _range(query, today=calendar(self._clock.now(), zone).today)
            begin, until = bounds(start, end, zone)
            hours = await counters.by_hour(
                tx, instance.tenant_id, instance.id, begin=begin, until=until
            )
        totals = _totals(hours)
        return respond(
            AnalyticsView(
                timezone=organization.timezone,
                start_date=start,
                end_date=end,
                totals=AmountsView.of(totals),
                averages=_averages(totals, days=(end - start).days + 1),
                hourly_data=[
                    HourView(hour=hour.began, **AmountsView.of(hour.counts).model_dump())
                    for hour in hours
                ],
            )
        )


def _range(query: AnalyticsQuery, *, today: date) -> tuple[date, date]:
    end = query.end_date or today
    start = query.start_date or end
    if end < start:
        raise invalid({"endDate": "is before startDate; swap them"})
    if (end - start).days >= LONGEST:
        raise invalid({"startDate": f"is too early; a range has at most {LONGEST} days"})
    return start, end


def _totals(hours: list[Hour]) -> dict[str, int]:
    totals: dict[str, int] = {}
    for hour in hours:
        for metric, number in hour.counts.items():
            totals[metric] = totals.get(metric, 0) + number
    return totals


def _averages(totals: dict[str, int], *, days: int) -> AveragesView:
    sent = totals.get("sent", 0)
    return AveragesView(
        sent_per_day=round(sent / days, 2),
        received_per_day=round(totals.get("received", 0) / days, 2),
        delivery_rate=_ratio(totals.get("delivered", 0) * 100, sent),
        read_rate=_ratio(totals.get("read", 0) * 100, sent),
        delivery_time=_seconds(totals, "delivery"),
        response_time=_seconds(totals, "response"),
    )


def _seconds(totals: dict[str, int], what: str) -> float | None:
    return _ratio(totals.get(f"{what}_ms", 0) / 1000, totals.get(f"{what}_timed", 0))


def _ratio(part: float, whole: int) -> float | None:
    return round(part / whole, 2) if whole else None
