"""The session service over a real database, with a test as its dispatcher."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import sha256
from tempfile import TemporaryDirectory
from typing import Any, TypeVar
from uuid import UUID

import asyncpg
from prometheus_client import CollectorRegistry

from services.sessions.app import build
from services.sessions.settings import SessionsSettings
from shared.broker.memory import MemoryBroker
from shared.broker.port import Incoming, Outcome, Outgoing, Subscription
from shared.broker.topology import COMMANDS, REPLIES, shard_queue
from shared.clock import SystemClock
from shared.contracts import envelope
from shared.contracts.commands import (
    AskInstance,
    InstanceAnswered,
    Receipt,
    ReceiptsReported,
    SettledTransmission,
    Transmission,
    TransmissionsSettled,
    Transmit,
)
from shared.contracts.content import Text
from shared.contracts.envelope import Emitted
from shared.contracts.model import Command
from shared.contracts.questions import Question
from shared.db.database import Database
from shared.db.tables.grants import role
from shared.health import Health
from shared.ids import new_id
from shared.pause import Pause
from shared.runtime.serve import serve
from shared.runtime.service import Platform
from tests.support.builders import an_instance
from tests.support.keys import KEYS

T = TypeVar("T")

PATIENCE = 20.0  # Seconds; for what should take one or two, on a machine that is busy.
ALICE = "12025550199@s.whatsapp.net"


def engine_id(message_id: UUID) -> str:
    """As the dispatcher allocates it."""
    return "3EB0" + sha256(str(message_id).encode()).hexdigest()[:18].upper()


def a_transmission(instance_id: UUID, **given: Any) -> Transmission:
    """One hand-over of a text to an ordinary contact."""
    message_id = given.get("message_id") or new_id()
    return Transmission(
        **{
            "transmission_id": new_id(),
            "message_id": message_id,
            "tenant_id": new_id(),
            "instance_id": instance_id,
            "attempt": 1,
            "to": ALICE,
            "content": Text(text="Hello"),
            "engine_message_id": engine_id(message_id),
            **given,
        }
    )


@dataclass
class Heard:
    """What the session service has told, and a way to wait for it."""

    settled: list[SettledTransmission] = field(default_factory=list)
    receipts: list[Receipt] = field(default_factory=list)
    events: list[Emitted] = field(default_factory=list)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def commands(self, messages: Sequence[Incoming]) -> Sequence[Outcome]:
        for message in messages:
            if message.type == TransmissionsSettled.TYPE:
                self.settled += TransmissionsSettled.model_validate_json(message.body).settled
            elif message.type == ReceiptsReported.TYPE:
                self.receipts += ReceiptsReported.model_validate_json(message.body).receipts
        self._changed.set()
        return [Outcome.DONE] * len(messages)

    async def batches(self, messages: Sequence[Incoming]) -> Sequence[Outcome]:
        for message in messages:
            self.events += envelope.decode_batch(message.body)
        self._changed.set()
        return [Outcome.DONE] * len(messages)

    async def until(self, found: Callable[[], T | None]) -> T:
        """The first true answer of ``found``; asked whenever something has been told."""
        try:
            async with asyncio.timeout(PATIENCE):
                while not (answer := found()):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"never heard; at last {self.summary()}") from None
        return answer

    async def outcome(self, transmission: Transmission) -> SettledTransmission:
        """How a transmission has ended."""
        return await self.until(
            lambda: next(
                (
                    item
                    for item in self.settled
                    if item.transmission_id == transmission.transmission_id
                ),
                None,
            )
        )

    async def event(self, name: str, instance_id: UUID, *, count: int = 1) -> Emitted:
        """The ``count``-th event of a name about an instance."""
        return (await self.until(lambda: self.named(name, instance_id)[count - 1 :]))[0]

    def named(self, name: str, instance_id: UUID) -> list[Emitted]:
        """The events of a name about an instance, so far."""
        return [
            event
            for event in self.events
            if event.name == name and event.instance_id == instance_id
        ]

    async def receipts_of(self, message_id: UUID, *, count: int) -> list[str]:
        """The kinds of the first ``count`` receipts of a message."""

        def kinds() -> list[str]:
            return [item.kind for item in self.receipts if item.message_id == message_id]

        await self.until(lambda: len(kinds()) >= count)
        return kinds()

    def summary(self) -> str:
        """What was heard, for a test that has failed."""
        outcomes = [(item.outcome.value, item.code) for item in self.settled]
        return (
            f"{outcomes}, {[item.kind for item in self.receipts]}, {[e.name for e in self.events]}"
        )


class Sessions:
    """One session process, and everything around it that a test needs."""

    def __init__(
        self, *, sql: asyncpg.Connection, broker: MemoryBroker, heard: Heard, shard: int
    ) -> None:
        self.sql = sql
        self.broker = broker
        self.heard = heard
        self.shard = shard

    async def command(self, command: Command) -> None:
        """Send a command to the shard's owner."""
        await self.broker.publish(
            [
                Outgoing(
                    exchange=COMMANDS,
                    routing_key=shard_queue(self.shard),
                    body=command.model_dump_json().encode(),
                    message_id=str(new_id()),
                    type=command.TYPE,
                )
            ]
        )

    async def transmit(self, *transmissions: Transmission) -> None:
        """Hand over some transmissions, as the dispatcher does."""
        await self.command(Transmit(shard=self.shard, transmissions=transmissions))

    async def send(self, instance_id: UUID, **given: Any) -> SettledTransmission:
        """Transmit one message and wait for its outcome."""
        transmission = a_transmission(instance_id, **given)
        await self.transmit(transmission)
        return await self.heard.outcome(transmission)

    async def ask(
        self, instance_id: UUID, question: Question, *, ask_id: UUID | None = None
    ) -> InstanceAnswered:
        """Ask an instance something, as the gateway does, and wait for the answer."""
        ask_id = ask_id or new_id()
        answered: asyncio.Future[InstanceAnswered] = asyncio.get_running_loop().create_future()

        def hear(message: Incoming) -> None:
            answered.set_result(InstanceAnswered.model_validate_json(message.body))

        async with asyncio.timeout(PATIENCE), self.broker.listen(REPLIES, str(ask_id), hear):
            await self.command(
                AskInstance(
                    ask_id=ask_id,
                    instance_id=instance_id,
                    question=question,
                    reply_to=str(ask_id),
                    until=SystemClock().now() + timedelta(seconds=PATIENCE),
                )
            )
            return await answered

    async def ready(self, instance_id: UUID, *, count: int = 1) -> Emitted:
        """Wait until an instance has been connected ``count`` times."""
        return await self.heard.event("instance.connected", instance_id, count=count)


