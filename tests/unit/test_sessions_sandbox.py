"""The sandbox's parts that need no database."""

import orjson
import pytest

from services.sessions.engines.port import Capability, MessageReceived, StatusChanged, needed
from services.sessions.engines.sandbox import stanzas
from services.sessions.engines.sandbox.agenda import GRAIN, Agenda
from services.sessions.engines.sandbox.numbers import ORDINARY, Answer, behaviour
from shared.contracts.commands import WriteFromSandboxContact
from shared.contracts.content import (
    ContactCard,
    Content,
    Location,
    Media,
    Poll,
    Text,
)
from shared.ids import new_id
from tests.support.builders import NOON


def test_only_the_numbers_of_the_table_are_special() -> None:
    special = [last for last in range(200) if behaviour(f"1202555{last:04d}") is not ORDINARY]
    assert special == list(range(101, 114))
    assert behaviour(None) is ORDINARY


def test_an_agenda_names_the_next_moment_and_forgets_the_past() -> None:
    agenda = Agenda()
    assert agenda.next_after(0) is None
    assert agenda.expect(1.0)
    assert not agenda.expect(2.0)
    assert not agenda.expect(1.0)
    assert agenda.expect(0.5)
    first = agenda.next_after(0)
    assert first is not None
    assert 0.5 <= first <= 0.5 + 2 * GRAIN
    second = agenda.next_after(first)
    assert second is not None
    assert 1.0 <= second <= 1.0 + 2 * GRAIN


def test_a_receipt_can_be_read_back() -> None:
    instance = new_id()
    event = stanzas.read(instance, orjson.loads(stanzas.receipt("3EB0AA", "read")), at=NOON)
    assert event == StatusChanged(
        instance_id=instance, at=NOON, engine_message_id="3EB0AA", status="read"
    )


@pytest.mark.parametrize(
    "content",
    [
        Text(text="Hi", mentions=("+12025550142",)),
        Media(kind="voice", mime_type="audio/ogg"),
        Location(latitude=1.5, longitude=-2.5, name="Here"),
        ContactCard(name="Zoe", phones=("+12025550142",)),
        Poll(question="Tea?", options=("yes", "no")),
    ],
)
def test_any_content_can_be_written_by_a_contact(content: Content) -> None:
    command = WriteFromSandboxContact(
        instance_id=new_id(), from_="+12025550142", engine_message_id="3EB0AA", content=content
    )
    body = orjson.loads(stanzas.written(command, cause="once"))
    event = stanzas.read(command.instance_id, body, at=NOON)
    assert isinstance(event, MessageReceived)
    assert event.content == content
    assert event.sender.phone == "+12025550142"


def test_two_edits_of_one_message_are_two_stanzas_and_a_repeat_is_one() -> None:
    command = WriteFromSandboxContact(
        instance_id=new_id(),
        from_="+12025550142",
        action="edit",
        engine_message_id="3EB0AA",
        content=Text(text="Hi"),
    )
    keys = []
    for cause in ("first", "first", "second"):
        body = orjson.loads(stanzas.written(command, cause=cause))
        event = stanzas.read(command.instance_id, body, at=NOON)
        keys.append(getattr(event, "stanza_key"))  # noqa: B009 - whichever kind it is
    assert keys[0] == keys[1] != keys[2]


def test_an_answer_to_a_message_is_the_same_whenever_it_is_given() -> None:
    said = stanzas.encode(Text(text="Hi"))
    first = stanzas.answer(Answer.SAME, to="3EB0AA", by="12025550108", content=said)
    assert first == stanzas.answer(Answer.SAME, to="3EB0AA", by="12025550108", content=said)
    assert orjson.loads(first)["id"] != "3EB0AA"


def test_nonsense_is_refused() -> None:
    with pytest.raises(ValueError, match="a stanza of kind"):
        stanzas.read(new_id(), {"kind": "smoke", "id": "x", "from": "1202555"}, at=NOON)


def test_every_kind_of_content_needs_a_capability() -> None:
    assert needed(Text(text="Hi")) is Capability.TEXT
    assert needed(Media(kind="image", mime_type="image/png")) is Capability.MEDIA
    assert needed(Poll(question="Tea?", options=("yes",))) is Capability.POLL
