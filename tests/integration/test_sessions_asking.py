"""Questions to instances: who may be asked, what is answered, and what never is."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import ClassVar, Literal
from uuid import UUID

import pytest
from prometheus_client import CollectorRegistry
from typing_extensions import override

from services.sessions.asking import Asking
from services.sessions.domain.instance import Instance
from services.sessions.domain.lease import Lease
from services.sessions.domain.lifecycle import Status
from services.sessions.engines.port import (
    Engine,
    SessionDown,
)
from services.sessions.leases import Leases
from services.sessions.lines import Lines
from services.sessions.metrics import SessionsMetrics
from services.sessions.signs import Signs
from services.sessions.store.fence import Fence
from services.sessions.supervisor import Session
from shared.broker.memory import MemoryBroker
from shared.broker.port import Incoming
from shared.broker.port import Outgoing as Published
from shared.broker.topology import REPLIES
from shared.clock import SystemClock
from shared.contracts.capabilities import Capability
from shared.contracts.commands import (
    AskInstance,
    InstanceAnswered,
    MarkRead,
    Refusal,
    ShowPresence,
)
from shared.contracts.events import ConnectionUpdate
from shared.contracts.questions import (
    Answer,
    CheckedNumbers,
    CheckNumbers,
    CreateGroup,
    Done,
    Groups,
    LeaveGroup,
    ListGroups,
    PairByCode,
    PairingCode,
    Question,
    TellProfile,
)
from shared.db.database import Database
from shared.db.tables.grants import role
from shared.errors import PlatformError, Throttled, Transient, Unconfirmed
from shared.ids import new_id
from tests.support import sessions
from tests.support.builders import NOON, an_instance, an_organization
from tests.support.engines import IdleEngine
from tests.support.sessions import PATIENCE, Sessions, a_paired_instance

THERE, NOT_THERE = "12025550142", "12025550101"


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[Sessions]:
    async with sessions.running(database_url, reconcile_every=0.1) as running:
        yield running


@pytest.fixture
async def tenant(world: Sessions) -> UUID:
    return await an_organization(world.sql)


@pytest.fixture
async def instance(world: Sessions, tenant: UUID) -> UUID:
    id_ = await a_paired_instance(world.sql, tenant, phone_number="+12025550190")
    await world.ready(id_)
    return id_


async def refused(world: Sessions, instance: UUID, question: Question) -> Refusal:
    """Why a question is not answered."""
    said = await world.ask(instance, question)
    assert said.answer is None
    assert said.refusal is not None
    return said.refusal


# Numbers


async def checked(world: Sessions, instance: UUID, *numbers: str) -> list[bool]:
    """Whether numbers are on WhatsApp, says an instance."""
    said = await world.ask(instance, CheckNumbers(numbers=numbers))
    assert isinstance(said.answer, CheckedNumbers), said
    assert [one.number for one in said.answer.numbers] == list(numbers)
    return [one.on_whatsapp for one in said.answer.numbers]


async def remembered(world: Sessions, tenant: UUID, number: str, **given: object) -> None:
    """Have something known of a number, by default the opposite of what is so, since just now."""
    row = {"engine": "sandbox", "on_whatsapp": number == NOT_THERE, "ago": timedelta(0), **given}
    await world.sql.execute(
        "INSERT INTO sessions.numbers (tenant_id, engine, number, on_whatsapp, checked_at)"
        " VALUES ($1, $2, $3, $4, now() - $5::interval)",
        tenant,
        row["engine"],
        number,
        row["on_whatsapp"],
        row["ago"],
    )


async def test_numbers_are_answered_in_the_order_they_were_asked_and_remembered(
    world: Sessions, instance: UUID
) -> None:
    assert await checked(world, instance, NOT_THERE, THERE, NOT_THERE) == [False, True, False]
    rows = await world.sql.fetch(
        "SELECT number, on_whatsapp, address FROM sessions.numbers ORDER BY number"
    )
    assert [tuple(row) for row in rows] == [
        (NOT_THERE, False, None),
        (THERE, True, f"{THERE}@s.whatsapp.net"),
    ]


async def test_what_is_known_of_a_number_is_not_asked_again(
    world: Sessions, tenant: UUID, instance: UUID
) -> None:
    await remembered(world, tenant, THERE, ago=timedelta(minutes=59))
    await remembered(world, tenant, NOT_THERE, ago=timedelta(hours=23))
    assert await checked(world, instance, THERE, NOT_THERE) == [False, True]


async def test_a_missing_number_is_asked_for_again_after_an_hour_and_one_found_after_a_day(
    world: Sessions, tenant: UUID, instance: UUID
) -> None:
    await remembered(world, tenant, THERE, ago=timedelta(minutes=61))
    await remembered(world, tenant, NOT_THERE, ago=timedelta(hours=25))
    assert await checked(world, instance, THERE, NOT_THERE) == [True, False]
    assert await checked(world, instance, THERE, NOT_THERE) == [True, False]


async def test_what_another_tenant_or_another_engine_knows_does_not_count(
    world: Sessions, tenant: UUID, instance: UUID
) -> None:
    await remembered(world, await an_organization(world.sql), THERE)
    await remembered(world, tenant, THERE, engine="another")
    assert await checked(world, instance, THERE) == [True]


# Who can be asked


async def test_an_instance_that_nobody_has_connected_refuses(world: Sessions, tenant: UUID) -> None:
    away = await an_instance(world.sql, tenant, connected=False, status="disconnected")
    assert (await refused(world, away, TellProfile())).code == "INSTANCE_NOT_READY"
    assert (await refused(world, new_id(), TellProfile())).code == "INSTANCE_NOT_READY"


async def test_an_instance_that_waits_for_a_phone_refuses_all_but_a_code(
    world: Sessions, tenant: UUID
) -> None:
    new = await an_instance(world.sql, tenant, status=None, settings={"autoScan": False})
    await world.heard.event("instance.qr", new)
    refusal = await refused(world, new, TellProfile())
    assert (refusal.code, "qr" in refusal.message) == ("INSTANCE_NOT_READY", True)
    said = await world.ask(new, PairByCode(phone_number="+12025550177"))
    assert isinstance(said.answer, PairingCode)
    update = (await world.heard.event("connection.update", new)).event
    assert isinstance(update, ConnectionUpdate)
    assert (update.connection, update.code) == ("pairing_code", said.answer.code)
    assert update.expires_at is not None


async def test_an_instance_that_is_paired_gives_no_code(world: Sessions, instance: UUID) -> None:
    refusal = await refused(world, instance, PairByCode(phone_number="+12025550177"))
    assert (refusal.code, "ready" in refusal.message) == ("CONFLICT", True)


async def test_what_whatsapp_refuses_is_told_with_its_code(world: Sessions, instance: UUID) -> None:
    assert (await refused(world, instance, LeaveGroup(group="1@g.us"))).code == "NOT_FOUND"


async def test_instances_answer_beside_their_messages(world: Sessions, instance: UUID) -> None:
    """One message that is never acknowledged holds up no question."""
    stuck = sessions.a_transmission(instance, to="+12025550105")
    await world.transmit(stuck)
    assert await checked(world, instance, THERE) == [True]
    assert world.heard.settled == []


# Late and twice


async def command(instance: UUID, question: Question, **given: object) -> AskInstance:
    return AskInstance.model_validate(
        {
            "ask_id": new_id(),
            "instance_id": instance,
            "question": question,
            "reply_to": "nobody",
            "until": SystemClock().now() + timedelta(seconds=PATIENCE),
            **given,
        }
    )


async def groups(world: Sessions, instance: UUID) -> list[str]:
    said = await world.ask(instance, ListGroups())
    assert isinstance(said.answer, Groups)
    return [group.name for group in said.answer.groups]


async def test_what_comes_when_nobody_waits_any_more_is_not_asked(
    world: Sessions, instance: UUID
) -> None:
    late = SystemClock().now() - timedelta(milliseconds=1)
    await world.command(await command(instance, CreateGroup(name="Late", members=()), until=late))
    assert await groups(world, instance) == []


async def test_a_question_that_comes_twice_is_asked_once(world: Sessions, instance: UUID) -> None:
    ask_id = new_id()
    once = CreateGroup(name="Once", members=())
    await world.ask(instance, once, ask_id=ask_id)
    await world.command(await command(instance, once, ask_id=ask_id))
    await world.ask(instance, CreateGroup(name="Then", members=()))
    assert await groups(world, instance) == ["Once", "Then"]


async def test_an_answer_that_nobody_hears_disturbs_nobody(world: Sessions, instance: UUID) -> None:
    await world.command(await command(instance, TellProfile()))
    assert await groups(world, instance) == []


# Signs


async def test_marking_as_read_tells_the_instance_that_wrote(
    world: Sessions, tenant: UUID, instance: UUID
) -> None:
    reader = await a_paired_instance(
        world.sql, tenant, phone_number="+12025550192", settings={"autoRead": False}
    )
    await world.ready(reader)
    transmission = sessions.a_transmission(instance, to="+12025550192")
    await world.transmit(transmission)
    await world.heard.event("message.received", reader)
    assert await world.heard.receipts_of(transmission.message_id, count=1) == ["delivered"]
    mark = MarkRead(
        instance_id=reader,
        chat="12025550190@s.whatsapp.net",
        sender="12025550190@s.whatsapp.net",
        engine_message_ids=(transmission.engine_message_id,),
    )
    await world.command(mark)
    assert await world.heard.receipts_of(transmission.message_id, count=2) == ["delivered", "read"]


async def test_signs_for_an_instance_that_is_not_there_are_dropped(
    world: Sessions, instance: UUID
) -> None:
    soon = SystemClock().now() + timedelta(seconds=5)
    for id_ in (new_id(), instance):
        await world.command(
            ShowPresence(instance_id=id_, chat="120255501@g.us", state="typing", until=soon)
        )
    await world.command(
        MarkRead(
            instance_id=new_id(), chat="1@g.us", sender="1@g.us", engine_message_ids=("3EB0AA",)
        )
    )
    assert await checked(world, instance, THERE) == [True]


# Bounds, with an engine that takes as long as the test wants


@dataclass
class Slow(IdleEngine):
    """An engine that answers when the test lets it, with what the test wants."""

    kind: ClassVar[str] = "slow"
    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {Capability.GROUPS, Capability.TYPING}
    )

    gate: asyncio.Event = field(default_factory=asyncio.Event)
    asked: int = 0
    cancelled: int = 0
    shown: list[str] = field(default_factory=list)
    error: Exception | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @override
    async def ask(self, instance_id: UUID, question: Question) -> Answer:
        self.asked += 1
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            self.changed.set()
            raise
        if self.error is not None:
            raise self.error
        return Done()

    @override
    async def show_presence(
        self, instance_id: UUID, *, chat: str, state: Literal["typing", "recording", "paused"]
    ) -> None:
        if state == "typing":
            await self.gate.wait()
        self.shown.append(state)
        self.changed.set()


LEASE = Lease(7, 1, "us")


class Desk:
    """Questions to instances of a slow engine, and what is answered."""

    def __init__(self, broker: MemoryBroker, leases: Leases) -> None:
        self.engine = Slow()
        self.answers: list[InstanceAnswered] = []
        self.leases = leases
        self.broker = broker
        self.asking: Asking
        self.signs: Signs
        self._sessions: dict[UUID, Session] = {}

    def session(self, instance_id: UUID) -> Session | None:
        return self._sessions.get(instance_id)

    def an_instance(self) -> UUID:
        instance = Instance(
            id=new_id(),
            tenant_id=new_id(),
            shard=LEASE.shard,
            engine="slow",
            phone_number=None,
            settings={},
            wanted=True,
            deleted=False,
            updated_at=NOON,
        )
        engine: Engine = self.engine
        session = Session(instance, LEASE, engine)
        session.status = Status.READY
        self._sessions[instance.id] = session
        return instance.id

    def ask(
        self, instance: UUID, question: Question | None = None, *, patience: float = PATIENCE
    ) -> UUID:
        ask_id = new_id()
        self.asking.ask(
            AskInstance(
                ask_id=ask_id,
                instance_id=instance,
                question=question or ListGroups(),
                reply_to="me",
                until=SystemClock().now() + timedelta(seconds=patience),
            )
        )
        return ask_id

    def hear(self, message: Incoming) -> None:
        self.answers.append(InstanceAnswered.model_validate_json(message.body))
        self.engine.changed.set()

    async def answered(self, ask_id: UUID) -> InstanceAnswered:
        await self.until(lambda: ask_id in {answer.ask_id for answer in self.answers})
        return next(answer for answer in self.answers if answer.ask_id == ask_id)

    async def until(self, found: Callable[[], bool]) -> None:
        """Return when something is so; looked at whenever the engine or an answer has moved."""
        async with asyncio.timeout(PATIENCE):
            while not found():
                self.engine.changed.clear()
                await self.engine.changed.wait()

    async def refusal(self, ask_id: UUID) -> str:
        refusal = (await self.answered(ask_id)).refusal
        assert refusal is not None
        return refusal.code


class Faltering(MemoryBroker):
    """A broker that is away for the first so many publishes."""

    failures = 0

    @override
    async def publish(self, messages: Sequence[Published]) -> None:
        if self.failures:
            self.failures -= 1
            raise Transient("The broker is away.")
        await super().publish(messages)


@pytest.fixture
async def desk(database_url: str) -> AsyncIterator[Desk]:
    broker, clock = Faltering(), SystemClock()
    leases = Leases(clock=clock, fence_after=timedelta(minutes=1))
    leases.grant([LEASE], asked_at=clock.monotonic())
    desk = Desk(broker, leases)
    async with Database.open(database_url, role=role("sessions")) as database:
        lines, metrics = Lines(most=5, most_each=2), SessionsMetrics(CollectorRegistry())
        desk.signs = Signs(leases=leases, sessions=desk, clock=clock, metrics=metrics, lines=lines)
        desk.asking = Asking(
            database=database,
            fence=Fence(database),
            leases=leases,
            sessions=desk,
            broker=broker,
            clock=clock,
            told=lambda _: None,
            metrics=metrics,
            lines=lines,
        )
        async with broker.listen(REPLIES, "me", desk.hear), lines.running():
            yield desk


async def test_one_instance_is_asked_so_much_at_a_time_and_no_more(desk: Desk) -> None:
    busy, other = desk.an_instance(), desk.an_instance()
    open_ = [desk.ask(busy) for _ in range(2)]
    assert await desk.refusal(desk.ask(busy)) == Throttled.code
    also = desk.ask(other)
    desk.engine.gate.set()
    for ask_id in (*open_, also, desk.ask(other)):
        assert (await desk.answered(ask_id)).answer == Done()


async def test_all_instances_together_are_asked_so_much_and_no_more(desk: Desk) -> None:
    open_ = [desk.ask(desk.an_instance()) for _ in range(5)]
    assert await desk.refusal(desk.ask(desk.an_instance())) == Throttled.code
    desk.engine.gate.set()
    for ask_id in open_:
        assert (await desk.answered(ask_id)).answer == Done()
    assert (await desk.answered(desk.ask(desk.an_instance()))).answer == Done()


async def test_a_flood_is_refused_only_as_long_as_refusing_is_cheap(desk: Desk) -> None:
    instance = desk.an_instance()
    for _ in range(500):
        desk.ask(instance)
    assert len(asyncio.all_tasks()) < 40
    desk.engine.gate.set()
    await desk.until(lambda: len(desk.answers) == 20)
    await asyncio.sleep(0)  # Tasks that have answered end with this turn of the loop.
    assert (await desk.answered(desk.ask(desk.an_instance()))).answer == Done()


async def test_who_waits_no_longer_is_not_answered_and_the_engine_is_let_go(desk: Desk) -> None:
    desk.ask(desk.an_instance(), patience=0.05)
    await desk.until(lambda: desk.engine.cancelled == 1)
    assert desk.answers == []


async def test_what_an_engine_cannot_do_is_refused_with_what_it_can(desk: Desk) -> None:
    ask_id = desk.ask(desk.an_instance(), TellProfile())
    refusal = (await desk.answered(ask_id)).refusal
    assert refusal is not None
    assert refusal.code == "UNSUPPORTED"
    assert "groups, typing" in refusal.message
    assert desk.engine.asked == 0


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SessionDown("Gone."), "INSTANCE_NOT_READY"),
        (Throttled("Slow down."), "RATE_LIMIT_EXCEEDED"),
        (Transient("Not now."), "ENGINE_UNAVAILABLE"),
        (Unconfirmed("Nobody knows."), "UNCONFIRMED"),
        (PlatformError("No.", code="SOMETHING"), "SOMETHING"),
        (ZeroDivisionError(), "ENGINE_UNAVAILABLE"),
    ],
)
async def test_what_an_engine_raises_is_told(desk: Desk, error: Exception, code: str) -> None:
    desk.engine.error = error
    desk.engine.gate.set()
    assert await desk.refusal(desk.ask(desk.an_instance())) == code


async def test_a_process_that_may_have_lost_the_shard_asks_nothing(desk: Desk) -> None:
    instance = desk.an_instance()
    desk.leases.drop(LEASE)
    assert await desk.refusal(desk.ask(instance)) == "ENGINE_UNAVAILABLE"
    assert desk.engine.asked == 0


async def test_an_answer_waits_for_a_broker_that_is_away(desk: Desk) -> None:
    assert isinstance(desk.broker, Faltering)
    desk.broker.failures = 2
    desk.engine.gate.set()
    assert (await desk.answered(desk.ask(desk.an_instance()))).answer == Done()


async def test_a_sign_never_passes_an_earlier_one(desk: Desk) -> None:
    instance = desk.an_instance()
    until = SystemClock().now() + timedelta(seconds=PATIENCE)
    states: Sequence[Literal["typing", "paused"]] = ("typing", "paused")
    for state in states:
        desk.signs.show_presence(
            ShowPresence(instance_id=instance, chat="1@g.us", state=state, until=until)
        )
    for _ in range(5):
        await asyncio.sleep(0)
    assert desk.engine.shown == []
    desk.engine.gate.set()
    await desk.until(lambda: len(desk.engine.shown) == 2)
    assert desk.engine.shown == ["typing", "paused"]


async def test_a_sign_that_comes_too_late_is_not_shown(desk: Desk) -> None:
    desk.engine.gate.set()
    instance = desk.an_instance()

    def show(state: Literal["typing", "paused"], until: datetime) -> None:
        desk.signs.show_presence(
            ShowPresence(instance_id=instance, chat="1@g.us", state=state, until=until)
        )

    show("typing", SystemClock().now())
    show("paused", SystemClock().now() + timedelta(seconds=PATIENCE))
    await desk.until(lambda: bool(desk.engine.shown))
    assert desk.engine.shown == ["paused"]


_: type[Engine] = Slow
