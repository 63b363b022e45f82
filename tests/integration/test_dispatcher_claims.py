"""Which messages the dispatcher claims, in what order, and what happens when something is lost."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID

import asyncpg
import orjson
import pytest
from prometheus_client import CollectorRegistry

from services.dispatcher import settlement
from services.dispatcher.dispatching import STALE_AFTER, Dispatching
from services.dispatcher.loops import Upkeep
from services.dispatcher.metrics import DispatcherMetrics
from services.dispatcher.store import claims
from shared.broker.memory import MemoryBroker
from shared.broker.port import Incoming, Outcome, Subscription
from shared.contracts.commands import Receipt, Transmission, TransmissionOutcome, Transmit
from shared.contracts.guard import Pauses, chance_of
from shared.db.database import Database
from shared.messaging.contents import seal
from shared.messaging.outbox import Relay
from shared.pause import Pause
from shared.security.sealing import Key, KeyRing
from tests.support.builders import (
    NOON,
    a_message_row,
    a_settled,
    an_instance,
    an_organization,
)
from tests.support.clock import HandClock
from tests.support.keys import RING

ALICE = "12025550201@s.whatsapp.net"
BOB = "12025550202@s.whatsapp.net"


class World:
    """A dispatcher over a real database, and what it publishes to shard 7."""

    def __init__(self, database: Database, sql: asyncpg.Connection, broker: MemoryBroker) -> None:
        self.database = database
        self.sql = sql
        self.broker = broker
        self.clock = HandClock()
        self.pause = Pause()
        self.transmitted: list[Transmission] = []
        metrics = DispatcherMetrics(CollectorRegistry())
        relay = Relay(
            database=database, broker=broker, schema="dispatcher", clock=self.clock, metrics=metrics
        )
        self.dispatching = Dispatching(
            database=database,
            broker=broker,
            relay=relay,
            clock=self.clock,
            metrics=metrics,
            pause=self.pause,
            ring=RING,
        )
        self.upkeep = Upkeep(
            database=database,
            dispatching=self.dispatching,
            relay=relay,
            ring=RING,
            clock=self.clock,
            metrics=metrics,
        )

    async def receive(self, messages: list[Incoming]) -> list[Outcome]:
        """Stands where the session service would."""
        for message in messages:
            self.transmitted += Transmit.model_validate_json(message.body).transmissions
        return [Outcome.DONE] * len(messages)

    async def dispatch(self, *instances: UUID) -> list[str]:
        """Step until nothing more is claimed; the texts that went out, in order."""
        already = len(self.transmitted)
        self.dispatching.look_at(instances)
        while await self.dispatching.step():
            pass
        return [one.content.text for one in self.transmitted[already:]]  # type: ignore[union-attr]

    async def settle(self, outcome: TransmissionOutcome, **given: object) -> None:
        """Settle everything transmitted so far that is still open."""
        settled = [
            a_settled(
                outcome,
                transmission_id=one.transmission_id,
                message_id=one.message_id,
                instance_id=one.instance_id,
                at=self.clock.now(),
                **given,
            )
            for one in self.transmitted
        ]
        async with self.database.hot_tx() as connection:
            await settlement.settle(
                connection, settled, ring=RING, now=self.clock.now(), jitter=lambda: 0.0
            )

    async def statuses(self) -> list[str]:
        """The status of every message, in the order of acceptance."""
        rows = await self.sql.fetch("SELECT status FROM dispatcher.messages ORDER BY sequence")
        return [row[0] for row in rows]

    async def events(self) -> list[str]:
        """The names of the events in the outbox, in order."""
        rows = await self.sql.fetch("SELECT name FROM dispatcher.outbox ORDER BY seq")
        return [row[0] for row in rows]


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    """A dispatcher with a receiver on shard 7's queue."""
    broker = MemoryBroker(raise_failures=True)
    sql = await asyncpg.connect(database_url)
    async with Database.open(database_url, role="waypost_dispatcher") as database:
        made = World(database, sql, broker)
        subscription = Subscription(queue="sessions.shard.07", receive=made.receive)  # type: ignore[arg-type]
        async with broker.subscribe(subscription):
            yield made
    await sql.close()


