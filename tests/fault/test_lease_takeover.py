"""Two session processes under load, one of them killed or frozen: each message at most once."""

import asyncio
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest

from shared.broker.port import Broker, Incoming, Outcome, Outgoing, Subscription
from shared.broker.rabbitmq import RabbitBroker
from shared.broker.topology import COMMANDS, shard_queue
from shared.contracts.commands import (
    ReceiptsReported,
    Transmission,
    TransmissionOutcome,
    TransmissionsSettled,
    Transmit,
)
from shared.ids import new_id
from tests.support.builders import an_organization
from tests.support.eventually import eventually
from tests.support.keys import KEYS
from tests.support.sessions import a_paired_instance, a_transmission
from tests.support.system import Process, free_port

INSTANCES = 32
MESSAGES = 6000
AT_ONCE = 64  # Per instance; the dispatcher bounds it as well.
# More than go to the wire in one statement, so that some were about to be sent.
IN_ITS_HANDS = 450
TTL = 4.0
LEASES = {
    "WAYPOST_SESSIONS_LEASE_TTL": str(TTL),
    "WAYPOST_SESSIONS_CLAIM_EVERY": "0.2",
    "WAYPOST_SESSIONS_RELEASE_EVERY": "0.05",
    "WAYPOST_SESSIONS_LOGINS_PER_SECOND": "200",
    "WAYPOST_SESSIONS_RECONCILE_EVERY": "1",
    "WAYPOST_LOG_STYLE": "json",
}


@dataclass
class Driver:
    """Does what the dispatcher does: repeats what was not handed over, and tries again."""

    broker: Broker
    sql: asyncpg.Connection
    shards: dict[UUID, int]
    waiting: dict[UUID, list[Transmission]] = field(default_factory=dict)
    open: dict[UUID, Transmission] = field(default_factory=dict)
    ended: dict[UUID, TransmissionOutcome] = field(default_factory=dict)
    received: set[UUID] = field(default_factory=set)

    def accept(self, messages: Sequence[Transmission]) -> None:
        for message in messages:
            self.waiting.setdefault(message.instance_id, []).append(message)

    def unfinished(self) -> set[int]:
        """The shards for which messages wait that were not even published."""
        return {self.shards[instance] for instance, line in self.waiting.items() if line}

    async def receive(self, messages: Sequence[Incoming]) -> Sequence[Outcome]:
        for message in messages:
            if message.type == ReceiptsReported.TYPE:
                report = ReceiptsReported.model_validate_json(message.body)
                self.received |= {receipt.message_id for receipt in report.receipts}
            if message.type == TransmissionsSettled.TYPE:
                self._settled(TransmissionsSettled.model_validate_json(message.body))
        return [Outcome.DONE] * len(messages)

    def _settled(self, command: TransmissionsSettled) -> None:
        for item in command.settled:
            transmission = self.open.pop(item.transmission_id, None)
            if transmission is None:
                continue  # Heard before; the broker may say it twice.
            if item.outcome is TransmissionOutcome.RETRYABLE:
                again = transmission.model_copy(
                    update={
                        "transmission_id": new_id(),
                        "attempt": transmission.attempt + 1,
                    }
                )
                self.waiting[transmission.instance_id].insert(0, again)
            else:
                self.ended[item.message_id] = item.outcome

    async def step(self) -> bool:
        """Publish what may be sent now, and again what was not handed over; whether all is over."""
        handed = await self.sql.fetch(
            "SELECT transmission_id FROM sessions.handovers WHERE transmission_id = ANY($1)",
            list(self.open),
        )
        again = self.open.keys() - {row[0] for row in handed}
        due = [self.open[id_] for id_ in again]
        for instance_id, line in self.waiting.items():
            in_flight = sum(1 for t in self.open.values() if t.instance_id == instance_id)
            for _ in range(min(len(line), AT_ONCE - in_flight)):
                transmission = line.pop(0)
                self.open[transmission.transmission_id] = transmission
                due.append(transmission)
        by_shard: dict[int, list[Transmission]] = {}
        for transmission in due:
            by_shard.setdefault(self.shards[transmission.instance_id], []).append(transmission)
        await self.broker.publish(
            [
                Outgoing(
                    exchange=COMMANDS,
                    routing_key=shard_queue(shard),
                    body=Transmit(shard=shard, transmissions=tuple(items))
                    .model_dump_json()
                    .encode(),
                    message_id=str(new_id()),
                    type=Transmit.TYPE,
                )
                for shard, items in by_shard.items()
            ]
        )
        return not self.open and not any(self.waiting.values())


@dataclass
class Pair:
    """Two session processes, one of them to be broken, and who is there to use them."""

    one: Process
    owner: str
    driver: Driver
    sql: asyncpg.Connection

    async def on_the_wire(self) -> int:
        return int(await self.sql.fetchval("SELECT count(*) FROM sessions.sandbox_wire"))

    async def drive(self) -> None:
        """Send everything, to whatever end."""
        await eventually(
            self.driver.step, within=timedelta(seconds=90), every=timedelta(milliseconds=100)
        )

    async def under_way(self) -> None:
        """Return when a good part has been sent."""

        async def enough() -> bool:
            return await self.on_the_wire() > MESSAGES // 5

        await eventually(enough, within=timedelta(seconds=40))


@asynccontextmanager
async def process(
    name: str, folder: Path, database_url: str, amqp_url: str
) -> AsyncIterator[Process]:
    made = Process(
        name,
        "services.sessions",
        {
            "DATABASE_URL": database_url,
            "AMQP_URL": amqp_url,
            "WAYPOST_SESSIONS_PORT": str(free_port()),
            "WAYPOST_MEDIA_STORE": str(folder / "media"),
            "ENCRYPTION_KEYS": KEYS,
            **LEASES,
        },
        folder / f"{name}.log",
    )
    await made.start()
    try:
        yield made
    finally:
        assert await made.stop() == 0, made.output()[-4000:]


