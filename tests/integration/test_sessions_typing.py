"""A chat is shown that somebody types before it gets a text, and nothing else waits for that."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import ClassVar, Literal
from uuid import UUID

import asyncpg
import pytest
from typing_extensions import override

from services.sessions.domain.instance import Instance
from services.sessions.domain.lease import Lease
from services.sessions.domain.typing_time import AT_MOST, typing_time
from services.sessions.engines.port import SessionDown
from services.sessions.supervisor import Session
from services.sessions.typist import Typist
from shared.contracts.capabilities import Capability
from shared.contracts.commands import ConnectInstance, TransmissionOutcome
from shared.contracts.content import Location, Text
from shared.ids import new_id
from tests.support import sessions
from tests.support.builders import NOON, an_organization
from tests.support.clock import HandClock
from tests.support.engines import IdleEngine
from tests.support.sessions import Sessions, a_paired_instance, a_transmission

BOB = "12025550192@s.whatsapp.net"


class Typing(IdleEngine):
    """Notes to which chats what was shown."""

    capabilities: ClassVar[frozenset[Capability]] = frozenset({Capability.TYPING})

    def __init__(self, error: Exception | None = None) -> None:
        self.shown: list[tuple[str, str]] = []
        self._error = error

    @override
    async def show_presence(
        self, instance_id: UUID, *, chat: str, state: Literal["typing", "recording", "paused"]
    ) -> None:
        self.shown.append((chat, state))
        if self._error is not None:
            raise self._error


def a_session(engine: IdleEngine, *, typing: bool = True) -> Session:
    instance = Instance(
        id=new_id(),
        tenant_id=new_id(),
        shard=7,
        engine=engine.kind,
        phone_number=None,
        settings={},
        wanted=True,
        deleted=False,
        updated_at=NOON,
        typing=typing,
    )
    return Session(instance, Lease(shard=7, epoch=1, owner="a"), engine)


def test_typing_takes_as_long_as_the_text_is_up_to_a_bound() -> None:
    assert typing_time("") == timedelta(0)
    assert typing_time("x" * 20) == timedelta(seconds=1)
    assert typing_time("x" * 4096) == AT_MOST == timedelta(seconds=5)


async def test_the_chat_is_shown_it_for_as_long_as_the_text_takes() -> None:
    clock, engine = HandClock(), Typing()
    session, typist = a_session(engine), Typist(clock=clock, most=1)
    transmission = a_transmission(session.instance.id, to=BOB, content=Text(text="x" * 40))
    assert typist.wanted(session, transmission)
    await typist.type(session, transmission)
    assert engine.shown == [(BOB, "typing")]
    assert clock.now() == NOON + timedelta(seconds=2)


async def test_only_texts_of_who_wants_it_and_can_are_typed() -> None:
    typist = Typist(clock=HandClock(), most=1)
    text = a_transmission(new_id())
    place = a_transmission(new_id(), content=Location(latitude=1, longitude=2))
    assert typist.wanted(a_session(Typing()), text)
    assert not typist.wanted(a_session(Typing()), place)
    assert not typist.wanted(a_session(Typing(), typing=False), text)
    assert not typist.wanted(a_session(IdleEngine()), text)
    assert not Typist(clock=HandClock(), most=0).wanted(a_session(Typing()), text)


@pytest.mark.parametrize("error", [SessionDown("It is away."), ZeroDivisionError()])
async def test_what_cannot_be_shown_is_not_waited_for(error: Exception) -> None:
    clock = HandClock()
    session = a_session(Typing(error))
    await Typist(clock=clock, most=1).type(session, a_transmission(session.instance.id))
    assert clock.now() == NOON


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[Sessions]:
    async with sessions.running(database_url, reconcile_every=3600) as running:
        yield running


async def typing_instance(world: Sessions) -> UUID:
    tenant = await an_organization(world.sql)
    instance = await a_paired_instance(world.sql, tenant, guard={"typing": True})
    await world.command(ConnectInstance(instance_id=instance))
    await world.ready(instance)
    return instance


async def test_a_chat_that_is_typed_to_holds_up_no_other(world: Sessions) -> None:
    instance = await typing_instance(world)
    typed = a_transmission(instance, content=Text(text="x" * 20))
    other = a_transmission(instance, to=BOB, content=Location(latitude=1, longitude=2))
    await world.transmit(typed, other)
    await world.heard.outcome(typed)
    assert [one.message_id for one in world.heard.settled] == [other.message_id, typed.message_id]
    assert {one.outcome for one in world.heard.settled} == {TransmissionOutcome.ACCEPTED}


async def test_an_orderly_end_cuts_typing_short_and_the_text_goes(database_url: str) -> None:
    async with sessions.running(database_url) as world:
        instance = await typing_instance(world)
        first = a_transmission(instance, content=Text(text="x" * 4096))
        mark = a_transmission(instance, to=BOB, content=Location(latitude=1, longitude=2))
        await world.transmit(first, mark)
        # Both were handed over together, so that the first is being typed.
        await world.heard.outcome(mark)
    sql = await asyncpg.connect(database_url)
    rows = await sql.fetch("SELECT outcome, settled_at - handed_over_at FROM sessions.handovers")
    await sql.close()
    assert {row[0] for row in rows} == {"accepted"}
    assert max(row[1] for row in rows) < AT_MOST