async def ready(world: World, **given: object) -> tuple[UUID, UUID]:
    """A tenant and a ready instance of theirs."""
    tenant = await an_organization(world.sql)
    return tenant, await an_instance(world.sql, tenant, **given)


async def test_priority_comes_first_then_the_order_of_acceptance(world: World) -> None:
    tenant, instance = await ready(world)
    for text, priority in [("low", 2), ("first", 1), ("second", 1), ("urgent", 0)]:
        await a_message_row(
            world.sql,
            tenant,
            instance,
            text=text,
            priority=priority,
            chat=f"{text}@s.whatsapp.net",
        )
    assert await world.dispatch(instance) == ["urgent", "first", "second", "low"]
    assert await world.statuses() == ["sending"] * 4


async def test_what_is_sealed_is_opened_for_the_wire(world: World) -> None:
    tenant, instance = await ready(world)
    await a_message_row(world.sql, tenant, instance, text="sealed", ring=RING)
    assert await world.dispatch(instance) == ["sealed"]
    world.clock.move(STALE_AFTER * 2)
    await world.sql.execute(
        "UPDATE sessions.shards SET lease_until = 'infinity', owner = 'x' WHERE id = 7"
    )
    await world.dispatching.sweep()
    assert [one.content.kind for one in world.transmitted] == ["text", "text"]


async def test_what_no_key_opens_stays_in_line_and_holds_up_nobody_else(world: World) -> None:
    """Somebody may have started a process without the keys of yesterday."""
    tenant, instance = await ready(world)
    lost = KeyRing([Key.new("lost")])
    odd = await a_message_row(world.sql, tenant, instance, text="odd", chat=ALICE, ring=lost)
    await a_message_row(world.sql, tenant, instance, text="even", chat=BOB, ring=RING)
    assert await world.dispatch(instance) == ["even"]
    row = await world.sql.fetchrow("SELECT * FROM dispatcher.messages WHERE id = $1", odd)
    assert row is not None
    assert (row["status"], row["attempts"], row["transmission_id"]) == ("queued", 0, None)
    assert await world.sql.fetchval("SELECT count(*) FROM dispatcher.transmissions") == 1

    again = seal(RING, tenant, odd, orjson.dumps({"kind": "text", "text": "odd"}))
    await world.sql.execute("UPDATE dispatcher.messages SET sealed = $1 WHERE id = $2", again, odd)
    assert await world.dispatch(instance) == []
    world.clock.move(claims.UNREADABLE)
    assert await world.dispatch(instance) == ["odd"]


async def test_a_chat_has_one_in_flight_and_keeps_its_order(world: World) -> None:
    tenant, instance = await ready(world)
    for text, chat in [("a1", ALICE), ("a2", ALICE), ("b1", BOB), ("a3", ALICE)]:
        await a_message_row(world.sql, tenant, instance, text=text, chat=chat)
    assert await world.dispatch(instance) == ["a1", "b1"]
    assert await world.dispatch(instance) == []
    await world.settle(TransmissionOutcome.ACCEPTED)
    assert await world.dispatch(instance) == ["a2"]
    await world.settle(TransmissionOutcome.ACCEPTED)
    assert await world.dispatch(instance) == ["a3"]


async def test_a_message_being_retried_holds_its_chat_but_no_other(world: World) -> None:
    tenant, instance = await ready(world)
    for text, chat in [("a1", ALICE), ("a2", ALICE)]:
        await a_message_row(world.sql, tenant, instance, text=text, chat=chat)
    await world.dispatch(instance)
    await world.settle(TransmissionOutcome.RETRYABLE)
    await a_message_row(world.sql, tenant, instance, text="b1", chat=BOB)
    assert await world.dispatch(instance) == ["b1"]
    world.clock.move(timedelta(seconds=1))
    assert await world.dispatch(instance) == ["a1"]
    await world.settle(TransmissionOutcome.ACCEPTED)
    assert await world.dispatch(instance) == ["a2"]
    assert [one.attempt for one in world.transmitted] == [1, 1, 2, 1]