async def a_paired_instance(connection: asyncpg.Connection, tenant: UUID, **given: Any) -> UUID:
    """A sandbox instance whose phone is linked already, so that it connects at once."""
    id_ = new_id()
    phone = given.setdefault("phone_number", "+12025550190")
    await connection.execute(
        "INSERT INTO sessions.sandbox_accounts (tenant_id, phone, instance_id, linked_at)"
        " VALUES ($1, $2, $3, clock_timestamp())",
        tenant,
        phone.removeprefix("+"),
        id_,
    )
    return await an_instance(connection, tenant, **{"id": id_, "status": None, **given})


@asynccontextmanager
async def listening(broker: MemoryBroker) -> AsyncIterator[Heard]:
    """Stand where everybody else would."""
    heard = Heard()
    async with AsyncExitStack() as stack:
        receivers = {
            "dispatcher.commands": heard.commands,
            "gateway.events": heard.batches,
            "dispatcher.events": _ignore,
            "webhooks.events": _ignore,
            "stats.events": _ignore,
        }
        for queue, receive in receivers.items():
            await stack.enter_async_context(
                broker.subscribe(Subscription(queue=queue, receive=receive, batch=50))
            )
        yield heard


async def _ignore(messages: Sequence[Incoming]) -> Sequence[Outcome]:
    return [Outcome.DONE] * len(messages)


@asynccontextmanager
async def process(
    database_url: str, broker: MemoryBroker, pause: Pause | None = None, **settings: Any
) -> AsyncIterator[None]:
    """One session process, from start to an orderly end."""
    clock = SystemClock()
    stop, started = asyncio.Event(), asyncio.Event()
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory(prefix="waypost-tests-"))
        database = await stack.enter_async_context(
            Database.open(database_url, role=role("sessions"), name="sessions")
        )
        service = build(
            SessionsSettings(
                **{
                    "database_url": database_url,
                    "amqp_url": "amqp://memory.invalid",
                    "port": 0,
                    "logins_per_second": 1000,
                    "media_store": folder,
                    "encryption_keys": KEYS,
                    **settings,
                }
            ),
            Platform(
                database=database,
                broker=broker,
                clock=clock,
                registry=CollectorRegistry(),
                health=Health(clock),
                pause=pause or Pause(),
            ),
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(serve([service], broker=broker, stop=stop, started=started))
            await started.wait()
            try:
                yield
            finally:
                stop.set()


@asynccontextmanager
async def running(database_url: str, *, shard: int = 7, **settings: Any) -> AsyncIterator[Sessions]:
    """A session process with somebody to talk to."""
    sql = await asyncpg.connect(database_url)
    try:
        broker = MemoryBroker()
        async with listening(broker) as heard, process(database_url, broker, **settings):
            yield Sessions(sql=sql, broker=broker, heard=heard, shard=shard)
    finally:
        await sql.close()
