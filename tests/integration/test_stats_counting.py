"""Every event is counted once, on its own day, whatever order and however often it comes."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from services.stats.app import build
from services.stats.consumers import Consumers
from services.stats.loops import Forgetting
from services.stats.metrics import StatsMetrics
from services.stats.settings import StatsSettings
from shared.broker.memory import MemoryBroker
from shared.broker.port import Outgoing
from shared.broker.topology import BATCHES, TOPOLOGY, Topology
from shared.contracts import envelope
from shared.contracts.content import Identity, Text
from shared.contracts.envelope import Emitted
from shared.contracts.events import MessageDelivered, MessageRead, MessageReceived, MessageSent
from shared.db.database import Database
from shared.errors import Transient
from shared.health import Health
from shared.ids import id_of
from shared.runtime.service import Platform
from tests.support.builders import NOON, a_message_row, an_instance, an_organization
from tests.support.clock import HandClock
from tests.support.eventually import eventually
from tests.support.webhooks import a_sent_event, an_event

SECOND = timedelta(seconds=1)
TENANT = UUID(int=7)


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
async def sql(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with Database.open(database_url, role="waypost_stats") as opened:
        yield opened


@pytest.fixture
def consumers(database: Database, clock: HandClock) -> Consumers:
    return a_consumer(database, clock)


def a_consumer(database: Database, clock: HandClock) -> Consumers:
    return Consumers(database=database, clock=clock, metrics=StatsMetrics(CollectorRegistry()))


def a_received() -> MessageReceived:
    return MessageReceived(
        message_id=str(UUID(int=1)),
        from_="+12025550199",
        to="+12025550000",
        message_type="text",
        timestamp=NOON,
        identity=Identity(chat_id="12025550199@s.whatsapp.net", phone="+12025550199"),
        content=Text(text="Hello"),
        engine_message_id="3EB0",
    )


async def count(consumers: Consumers, events: Sequence[Emitted]) -> None:
    body = envelope.join([envelope.encode(event) for event in events])
    await consumers.events(envelope.carried_batch(body))


async def counters(sql: asyncpg.Connection) -> dict[tuple[date, str], int]:
    rows = await sql.fetch(
        "SELECT day, metric, sum(count)::int FROM stats.daily_counters GROUP BY 1, 2"
    )
    return {(row[0], row[1]): row[2] for row in rows}


@asynccontextmanager
async def broken_counters(sql: asyncpg.Connection) -> AsyncIterator[None]:
    await sql.execute("REVOKE UPDATE ON stats.daily_counters FROM waypost_stats")
    yield
    await sql.execute("GRANT UPDATE ON stats.daily_counters TO waypost_stats")


async def test_an_event_is_counted_once_however_often_it_comes(
    consumers: Consumers, sql: asyncpg.Connection
) -> None:
    event = a_sent_event()
    await count(consumers, [event, event])
    await count(consumers, [event, a_sent_event(), event])
    assert await counters(sql) == {(NOON.date(), "sent"): 2}


async def test_the_order_of_events_makes_no_difference(
    database: Database, sql: asyncpg.Connection, clock: HandClock
) -> None:
    shuffled = random.Random(3)  # noqa: S311 - the same disorder every time
    tenant = await an_organization(sql, timezone="Asia/Kolkata")
    events = [
        a_sent_event(tenant_id=tenant, time=NOON + timedelta(hours=hour)) for hour in range(60)
    ]
    found = []
    for _ in range(3):
        await sql.execute("TRUNCATE stats.inbox, stats.daily_counters")
        shuffled.shuffle(events)
        consumer = a_consumer(database, clock)
        for start in range(0, 60, 7):
            await count(consumer, events[start : start + 7])
        found.append(await counters(sql))
    assert found[0] == found[1] == found[2]
    assert sum(found[0].values()) == 60


async def test_consumers_with_overlapping_batches_do_not_deadlock_and_count_exactly(
    database: Database, sql: asyncpg.Connection, clock: HandClock
) -> None:
    shuffled = random.Random(5)  # noqa: S311 - the same disorder every time
    tenants = [await an_organization(sql) for _ in range(5)]
    events = [a_sent_event(tenant_id=tenant) for tenant in tenants for _ in range(80)]
    consumer = [a_consumer(database, clock) for _ in range(4)]
    for _ in range(5):
        batches = [shuffled.sample(events, 300) for _ in consumer]
        await asyncio.gather(
            *(count(one, batch) for one, batch in zip(consumer, batches, strict=True))
        )
    await count(consumer[0], events)
    assert await counters(sql) == {(NOON.date(), "sent"): 400}
    assert await sql.fetchval("SELECT count(*) FROM stats.inbox") == 400


async def test_consumers_that_meet_at_answered_chats_do_not_deadlock(
    database: Database, sql: asyncpg.Connection, clock: HandClock
) -> None:
    instances = {UUID(int=n): id_of("chat", UUID(int=n), "ada") for n in range(1, 4)}
    first, one, other = sorted(instances, key=lambda each: instances[each])

    def at(
        seconds: int, kind: type[MessageReceived | MessageSent], instance: UUID, day: int = 0
    ) -> Emitted:
        place: dict[str, Any] = {
            "partition_key": "ada",
            "time": NOON + timedelta(days=day, seconds=seconds),
            "tenant_id": TENANT,
            "instance_id": instance,
        }
        return a_sent_event(**place) if kind is MessageSent else an_event(a_received(), **place)

    await count(a_consumer(database, clock), [at(0, MessageReceived, id_) for id_ in instances])
    # On days of their own, so that they meet at no counter.
    batches = [
        [
            at(5, MessageReceived, got, day),
            at(9, MessageSent, first, day),
            at(9, MessageSent, to, day),
        ]
        for day, (got, to) in enumerate([(one, other), (other, one)], start=1)
    ]
    async with asyncio.TaskGroup() as tasks, database.hot_tx() as connection:
        await connection.execute(
            "SELECT FROM stats.unanswered WHERE id = $1 FOR UPDATE", instances[first]
        )
        for batch in batches:
            tasks.create_task(count(a_consumer(database, clock), batch), name="count")
        await _blocked(sql, len(batches))
    assert await sql.fetchval("SELECT count(*) FROM stats.inbox") == 3 + 6
    assert await sql.fetchval("SELECT count(*) FROM stats.unanswered") <= 1


async def _blocked(sql: asyncpg.Connection, many: int) -> None:
    """Return once so many wait for what another transaction has locked."""

    async def waiting() -> bool:
        found: int = await sql.fetchval(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return found >= many

    await eventually(waiting)


async def test_days_begin_where_the_tenant_is(
    consumers: Consumers, sql: asyncpg.Connection, clock: HandClock
) -> None:
    tenant = await an_organization(sql, timezone="America/New_York")
    late = datetime(2026, 3, 8, 4, 59, 59, tzinfo=UTC)  # the night in which summer time begins
    await count(consumers, [a_sent_event(tenant_id=tenant, time=late)])
    await count(consumers, [a_sent_event(tenant_id=tenant, time=late + timedelta(seconds=1))])
    assert await counters(sql) == {(date(2026, 3, 7), "sent"): 1, (date(2026, 3, 8), "sent"): 1}
    await sql.execute("UPDATE gateway.organizations SET timezone = 'UTC'")
    clock.move(timedelta(seconds=60))
    await count(consumers, [a_sent_event(tenant_id=tenant, time=late)])
    assert (await counters(sql))[date(2026, 3, 8), "sent"] == 2


@pytest.mark.parametrize("zone", ["Nowhere/Land", "../etc/passwd", ""])
async def test_a_zone_that_is_none_counts_as_utc(
    consumers: Consumers, sql: asyncpg.Connection, zone: str
) -> None:
    tenant = await an_organization(sql, timezone=zone)
    await count(consumers, [a_sent_event(tenant_id=tenant)])
    assert await counters(sql) == {(NOON.date(), "sent"): 1}


async def test_a_late_event_counts_on_the_day_on_which_it_happened(
    consumers: Consumers, sql: asyncpg.Connection, clock: HandClock
) -> None:
    clock.move(timedelta(days=3))
    await count(consumers, [a_sent_event(time=NOON)])
    assert await counters(sql) == {(NOON.date(), "sent"): 1}


async def test_if_counting_fails_nothing_is_recorded_and_the_event_counts_later(
    consumers: Consumers, sql: asyncpg.Connection
) -> None:
    events = [a_sent_event() for _ in range(3)]
    async with broken_counters(sql):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await count(consumers, events)
    assert await sql.fetchval("SELECT count(*) FROM stats.inbox") == 0
    await count(consumers, events)
    assert await counters(sql) == {(NOON.date(), "sent"): 3}


async def test_a_database_that_went_away_is_worth_another_try(
    consumers: Consumers, sql: asyncpg.Connection
) -> None:
    await count(consumers, [a_sent_event()])
    await sql.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'waypost' AND datname = current_database()"
    )
    event = a_sent_event()
    try:
        await count(consumers, [event])
    except Transient:
        await count(consumers, [event])
    assert await counters(sql) == {(NOON.date(), "sent"): 2}


async def test_the_service_counts_what_the_broker_brings_by_metric_and_instance(
    database_url: str, database: Database, sql: asyncpg.Connection, clock: HandClock
) -> None:
    tenant = await an_organization(sql)
    instances = [await an_instance(sql, tenant) for _ in range(2)]
    mine = tuple(b for b in TOPOLOGY.bindings if b.queue == "stats.events")
    broker = MemoryBroker(Topology(TOPOLOGY.exchanges, TOPOLOGY.queues, mine), raise_failures=True)
    platform = Platform(
        database=database,
        broker=broker,
        clock=clock,
        registry=CollectorRegistry(),
        health=Health(clock),
    )
    settings = StatsSettings(
        database_url=SecretStr(database_url), amqp_url=SecretStr("amqp://unused"), port=0
    )
    (subscription,) = build(settings, platform).subscriptions
    async with broker.subscribe(subscription):
        for kind in (MessageSent, MessageDelivered, MessageRead):
            events = [
                a_sent_event(kind=kind, tenant_id=tenant, instance_id=id_)
                for id_ in (*instances, instances[0])
            ]
            body = envelope.join([envelope.encode(event) for event in events])
            await broker.publish([Outgoing(BATCHES, kind.TYPE, body, kind.TYPE, kind.TYPE)])
    rows = await sql.fetch("SELECT instance_id, metric, count FROM stats.daily_counters")
    assert {(UUID(str(row[0])), row[1]): row[2] for row in rows} == {
        (id_, metric): number
        for id_, number in zip(instances, (2, 1), strict=True)
        for metric in ("sent", "delivered", "read")
    }


async def test_the_inbox_forgets_after_eight_days_and_counters_stay(
    consumers: Consumers, database: Database, sql: asyncpg.Connection, clock: HandClock
) -> None:
    forgetting = Forgetting(
        database=database,
        clock=clock,
        metrics=StatsMetrics(CollectorRegistry()),
        kept=timedelta(days=8),
        hours_kept=timedelta(days=90),
    )
    await count(consumers, [a_sent_event()])
    clock.move(timedelta(days=8))
    await forgetting.step()
    assert await sql.fetchval("SELECT count(*) FROM stats.inbox") == 1
    clock.move(timedelta(seconds=1))
    assert await forgetting.step() is False
    assert await sql.fetchval("SELECT count(*) FROM stats.inbox") == 0
    assert await counters(sql) == {(NOON.date(), "sent"): 1}


async def hours(sql: asyncpg.Connection) -> dict[tuple[datetime, str], int]:
    rows = await sql.fetch(
        "SELECT hour, metric, sum(count)::int FROM stats.hourly_counters GROUP BY 1, 2"
    )
    return {(row[0], row[1]): row[2] for row in rows}


async def test_an_hour_begins_with_the_tenants_clocks_and_counts_once(
    consumers: Consumers, sql: asyncpg.Connection
) -> None:
    tenant = await an_organization(sql, timezone="Asia/Kolkata")
    events = [
        a_sent_event(tenant_id=tenant, time=NOON + timedelta(minutes=minutes))
        for minutes in (0, 29, 30)
    ]
    await count(consumers, events)
    await count(consumers, events)
    before, after = (NOON.replace(hour=11, minute=30), NOON.replace(hour=12, minute=30))
    assert await hours(sql) == {(before, "sent"): 2, (after, "sent"): 1}


async def test_how_long_a_delivery_took_is_counted_once(
    consumers: Consumers, sql: asyncpg.Connection
) -> None:
    tenant = await an_organization(sql)
    instance = await an_instance(sql, tenant)
    message = await a_message_row(sql, tenant, instance, status="delivered")
    await sql.execute("UPDATE dispatcher.messages SET sent_at = $1", NOON)
    event = a_sent_event(
        kind=MessageDelivered, message_id=message, tenant_id=tenant, time=NOON + SECOND * 1.5
    )
    unknown = a_sent_event(kind=MessageDelivered, tenant_id=tenant)
    for _ in range(2):
        await count(consumers, [event, unknown])
    assert await hours(sql) == {
        (NOON, "delivered"): 2,
        (NOON, "delivery_ms"): 1500,
        (NOON, "delivery_timed"): 1,
    }


async def test_an_answer_is_timed_from_the_first_message_that_had_none(
    consumers: Consumers, sql: asyncpg.Connection
) -> None:
    def at(seconds: int, kind: type[MessageReceived | MessageSent], chat: str = "ada") -> Emitted:
        place: dict[str, Any] = {
            "partition_key": chat,
            "time": NOON + SECOND * seconds,
            "tenant_id": TENANT,
        }
        return a_sent_event(**place) if kind is MessageSent else an_event(a_received(), **place)

    await count(consumers, [at(20, MessageReceived), at(10, MessageReceived)])
    await count(consumers, [at(5, MessageReceived, "bob"), at(0, MessageSent)])
    assert not [metric for _, metric in await hours(sql) if metric.startswith("response")]
    answers = [at(40, MessageSent), at(30, MessageSent)]
    for _ in range(2):
        await count(consumers, answers)
    assert (await hours(sql))[NOON, "response_ms"] == 20_000
    assert (await hours(sql))[NOON, "response_timed"] == 1
    assert await sql.fetchval("SELECT count(*) FROM stats.unanswered") == 1


async def test_hours_are_forgotten_after_their_time_and_days_stay(
    consumers: Consumers, database: Database, sql: asyncpg.Connection, clock: HandClock
) -> None:
    forgetting = Forgetting(
        database=database,
        clock=clock,
        metrics=StatsMetrics(CollectorRegistry()),
        kept=timedelta(days=8),
        hours_kept=timedelta(days=90),
    )
    await count(consumers, [a_sent_event(), an_event(a_received(), partition_key="ada")])
    clock.move(timedelta(days=7, seconds=1))
    await forgetting.step()
    assert await sql.fetchval("SELECT count(*) FROM stats.unanswered") == 0
    assert len(await hours(sql)) == 2
    clock.move(timedelta(days=83))
    await forgetting.step()
    assert await hours(sql) == {}
    assert len(await counters(sql)) == 2
