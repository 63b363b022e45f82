"""The outbox: what was committed is told, whatever comes in between, and what was not is not."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from uuid import UUID

import orjson
import pytest
from prometheus_client import CollectorRegistry
from typing_extensions import override

from shared.broker.memory import MemoryBroker
from shared.broker.port import Broker, Incoming, Outcome, Outgoing, Subscription
from shared.broker.topology import BATCHES, COMMANDS, EVENTS, Binding, Exchange, Queue, Topology
from shared.contracts import envelope, events
from shared.contracts.commands import Dispatch
from shared.contracts.envelope import Emitted
from shared.contracts.events import InstanceConnected
from shared.contracts.model import Event
from shared.db.database import Database
from shared.db.tables.webhooks import WebhooksOutboxRow
from shared.errors import Transient, Unroutable
from shared.ids import new_id
from shared.messaging import outbox
from shared.messaging.outbox import BATCH_LIMIT, CLAIM_LIMIT, LEFT_BEHIND, Pending, Relay, Stored
from shared.metrics import MessagingMetrics
from shared.security.sealing import Key, KeyRing
from tests.support.broker import Inbox
from tests.support.builders import NOON
from tests.support.clock import HandClock
from tests.support.keys import KEYS, RING

SCHEMA = "webhooks"
TENANT = new_id()

# One queue for each of the three ways out.
SEEN = Topology(
    exchanges=(Exchange(COMMANDS, "direct"), Exchange(BATCHES, "topic"), Exchange(EVENTS, "topic")),
    queues=(Queue("commands"), Queue("batches"), Queue("events")),
    bindings=(
        Binding("commands", COMMANDS, "here"),
        Binding("batches", BATCHES, "#"),
        Binding("events", EVENTS, "#"),
    ),
)


def an_event(event: Event | None = None) -> Pending:
    """A row for an event."""
    return outbox.event(
        Emitted(
            id=new_id(),
            event=event or events.Test(message="Hello"),
            tenant_id=TENANT,
            instance_id=None,
            time=NOON,
            subject="test",
            partition_key="test",
        )
    )


def some_events(count: int) -> list[Pending]:
    """As many rows."""
    return [an_event() for _ in range(count)]


class CrashingBroker(MemoryBroker):
    """Publishes, and then the process is gone before it can commit."""

    def __init__(self, topology: Topology, *, crashes: int) -> None:
        super().__init__(topology)
        self._crashes = crashes

    @override
    async def publish(self, messages: Sequence[Outgoing]) -> None:
        await super().publish(messages)
        if self._crashes:
            self._crashes -= 1
            raise SystemError("the process has died")


class WatchedClock(HandClock):
    """Says when somebody has slept."""

    def __init__(self) -> None:
        super().__init__()
        self.slept = asyncio.Event()

    @override
    async def sleep(self, delay: timedelta) -> None:
        await super().sleep(delay)
        self.slept.set()


class World:
    """A database with an outbox, and queues that remember what they got."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.clock = WatchedClock()
        self.metrics = MessagingMetrics(SCHEMA, CollectorRegistry())
        self.inboxes = {queue.name: Inbox() for queue in SEEN.queues}

    def relay(self, broker: Broker, *, ring: KeyRing | None = None) -> Relay:
        """A relay of this outbox."""
        return Relay(
            database=self.database,
            broker=broker,
            schema=SCHEMA,
            clock=self.clock,
            metrics=self.metrics,
            ring=ring,
        )

    @asynccontextmanager
    async def receiving(self, broker: MemoryBroker, *, batch: int = 1000) -> AsyncIterator[None]:
        """Take from all queues."""
        async with AsyncExitStack() as stack:
            for queue, inbox in self.inboxes.items():
                subscription = Subscription(queue=queue, receive=inbox, batch=batch)
                await stack.enter_async_context(broker.subscribe(subscription))
            yield

    async def add(self, rows: Sequence[Pending], *, ring: KeyRing | None = None) -> list[Stored]:
        """Commit rows."""
        now = self.clock.now()
        async with self.database.hot_tx() as connection:
            return await outbox.add_hot(connection, SCHEMA, rows, now=now, ring=ring)

    async def waiting(self) -> list[UUID]:
        """The ids of the rows that are in the outbox."""
        async with self.database.hot() as connection:
            rows = await connection.fetch(f"SELECT id FROM {SCHEMA}.outbox ORDER BY seq")
        return [row[0] for row in rows]

    @property
    def single(self) -> list[UUID]:
        """The ids of what subscribers got, one by one."""
        return [UUID(message.message_id) for message in self.inboxes["events"].messages]

    @property
    def batched(self) -> list[list[UUID]]:
        """The ids of what our own services got, batch by batch."""
        return [ids_of(message) for message in self.inboxes["batches"].messages]