async def test_limits_hold_a_second_batch_until_the_window_moves_on(world: World) -> None:
    tenant, instance = await ready(world, guard={"perMinute": 2, "perHour": 3, "perDay": 0})
    for number in range(5):
        await a_message_row(
            world.sql, tenant, instance, text=f"m{number}", chat=f"120255503{number:02d}@x"
        )
    assert await world.dispatch(instance) == ["m0", "m1"]
    world.clock.move(timedelta(seconds=59))
    assert await world.dispatch(instance) == []
    world.clock.move(timedelta(seconds=1))
    assert await world.dispatch(instance) == ["m2"]
    world.clock.move(timedelta(minutes=5))
    assert await world.dispatch(instance) == []
    world.clock.move(timedelta(minutes=55))
    assert await world.dispatch(instance) == ["m3", "m4"]
    waited = await world.sql.fetchval(
        "SELECT paced_until FROM dispatcher.transmissions t JOIN dispatcher.messages m"
        " ON m.id = t.message_id WHERE m.content ->> 'text' = 'm3'"
    )
    assert waited is not None


async def test_quiet_hours_hold_everything_and_let_it_go_in_order_afterwards(world: World) -> None:
    guard = {"perMinute": 0, "quietHours": {"from": "12:00", "to": "14:00"}}
    tenant, instance = await ready(world, guard=guard)
    for text, priority in [("second", 1), ("third", 1), ("first", 0)]:
        await a_message_row(
            world.sql, tenant, instance, text=text, priority=priority, chat=f"{text}@x"
        )
    _, awake = await ready(world)
    await a_message_row(world.sql, tenant, awake, text="elsewhere")
    assert await world.dispatch(instance, awake) == ["elsewhere"]
    world.clock.move(timedelta(hours=2, seconds=-1))
    assert await world.dispatch(instance) == []
    world.clock.move(timedelta(seconds=1))
    assert await world.dispatch(instance) == ["first", "second", "third"]
    told = await world.sql.fetch(
        "SELECT DISTINCT paced_until, paced_by FROM dispatcher.transmissions"
        " WHERE instance_id = $1",
        instance,
    )
    assert [tuple(row) for row in told] == [(NOON + timedelta(hours=2), "quiet_hours")]


async def test_quiet_hours_are_in_the_organizations_time_zone(world: World) -> None:
    tenant = await an_organization(world.sql, timezone="Asia/Tokyo")
    guard = {"quietHours": {"from": "21:00", "to": "07:00"}}
    instance = await an_instance(world.sql, tenant, guard=guard)
    await a_message_row(world.sql, tenant, instance, text="good night")
    assert await world.dispatch(instance) == []
    world.clock.move(timedelta(hours=10))
    assert await world.dispatch(instance) == ["good night"]


async def test_what_is_tried_again_keeps_quiet_hours_too(world: World) -> None:
    guard = {"quietHours": {"from": "12:01", "to": "14:00"}}
    tenant, instance = await ready(world, guard=guard)
    await a_message_row(world.sql, tenant, instance, text="again")
    assert await world.dispatch(instance) == ["again"]
    await world.settle(TransmissionOutcome.RETRYABLE)
    world.clock.move(timedelta(minutes=1))
    assert await world.dispatch(instance) == []
    world.clock.move(timedelta(minutes=119))
    assert await world.dispatch(instance) == ["again"]


async def test_quiet_hours_that_are_taken_away_hold_nothing_any_more(world: World) -> None:
    guard = {"quietHours": {"from": "12:00", "to": "14:00"}}
    tenant, instance = await ready(world, guard=guard)
    await a_message_row(world.sql, tenant, instance, text="after all")
    assert await world.dispatch(instance) == []
    await world.sql.execute("UPDATE gateway.instances SET guard = '{}' WHERE id = $1", instance)
    world.clock.move(timedelta(minutes=1))
    assert await world.dispatch(instance) == ["after all"]
    # It waited until now, not until when it would have.
    told = await world.sql.fetchval("SELECT paced_until FROM dispatcher.transmissions")
    assert told == NOON + timedelta(minutes=1)


