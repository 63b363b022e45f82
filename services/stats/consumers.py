"""What the statistics service does about the events it receives."""

from collections.abc import Collection, Sequence
from datetime import UTC, timedelta, tzinfo
from typing import Final
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from services.stats import store
from services.stats.domain.counting import (
    METRICS,
    NO_INSTANCE,
    Happening,
    Took,
    hourly,
    tally,
)
from services.stats.metrics import StatsMetrics
from shared.clock import Clock
from shared.contracts.envelope import Carried
from shared.db.database import Database, HotConnection
from shared.log import get_logger
from shared.messaging import inbox

log = get_logger()

# How long after a tenant has moved its days may still begin where they did.
ZONES_REMEMBERED: Final = timedelta(seconds=60)


class Consumers:
    """Counts. Inbox and counters change together or not at all, so repeats count nothing."""

    def __init__(self, *, database: Database, clock: Clock, metrics: StatsMetrics) -> None:
        self._database = database
        self._clock = clock
        self._metrics = metrics
        self._zones: dict[UUID, tuple[tzinfo, float]] = {}

    async def events(self, batch: Sequence[Carried]) -> None:
        """Count what of a batch has not been counted yet."""
        happenings = {
            event.id: Happening(
                event.id,
                event.tenant_id,
                event.instance_id or NO_INSTANCE,
                METRICS[event.name],
                event.time,
                message_id=_id(event.envelope.get("subject")),
                chat=str(event.envelope.get("partitionkey", "")),
            )
            for event in batch
            if event.name in METRICS
        }
        if not happenings:
            return
        now = self._clock.now()
        zones = await self._zones_of({one.tenant_id for one in happenings.values()})
        async with self._database.hot_tx() as connection:
            fresh = await inbox.fresh(connection, "stats", happenings, now=now)
            if fresh:
                new = [happenings[id_] for id_ in fresh]
                await store.add(connection, tally(new, zones))
                took = await self._took(connection, new)
                await store.add_hours(connection, hourly(new, took, zones))
        self._metrics.counted.inc(len(fresh))
        self._metrics.repeated.inc(len(happenings) - len(fresh))
        oldest = min(one.at for one in happenings.values())
        self._metrics.lag.set(max(0.0, (now - oldest).total_seconds()))

    async def _took(self, connection: HotConnection, new: Sequence[Happening]) -> Sequence[Took]:
        """How long deliveries and answers took that these events are the end of."""
        delivered = {
            one.message_id: one
            for one in new
            if one.metric == "delivered" and one.message_id is not None
        }
        received = [one for one in new if one.metric == "received"]
        sent = [one for one in new if one.metric == "sent"]
        took: list[Took] = []
        if delivered:
            sent_at = await store.sent_at(connection, delivered)
            took += [
                Took("delivery", one, max(one.at - sent_at[id_], timedelta(0)))
                for id_, one in delivered.items()
                if id_ in sent_at
            ]
        if received and sent:
            await store.lock_chats(connection, [*received, *sent])
        if received:
            await store.wait(connection, received)
        if sent:
            took += await store.answered(connection, sent)
        return took

    async def _zones_of(self, tenants: Collection[UUID]) -> dict[UUID, tzinfo]:
        now = self._clock.monotonic()
        known = self._zones
        missing = [id_ for id_ in tenants if id_ not in known or known[id_][1] <= now]
        if missing:
            async with self._database.hot() as connection:
                names = await store.time_zones(connection, missing)
            until = now + ZONES_REMEMBERED.total_seconds()
            for id_ in missing:
                known[id_] = (_zone(names.get(id_, "UTC")), until)
        return {id_: known[id_][0] for id_ in tenants}


def _zone(name: str) -> tzinfo:
    """The zone of this name; UTC if it is none, for its events are to be counted all the same."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        log.warning("time_zone_unknown", name=name)
        return UTC


def _id(subject: object) -> UUID | None:
    """The message that an event is about, if it names one of ours."""
    try:
        return UUID(str(subject))
    except ValueError:
        return None