def ids_of(message: Incoming) -> list[UUID]:
    """The ids of the events in a batch."""
    return [event.id for event in envelope.decode_batch(message.body)]


@pytest.fixture
async def world(module_database_url: str) -> AsyncIterator[World]:
    async with Database.open(module_database_url, role=f"waypost_{SCHEMA}", hot=6) as database:
        async with database.hot() as connection:
            await connection.execute(f"DELETE FROM {SCHEMA}.outbox")
        yield World(database)


async def test_an_event_goes_once_alone_and_once_in_a_batch(world: World) -> None:
    broker = MemoryBroker(SEEN)
    row = an_event()
    await world.add([row])
    async with world.receiving(broker):
        assert await world.relay(broker).step() == 1
    (alone,) = world.inboxes["events"].messages
    assert (alone.message_id, alone.type, alone.content_type, alone.body) == (
        str(row.id),
        "test",
        "application/cloudevents+json",
        row.body,
    )
    (batch,) = world.inboxes["batches"].messages
    assert batch.content_type == "application/cloudevents-batch+json"
    assert orjson.loads(batch.body) == [orjson.loads(row.body)]
    assert await world.waiting() == []


async def test_a_command_goes_to_its_queue_and_to_no_subscriber(world: World) -> None:
    broker = MemoryBroker(SEEN)
    command = Dispatch(instance_ids=(new_id(),))
    await world.add([outbox.command(command, to="here")])
    async with world.receiving(broker):
        await world.relay(broker).step()
    (message,) = world.inboxes["commands"].messages
    assert message.type == "dispatch"
    assert Dispatch.model_validate_json(message.body) == command
    assert world.single == []
    assert world.batched == []


async def test_nobody_need_subscribe_to_events(world: World) -> None:
    topology = Topology(SEEN.exchanges, SEEN.queues[:2], SEEN.bindings[:2])
    broker = MemoryBroker(topology)
    del world.inboxes["events"]
    await world.add(some_events(3))
    async with world.receiving(broker):
        assert await world.relay(broker).step() == 3


async def test_what_is_published_together_keeps_its_order(world: World) -> None:
    broker = MemoryBroker(SEEN)
    connected = [an_event(InstanceConnected(phone_number=str(n))) for n in range(30)]
    tests = some_events(30)
    mixed = [row for pair in zip(connected, tests, strict=True) for row in pair]
    await world.add(mixed)
    async with world.receiving(broker):
        await world.relay(broker).step()
    assert world.single == [row.id for row in mixed]
    assert world.batched == [[row.id for row in connected], [row.id for row in tests]]


async def test_batches_are_bounded(world: World) -> None:
    broker = MemoryBroker(SEEN)
    rows = some_events(BATCH_LIMIT + 1)
    await world.add(rows)
    async with world.receiving(broker):
        await world.relay(broker).step()
    assert [len(batch) for batch in world.batched] == [BATCH_LIMIT, 1]
    assert [id_ for batch in world.batched for id_ in batch] == [row.id for row in rows]


