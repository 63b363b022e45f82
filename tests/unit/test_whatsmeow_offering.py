"""Offering events to the sink: in order, until they are taken, receipts out of the way."""

from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from uuid import UUID

from services.sessions.engines.port import Connected, EngineEvent, MessageReceived, StatusChanged
from services.sessions.engines.whatsmeow import offering
from services.sessions.engines.whatsmeow.offering import Offering
from shared.contracts.content import Identity, Text
from shared.errors import Transient
from shared.ids import new_id
from tests.support.builders import NOON
from tests.support.clock import HandClock

INSTANCE = new_id()


def message(id_: str) -> MessageReceived:
    return MessageReceived(
        instance_id=INSTANCE,
        at=NOON,
        stanza_key=f"message|a|a|{id_}",
        chat="a",
        sender=Identity(chat_id="a"),
        engine_message_id=id_,
        content=Text(text=id_),
    )


def receipt(id_: str) -> StatusChanged:
    return StatusChanged(instance_id=INSTANCE, at=NOON, engine_message_id=id_, status="delivered")


class Sink:
    """Refuses those that it is told to."""

    def __init__(self) -> None:
        self.refused: set[str] = set()
        self.away = False
        self.got: list[str] = []

    async def __call__(self, events: Sequence[EngineEvent]) -> Sequence[bool]:
        if self.away:
            raise Transient("away")
        flags = []
        for event in events:
            id_ = getattr(event, "engine_message_id", type(event).__name__)
            flags.append(id_ not in self.refused)
            if flags[-1]:
                self.got.append(id_)
        return flags


def an_offering() -> tuple[Offering, Sink, HandClock]:
    sink, clock = Sink(), HandClock()
    return Offering(sink=sink, clock=clock), sink, clock


async def test_what_is_put_is_offered_in_order() -> None:
    offered, sink, _ = an_offering()
    taken: list[str] = []
    for id_ in ("1", "2", "3"):
        offered.put(message(id_), taken=partial(taken.append, id_))
    assert await offered.step() is None
    assert sink.got == taken == ["1", "2", "3"]


async def test_a_refused_receipt_does_not_hold_up_messages() -> None:
    offered, sink, clock = an_offering()
    sink.refused = {"r"}
    offered.put(receipt("r"))
    offered.put(message("1"))
    assert await offered.step() == offering.AGAIN.total_seconds()
    offered.put(message("2"))
    await offered.step()
    assert sink.got == ["1", "2"]
    sink.refused.clear()
    clock.move(offering.AGAIN)
    assert await offered.step() is None
    assert sink.got == ["1", "2", "r"]


async def test_a_refused_message_holds_up_what_comes_after_it() -> None:
    offered, sink, clock = an_offering()
    sink.refused = {"1"}
    offered.put(message("1"))
    await offered.step()
    offered.put(message("2"))
    await offered.step()
    assert sink.got == []
    sink.refused.clear()
    clock.move(offering.AGAIN)
    await offered.step()
    assert sink.got == ["1", "2"]


async def test_while_the_database_is_away_everything_waits() -> None:
    offered, sink, clock = an_offering()
    sink.away = True
    offered.put(message("1"))
    assert await offered.step() == offering.AGAIN.total_seconds()
    sink.away = False
    clock.move(timedelta(seconds=2))
    await offered.step()
    assert sink.got == ["1"]


async def test_there_is_an_end_to_what_waits_in_memory() -> None:
    offered, sink, _ = an_offering()
    sink.away = True
    for number in range(offering.MOST):
        assert offered.put(message(str(number)), taken=lambda: None)
    assert not offered.put(message("too much"), taken=lambda: None)
    assert offered.put(Connected(instance_id=UUID(int=1), at=NOON))