async def test_a_number_that_warms_up_sends_more_each_day(world: World) -> None:
    warm_up = {"days": 2, "start": NOON.date().isoformat(), "from": 1}
    tenant, instance = await ready(world, guard={"perDay": 5, "warmUp": warm_up})
    for number in range(12):
        await a_message_row(world.sql, tenant, instance, text=f"m{number}", chat=f"{number}@x")
    assert await world.dispatch(instance) == ["m0"]
    world.clock.move(timedelta(hours=12, seconds=-1))
    assert await world.dispatch(instance) == []
    # Three may go in any day from now on, and one went at noon.
    world.clock.move(timedelta(seconds=1))
    assert await world.dispatch(instance) == ["m1", "m2"]
    world.clock.move(timedelta(hours=12))
    assert await world.dispatch(instance) == ["m3"]
    # Five in any day: it is warm.
    world.clock.move(timedelta(hours=12))
    assert await world.dispatch(instance) == ["m4", "m5", "m6", "m7"]
    told = await world.sql.fetch(
        "SELECT paced_until - $1 FROM dispatcher.transmissions ORDER BY created_at", NOON
    )
    hours = [None if row[0] is None else row[0] // timedelta(hours=1) for row in told]
    assert hours == [None, 12, 12, 24, 36, 36, 36, 36]


async def test_between_two_messages_there_is_a_pause(world: World) -> None:
    tenant, instance = await ready(world, guard={"pauses": {"min": 10, "max": 10}})
    for text in ("first", "second"):
        await a_message_row(world.sql, tenant, instance, text=text, chat=f"{text}@x")
    assert await world.dispatch(instance) == ["first"]
    # However long it takes: a pause begins when it has ended.
    world.clock.move(timedelta(minutes=1))
    assert await world.dispatch(instance) == []
    await world.settle(TransmissionOutcome.ACCEPTED)
    world.clock.move(timedelta(seconds=9))
    assert await world.dispatch(instance) == []
    world.clock.move(timedelta(seconds=1))
    assert await world.dispatch(instance) == ["second"]
    causes = await world.sql.fetch(
        "SELECT paced_by FROM dispatcher.transmissions ORDER BY created_at"
    )
    assert [row[0] for row in causes] == [None, "pauses"]


async def test_two_dispatchers_keep_limits_and_pauses_together(
    world: World, database_url: str
) -> None:
    wanted = Pauses(min=3, max=9)
    guard = {"perMinute": 6, "pauses": wanted.model_dump()}
    tenant, instance = await ready(world, guard=guard)
    for number in range(20):
        await a_message_row(world.sql, tenant, instance, chat=f"{number}@x")
    async with Database.open(database_url, role="waypost_dispatcher") as database:
        other = World(database, world.sql, world.broker)
        for _ in range(150):
            await asyncio.gather(world.dispatch(instance), other.dispatch(instance))
            await world.settle(TransmissionOutcome.ACCEPTED)
            for clock in (world.clock, other.clock):
                clock.move(timedelta(seconds=1))
    rows = await world.sql.fetch(
        "SELECT id, created_at FROM dispatcher.transmissions ORDER BY created_at"
    )
    assert len(rows) > 10
    for before, after in itertools.pairwise(rows):
        pause = wanted.after(chance_of(before["id"]))
        assert after["created_at"] - before["created_at"] >= pause
    times = [row["created_at"] for row in rows]
    # The sixth after any one is out of its minute.
    for time, later in zip(times, times[6:], strict=False):
        assert later - time >= timedelta(minutes=1)


async def test_an_instance_that_is_not_ready_sends_nothing_until_it_is(world: World) -> None:
    tenant, instance = await ready(world, status="connecting")
    await a_message_row(world.sql, tenant, instance, text="later")
    assert await world.dispatch(instance) == []
    await world.sql.execute("UPDATE sessions.session_states SET status = 'ready'")
    await world.dispatching.sweep()
    assert await world.dispatch() == ["later"]


async def test_two_dispatchers_never_claim_the_same_message(
    world: World, database_url: str
) -> None:
    tenant, instance = await ready(world)
    for number in range(200):
        await a_message_row(world.sql, tenant, instance, chat=f"1202556{number:04d}@x")

    async def claim() -> list[UUID]:
        async with Database.open(database_url, role="waypost_dispatcher") as other:
            taken = []
            for _ in range(40):
                async with other.hot_tx() as connection:
                    await claims.ensure_pacing(connection, [instance])
                    if await claims.lock_candidates(connection, [instance]):
                        found = await claims.claim_due(
                            connection, [(instance, 10)], ring=RING, now=NOON
                        )
                        taken += [item.message_id for _, item in found]
            return taken

    first, second = await asyncio.gather(claim(), claim())
    assert len(first) + len(second) == 200
    assert not set(first) & set(second)


async def test_a_command_that_was_lost_is_published_again_under_the_same_id(world: World) -> None:
    tenant, instance = await ready(world)
    await a_message_row(world.sql, tenant, instance)
    await world.sql.execute(
        "UPDATE sessions.shards SET owner = 'a', epoch = 1, lease_until = 'infinity' WHERE id = 7"
    )
    await world.dispatch(instance)
    await world.dispatching.sweep()
    assert len(world.transmitted) == 1
    world.clock.move(STALE_AFTER + timedelta(seconds=1))
    await world.dispatching.sweep()
    assert len({one.transmission_id for one in world.transmitted}) == 1
    assert len(world.transmitted) == 2


async def test_settling_twice_tells_once(world: World) -> None:
    tenant, instance = await ready(world)
    await a_message_row(world.sql, tenant, instance)
    await world.dispatch(instance)
    await world.settle(TransmissionOutcome.ACCEPTED)
    await world.settle(TransmissionOutcome.ACCEPTED)
    await world.settle(TransmissionOutcome.REJECTED, code="REJECTED")
    assert await world.statuses() == ["sent"]
    assert await world.events() == ["message.sent"]


async def test_a_receipt_before_the_outcome_counts_and_the_outcome_adds_nothing(
    world: World,
) -> None:
    tenant, instance = await ready(world)
    message = await a_message_row(world.sql, tenant, instance)
    await world.dispatch(instance)
    receipt = Receipt(message_id=message, instance_id=instance, kind="delivered", at=NOON)
    async with world.database.hot_tx() as connection:
        await settlement.receive(connection, [receipt, receipt], ring=RING, now=NOON)
    await world.settle(TransmissionOutcome.ACCEPTED)
    assert await world.statuses() == ["delivered"]
    assert await world.events() == ["message.sent", "message.delivered"]


async def test_doubt_ends_as_failed_when_nothing_confirms_it(world: World) -> None:
    tenant, instance = await ready(world)
    await a_message_row(world.sql, tenant, instance, text="a1", chat=ALICE)
    await a_message_row(world.sql, tenant, instance, text="a2", chat=ALICE)
    await world.dispatch(instance)
    await world.settle(TransmissionOutcome.UNKNOWN)
    assert await world.statuses() == ["unconfirmed", "queued"]
    assert await world.dispatch(instance) == ["a2"]
    await world.upkeep.step()
    assert (await world.statuses())[0] == "unconfirmed"
    world.clock.move(timedelta(minutes=10))
    await world.upkeep.step()
    assert (await world.statuses())[0] == "failed"
    assert (
        await world.sql.fetchval(
            "SELECT error_code FROM dispatcher.messages WHERE status = 'failed'"
        )
        == "UNCONFIRMED"
    )
    assert await world.events() == ["message.failed"]


async def test_a_message_that_nobody_could_send_expires_and_frees_its_chat(world: World) -> None:
    tenant, instance = await ready(world, status="disconnected")
    soon = NOON + timedelta(hours=1)
    await a_message_row(world.sql, tenant, instance, text="a1", chat=ALICE, expires_at=soon)
    await a_message_row(world.sql, tenant, instance, text="a2", chat=ALICE)
    await world.sql.execute("UPDATE dispatcher.messages SET parked = content ->> 'text' = 'a2'")
    world.clock.move(timedelta(hours=1))
    await world.upkeep.step()
    assert await world.statuses() == ["failed", "queued"]
    await world.sql.execute("UPDATE sessions.session_states SET status = 'ready'")
    assert await world.dispatch(instance) == ["a2"]


async def test_a_report_that_never_came_is_read_from_the_hand_over(world: World) -> None:
    tenant, instance = await ready(world)
    await a_message_row(world.sql, tenant, instance, text="a1", chat=ALICE)
    await a_message_row(world.sql, tenant, instance, text="a2", chat=ALICE)
    await world.dispatch(instance)
    [one] = world.transmitted
    await world.sql.execute(
        "INSERT INTO sessions.handovers (transmission_id, message_id, tenant_id, instance_id,"
        " shard, epoch, engine_message_id, handed_over_at, outcome, settled_at)"
        " VALUES ($1, $2, $3, $4, 7, 1, 'x', $5, 'accepted', $5)",
        one.transmission_id,
        one.message_id,
        tenant,
        instance,
        NOON,
    )
    await world.upkeep.step()
    assert await world.statuses() == ["sending", "queued"]
    world.clock.move(timedelta(minutes=11))
    await world.upkeep.step()
    assert await world.statuses() == ["sent", "queued"]
    assert await world.dispatch(instance) == ["a2"]


async def test_a_parked_message_whose_turn_was_missed_is_put_back_in_line(world: World) -> None:
    tenant, instance = await ready(world)
    await a_message_row(world.sql, tenant, instance, text="a1")
    await world.sql.execute("UPDATE dispatcher.messages SET parked = true")
    assert await world.dispatch(instance) == []
    await world.upkeep.step()
    assert await world.dispatch() == ["a1"]


async def test_messages_of_a_deleted_instance_fail_and_say_so(world: World) -> None:
    tenant, instance = await ready(world, deleted_at=NOON)
    await a_message_row(world.sql, tenant, instance)
    assert await world.dispatch(instance) == []
    assert await world.statuses() == ["failed"]
    assert await world.events() == ["message.failed"]


@pytest.mark.parametrize(
    ("status", "code"),
    [("logged_out", "INSTANCE_LOGGED_OUT"), ("banned", "INSTANCE_BANNED")],
)
async def test_messages_of_an_instance_that_lost_its_account_fail_and_say_so(
    world: World, status: str, code: str
) -> None:
    tenant, instance = await ready(world, status=status)
    await a_message_row(world.sql, tenant, instance, text="a1", chat=ALICE)
    await a_message_row(world.sql, tenant, instance, text="a2", chat=ALICE)
    assert await world.dispatch(instance) == []
    rows = await world.sql.fetch("SELECT error_code FROM dispatcher.messages")
    assert [row[0] for row in rows] == [code, code]


async def test_being_slowed_down_holds_the_whole_instance(world: World) -> None:
    tenant, instance = await ready(world)
    await a_message_row(world.sql, tenant, instance, text="a1", chat=ALICE)
    await world.dispatch(instance)
    await world.settle(TransmissionOutcome.RETRYABLE, retry_after=10.0)
    await a_message_row(world.sql, tenant, instance, text="b1", chat=BOB)
    assert await world.dispatch(instance) == []
    world.clock.move(timedelta(seconds=10))
    assert await world.dispatch(instance) == ["a1", "b1"]


async def test_while_paused_nothing_is_claimed_and_nothing_is_lost(world: World) -> None:
    tenant = await an_organization(world.sql)
    instance = await an_instance(world.sql, tenant)
    world.pause.hold()
    await a_message_row(world.sql, tenant, instance, text="patience")
    await world.dispatching.sweep()
    assert await world.dispatch(instance) == []
    assert await world.statuses() == ["queued"]
    world.pause.go_on()
    assert await world.dispatch() == ["patience"]