async def test_a_step_takes_no_more_than_its_limit(world: World) -> None:
    broker = MemoryBroker(SEEN)
    await world.add(some_events(CLAIM_LIMIT + 1))
    relay = world.relay(broker)
    async with world.receiving(broker):
        assert [await relay.step() for _ in range(3)] == [CLAIM_LIMIT, 1, 0]


async def test_a_row_of_a_transaction_that_commits_late_is_not_lost(world: World) -> None:
    # A relay that reads on from the last number it has seen would never see the first row.
    broker = MemoryBroker(SEEN)
    relay = world.relay(broker)
    late, soon = some_events(2)
    async with world.receiving(broker):
        async with world.database.hot_tx() as slow:
            await outbox.add_hot(slow, SCHEMA, [late], now=NOON)
            await world.add([soon])
            assert await relay.step() == 1
            assert world.single == [soon.id]
        assert await relay.step() == 1
    assert world.single == [soon.id, late.id]


async def test_rows_that_are_handed_over_are_published_without_being_looked_for(
    world: World,
) -> None:
    broker = MemoryBroker(SEEN)
    relay = world.relay(broker)
    first, second, third = some_events(3)
    stored = await world.add([first, second])
    await world.add([third])
    relay.wake(stored)
    async with world.receiving(broker):
        assert await relay.publish_fresh() == 2
        assert world.single == [first.id, second.id]
        assert await world.waiting() == [third.id]


async def test_rows_that_could_not_be_published_when_handed_over_stay_for_the_sweep(
    world: World,
) -> None:
    broker = MemoryBroker(SEEN, publish_timeout=timedelta(milliseconds=10))
    relay = world.relay(broker)
    [row] = some_events(1)
    relay.wake(await world.add([row]))
    with pytest.raises(Transient):
        await relay.publish_fresh()
    assert await world.waiting() == [row.id]
    async with world.receiving(broker):
        assert await relay.step(older_than=LEFT_BEHIND) == 0
        world.clock.move(LEFT_BEHIND)
        assert await relay.step(older_than=LEFT_BEHIND) == 1
    assert row.id in world.single


async def test_what_no_key_opens_stays_and_holds_up_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "CLAIM_LIMIT", 2)
    broker = MemoryBroker(SEEN)
    lost = Key.new("lost")
    relay, healed = world.relay(broker, ring=RING), KeyRing([Key.parse(KEYS), lost])
    stay = some_events(5)
    await world.add(stay, ring=KeyRing([lost]))
    go = an_event()
    await world.add([go], ring=RING)
    async with world.receiving(broker):
        assert [await relay.step() for _ in range(4)] == [0, 0, 1, 0]
        assert world.single == [go.id]
        assert await world.waiting() == [row.id for row in stay]
        await relay.check()
        world.clock.move(timedelta(seconds=31))
        with pytest.raises(Transient, match="ENCRYPTION_KEYS"):
            await relay.check()
        # It begins anew when it is through, so what comes is told, and what can be opened at last.
        late = an_event()
        await world.add([late], ring=RING)
        assert sum([await relay.step() for _ in range(4)]) == 1
        again = world.relay(broker, ring=healed)
        assert [await again.step() for _ in range(3)] == [2, 2, 1]
        await again.check()
    assert world.single == [go.id, late.id, *(row.id for row in stay)]
    assert await world.waiting() == []


async def test_what_was_left_behind_gets_its_turn_while_more_is_handed_over_without_end(
    world: World,
) -> None:
    broker = MemoryBroker(SEEN)
    relay = world.relay(broker)
    left = an_event()
    left_is_told = asyncio.Event()

    async def receive(messages: Sequence[Incoming]) -> list[Outcome]:
        # Each that is published hands over the next, so the relay is never idle.
        if str(left.id) in {message.message_id for message in messages}:
            left_is_told.set()
        world.clock.move(timedelta(seconds=1))
        relay.wake(await world.add([an_event()]))
        return [Outcome.DONE] * len(messages)

    async with (
        broker.subscribe(Subscription(queue="batches", receive=world.inboxes["batches"])),
        broker.subscribe(Subscription(queue="events", receive=receive)),
    ):
        relay.wake(await world.add([an_event()]))
        running = asyncio.create_task(relay.run())
        await world.inboxes["batches"].received(5)
        await world.add([left])
        async with asyncio.timeout(10):
            await left_is_told.wait()
        running.cancel()
        await asyncio.wait([running])