@pytest.fixture
async def pair(tmp_path: Path, database_url: str, own_amqp_url: str) -> AsyncIterator[Pair]:
    async with AsyncExitStack() as stack:
        sql = await asyncpg.connect(database_url)
        stack.push_async_callback(sql.close)
        watching = await asyncpg.connect(database_url)
        stack.push_async_callback(watching.close)
        tenant = await an_organization(sql)
        shards = {}
        for number in range(INSTANCES):
            instance = await a_paired_instance(
                sql, tenant, phone_number=f"+1202557{number:04d}", shard=number * 2
            )
            shards[instance] = number * 2
        broker = await stack.enter_async_context(RabbitBroker.connect(own_amqp_url, name="driver"))
        driver = Driver(broker, sql, shards)
        await stack.enter_async_context(
            broker.subscribe(
                Subscription(queue="dispatcher.commands", receive=driver.receive, batch=50)
            )
        )
        one = await stack.enter_async_context(process("one", tmp_path, database_url, own_amqp_url))

        async def first() -> str | None:
            owner: str | None = await watching.fetchval("SELECT max(owner) FROM sessions.shards")
            return owner

        owner = await eventually(first, within=timedelta(seconds=60))
        await stack.enter_async_context(process("other", tmp_path, database_url, own_amqp_url))

        async def shared() -> bool:
            owned = await watching.fetch(
                "SELECT count(*) FROM sessions.shards WHERE lease_until > clock_timestamp()"
                " GROUP BY owner"
            )
            ready = await watching.fetchval(
                "SELECT count(*) FROM sessions.session_states WHERE status = 'ready'"
            )
            return sorted(row[0] for row in owned) == [32, 32] and ready == INSTANCES

        await eventually(shared, within=timedelta(seconds=60))
        driver.accept(
            [
                a_transmission(instance, to=f"+1202556{number:04d}")
                for number in range(MESSAGES)
                for instance in [list(shards)[number % INSTANCES]]
            ]
        )
        yield Pair(one, str(owner), driver, watching)


async def the_wire_is_right(pair: Pair) -> None:
    """Each message at most once, epochs never backwards, nothing accepted that was not sent."""
    assert len(pair.driver.ended) == MESSAGES
    rows = await pair.sql.fetch("SELECT * FROM sessions.sandbox_wire ORDER BY id")
    assert sum(row["replays"] for row in rows) == 0
    newest: dict[int, int] = {}
    for row in rows:
        assert row["epoch"] >= newest.get(row["shard"], 0)
        newest[row["shard"]] = row["epoch"]
    sent = {row["engine_message_id"] for row in rows}
    accepted = await pair.sql.fetch(
        "SELECT DISTINCT message_id, engine_message_id FROM sessions.handovers"
    )
    ids = {row["message_id"]: row["engine_message_id"] for row in accepted}
    for message, outcome in pair.driver.ended.items():
        assert outcome in {TransmissionOutcome.ACCEPTED, TransmissionOutcome.UNKNOWN}
        assert ids[message] in sent or outcome is TransmissionOutcome.UNKNOWN
    on_wire = {message for message, id_ in ids.items() if id_ in sent}

    async def every_receipt_came() -> bool:
        return on_wire <= pair.driver.received

    await eventually(every_receipt_came, within=timedelta(seconds=30))
    assert (
        await pair.sql.fetchval("SELECT count(*) FROM sessions.handovers WHERE outcome IS NULL")
        == 0
    )


async def test_a_killed_process_loses_and_doubles_nothing(pair: Pair) -> None:
    driving = asyncio.ensure_future(pair.drive())
    await pair.under_way()
    await pair.one.kill()
    await driving
    await the_wire_is_right(pair)
    owners = await pair.sql.fetchval(
        "SELECT count(DISTINCT owner) FROM sessions.shards WHERE lease_until > clock_timestamp()"
    )
    assert owners == 1


async def test_a_frozen_process_sends_nothing_when_it_wakes_up(pair: Pair) -> None:
    driving = asyncio.ensure_future(pair.drive())
    await pair.under_way()
    held: set[int] = set()

    async def frozen_with_something_in_its_hands() -> bool:
        pair.one.send(signal.SIGSTOP)
        rows = await pair.sql.fetch(
            "SELECT h.shard, count(*) FROM sessions.handovers h JOIN sessions.shards s"
            " ON s.id = h.shard AND s.epoch = h.epoch AND s.owner = $1"
            " WHERE h.outcome IS NULL GROUP BY h.shard",
            pair.owner,
        )
        # Of a shard whose last messages these are, nobody else has anything to send.
        going_on = {row[0] for row in rows} & pair.driver.unfinished()
        if sum(row[1] for row in rows) < IN_ITS_HANDS or not going_on:
            pair.one.send(signal.SIGCONT)
            return False
        held.update(going_on)
        return True

    async def others_send_for_it() -> bool:
        rows = await pair.sql.fetch(
            "SELECT w.shard FROM sessions.sandbox_wire w JOIN sessions.shards s"
            " ON s.id = w.shard AND s.epoch = w.epoch AND s.owner <> $1",
            pair.owner,
        )
        return held <= {row[0] for row in rows}

    try:
        await eventually(frozen_with_something_in_its_hands, every=timedelta(milliseconds=7))
        # RabbitMQ must miss two heartbeats before it gives the queues to somebody else.
        await eventually(others_send_for_it, within=timedelta(seconds=60))
    finally:
        pair.one.send(signal.SIGCONT)
    await driving
    await the_wire_is_right(pair)