async def test_what_was_not_committed_is_not_told(world: World) -> None:
    broker = MemoryBroker(SEEN)

    async def fail() -> None:
        async with world.database.hot_tx() as connection:
            await outbox.add_hot(connection, SCHEMA, some_events(1), now=NOON)
            raise LookupError("its cause did not happen")

    with pytest.raises(LookupError):
        await fail()
    assert await world.relay(broker).step() == 0


async def test_both_kinds_of_connection_write_the_same_row(world: World) -> None:
    row = an_event()
    async with world.database.tx() as tx:
        await outbox.add(tx, WebhooksOutboxRow, [row], now=NOON)
        await outbox.add(tx, WebhooksOutboxRow, [], now=NOON)
    await world.add([row])
    await world.add([])
    async with world.database.hot() as connection:
        one, other = await connection.fetch(
            f"SELECT id, kind, name, routing_key, body, created_at FROM {SCHEMA}.outbox"
        )
    assert one == other


async def test_a_crash_between_confirm_and_commit_tells_twice_and_not_never(world: World) -> None:
    broker = CrashingBroker(SEEN, crashes=1)
    rows = some_events(3)
    ids = [row.id for row in rows]
    await world.add(rows)
    async with world.receiving(broker):
        with pytest.raises(SystemError):
            await world.relay(broker).step()
        assert await world.waiting() == ids
        assert await world.relay(broker).step() == 3
    assert world.single == [*ids, *ids]
    assert world.batched == [ids, ids]
    assert await world.waiting() == []


async def test_a_relay_that_is_cancelled_loses_nothing(world: World) -> None:
    broker = MemoryBroker(SEEN)
    world.inboxes["batches"].gate.clear()
    rows = some_events(2)
    await world.add(rows)
    async with world.receiving(broker):
        stepping = asyncio.create_task(world.relay(broker).step())
        await world.inboxes["batches"].received(1)
        stepping.cancel()
        await asyncio.wait([stepping])
        assert stepping.cancelled()
        assert await world.waiting() == [row.id for row in rows]
        world.inboxes["batches"].gate.set()
        assert await world.relay(broker).step() == 2
    assert await world.waiting() == []


async def test_two_relays_tell_everything_once_between_them(world: World) -> None:
    broker = MemoryBroker(SEEN)
    rows = some_events(2 * CLAIM_LIMIT + 100)
    await world.add(rows)
    world.inboxes["events"].gate.clear()

    async def drain(relay: Relay) -> list[int]:
        counts = []
        while count := await relay.step():
            counts.append(count)
        return counts

    async with world.receiving(broker), asyncio.TaskGroup() as group:
        one = group.create_task(drain(world.relay(broker)))
        other = group.create_task(drain(world.relay(broker)))
        # Both have claims, or what the one holds would not be passed over by the other.
        batches = 2 * -(-CLAIM_LIMIT // BATCH_LIMIT)
        await world.inboxes["batches"].received(batches)
        world.inboxes["events"].gate.set()
    assert min(len(one.result()), len(other.result())) >= 1
    once = {row.id: 1 for row in rows}
    assert Counter(world.single) == once
    assert Counter(id_ for batch in world.batched for id_ in batch) == once


async def test_while_the_broker_is_away_rows_stay_and_readiness_says_for_how_long(
    world: World,
) -> None:
    broker = MemoryBroker(SEEN, publish_timeout=timedelta(milliseconds=10))
    relay = world.relay(broker)
    row = an_event()
    await world.add([row])
    with pytest.raises(Transient):
        await relay.step()
    assert await world.waiting() == [row.id]

    world.clock.move(timedelta(seconds=30))
    assert await relay.oldest_age() == timedelta(seconds=30)
    await relay.check()
    world.clock.move(timedelta(seconds=1))
    with pytest.raises(Transient, match="31 s"):
        await relay.check()

    async with world.receiving(broker):
        assert await relay.step() == 1
    assert world.single == [row.id]
    assert await relay.oldest_age() == timedelta(0)
    await relay.check()


async def test_an_event_that_joins_a_batch_which_is_told_again_is_not_lost(world: World) -> None:
    # The broker still has the batch that it could not deliver in time. The next one begins with
    # the same event and must not be taken for the same batch.
    attempts = []

    def answer(message: Incoming) -> Outcome:
        attempts.append(message)
        return Outcome.DONE if len(attempts) > 1 else Outcome.RETRY

    broker = MemoryBroker(
        SEEN,
        publish_timeout=timedelta(milliseconds=50),
        retry_delay=timedelta(milliseconds=100),
    )
    world.inboxes["batches"] = Inbox(answer)
    first, second = some_events(2)
    relay = world.relay(broker)
    async with world.receiving(broker):
        await world.add([first])
        with pytest.raises(Transient):
            await relay.step()
        await world.add([second])
        assert await relay.step() == 2
    assert second.id in {id_ for batch in world.batched for id_ in batch}


def test_the_same_batch_told_again_is_the_same_message() -> None:
    rows = some_events(2)
    once, again, more = (
        {message.message_id for message in outbox.outgoing(told) if message.exchange == BATCHES}
        for told in (rows, rows, [*rows, an_event()])
    )
    assert once == again
    assert once != more


async def test_a_message_that_has_no_queue_stays_and_is_noticed(world: World) -> None:
    broker = MemoryBroker(SEEN)
    await world.add([outbox.command(Dispatch(instance_ids=()), to="nowhere")])
    with pytest.raises(Unroutable, match="nowhere"):
        await world.relay(broker).step()
    assert len(await world.waiting()) == 1


async def test_a_relay_runs_until_it_is_cancelled_and_outlives_the_brokers_absence(
    world: World,
) -> None:
    broker = MemoryBroker(SEEN, publish_timeout=timedelta(milliseconds=10))
    relay = world.relay(broker)
    first, second = some_events(2)
    await world.add([first])
    relay.wake()
    running = asyncio.create_task(relay.run())
    await world.clock.slept.wait()  # It has failed and waits.
    async with world.receiving(broker):
        # Long enough that the first is nobody's any more.
        world.clock.move(LEFT_BEHIND)
        await world.inboxes["events"].received(1)
        await world.add([second])
        relay.wake()
        await world.inboxes["events"].received(2)
        running.cancel()
        await asyncio.wait([running])
    assert running.cancelled()
    assert {first.id, second.id} <= set(world.single)
    assert sample(world, "loop_last_success_timestamp_seconds", loop=f"{SCHEMA}_outbox") > 0


async def test_metrics_count_what_left_and_tell_the_age_of_what_has_not(world: World) -> None:
    broker = MemoryBroker(SEEN)
    relay = world.relay(broker)
    await world.add(some_events(3))
    world.clock.move(timedelta(seconds=4))
    await relay.oldest_age()
    assert sample(world, "outbox_oldest_age_seconds") == 4
    async with world.receiving(broker):
        await relay.step()
    assert sample(world, "outbox_published_total") == 3


def sample(world: World, name: str, **labels: str) -> float:
    """The value of one metric."""
    for metrics in (
        world.metrics.published,
        world.metrics.outbox_age,
        world.metrics.loop_succeeded,
    ):
        for family in metrics.collect():
            for one in family.samples:
                if one.name == f"waypost_{SCHEMA}_{name}" and one.labels == labels:
                    return float(one.value)
    raise AssertionError(f"no sample {name}")
