"""The sandbox's parts that need no database."""

from collections.abc import Mapping
from typing import Literal

import orjson
import pytest

from services.sessions.engines import port
from services.sessions.engines.port import MessageReceived, StatusChanged
from services.sessions.engines.sandbox import groups, stanzas
from services.sessions.engines.sandbox.agenda import GRAIN, Agenda
from services.sessions.engines.sandbox.groups import Group
from services.sessions.engines.sandbox.numbers import ORDINARY, Answer, behaviour
from services.sessions.engines.sandbox.server import Due
from shared.contracts.commands import WriteFromSandboxContact
from shared.contracts.content import (
    ContactCard,
    Content,
    Edit,
    Location,
    Media,
    Poll,
    Reaction,
    Revoke,
    Sendable,
    Text,
)
from shared.contracts.questions import ChangeMembers
from shared.ids import new_id
from tests.support.builders import NOON

ALICE = "12025550142@s.whatsapp.net"


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
    body = orjson.loads(stanzas.written(command, content=content, media=None, cause="once"))
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
        body = orjson.loads(
            stanzas.written(command, content=command.content, media=None, cause=cause)
        )
        event = stanzas.read(command.instance_id, body, at=NOON)
        keys.append(getattr(event, "stanza_key"))  # noqa: B009 - whichever kind it is
    assert keys[0] == keys[1] != keys[2]


def test_an_answer_to_a_message_is_the_same_whenever_it_is_given() -> None:
    first, again = (
        stanzas.answer(
            Answer.SAME, to="3EB0AA", by="12025550108", content=Text(text="Hi"), media=None
        )
        for _ in range(2)
    )
    assert first == again
    assert orjson.loads(first)["id"] != "3EB0AA"


def test_words_to_one_person_are_left_to_the_server() -> None:
    assert forwarded(Text(text="Hi")) is None
    assert forwarded(Text(text="Hi", reply_to="3EB0BB")) is not None


@pytest.mark.parametrize(
    ("said", "event"),
    [
        (Reaction(target_id="3EB0BB", emoji="👍"), port.Reaction),
        (Edit(target_id="3EB0BB", text="Hello"), port.MessageEdited),
        (Revoke(target_id="3EB0BB"), port.MessageRevoked),
    ],
)
def test_what_changes_a_message_names_it_and_has_an_id_of_its_own(
    said: Sendable, event: type[port.Reaction | port.MessageEdited | port.MessageRevoked]
) -> None:
    body = forwarded(said)
    assert body is not None
    read = stanzas.read(new_id(), body, at=NOON)
    assert isinstance(read, event)
    assert (read.target_id, read.stanza_key) == ("3EB0BB", f"{ALICE}|3EB0AA")
    assert read.sender.chat_id == ALICE


def test_a_reaction_to_what_somebody_else_wrote_names_its_author() -> None:
    zoe = "12025550199@s.whatsapp.net"
    body = forwarded(Reaction(target_id="3EB0BB", target_sender="+12025550199", emoji="👍"))
    assert body is not None
    read = stanzas.read(new_id(), body, at=NOON)
    assert isinstance(read, port.Reaction)
    assert read.author is not None
    assert read.author.chat_id == zoe


def test_what_is_said_in_a_group_names_the_group_and_who_said_it() -> None:
    body = forwarded(Text(text="Ahoy"), group="1203@g.us")
    assert body is not None
    read = stanzas.read(new_id(), body, at=NOON)
    assert isinstance(read, MessageReceived)
    assert (read.chat, read.sender.chat_id) == ("1203@g.us", ALICE)


def test_whoever_does_not_read_says_only_that_it_was_delivered() -> None:
    origin = new_id()
    body: dict[str, object] = {"kind": "edit", "id": "3EB0BB", "cause": "3EB0AA", "from": "1"}
    due = Due(1, new_id(), NOON, {**body, "origin": str(origin)})
    for reads, statuses in ((True, ["delivered", "read"]), (False, ["delivered"])):
        echoes = stanzas.echoes(due, reads=reads)
        assert {echo.instance_id for echo in echoes} == {origin}
        receipts = [orjson.loads(echo.body) for echo in echoes]
        assert [receipt["status"] for receipt in receipts] == statuses
        assert {receipt["id"] for receipt in receipts} == {"3EB0AA"}
    assert stanzas.echoes(Due(1, new_id(), NOON, body), reads=True) == ()


def forwarded(said: Sendable, *, group: str | None = None) -> dict[str, object] | None:
    """What others get of a message with the id 3EB0AA by Alice."""
    outgoing = port.Outgoing(engine_message_id="3EB0AA", to="1", content=said)
    body = stanzas.forwarded(outgoing, by="12025550142", group=group, media=None)
    return None if body is None else dict(orjson.loads(body))


# Groups

ROLES: Mapping[str, groups.Role] = {"1": "owner", "2": "admin", "3": "member"}


def a_group(members: Mapping[str, groups.Role] = ROLES) -> Group:
    return Group(id="1203@g.us", name="Harbour", members=members, invite="x", created_at=NOON)


def change(
    what: Literal["add", "remove", "promote", "demote"], *members: str, by: str = "1"
) -> tuple[dict[str, str], list[bool]]:
    """The members of the group above after a change, and for whom it was made."""
    asked = ChangeMembers(group="1203@g.us", change=what, members=members)
    after, outcomes = groups.changed(a_group(), asked, by=by)
    return dict(after.members), [outcome.error is None for outcome in outcomes]


def test_a_new_group_is_its_founders_and_has_those_who_are_on_whatsapp() -> None:
    made = groups.founded(
        "Harbour", "1", ["+2", "3@s.whatsapp.net", "12025550101", "1@s.whatsapp.net"], now=NOON
    )
    assert made.members == {"2": "member", "3": "member", "1": "owner"}
    assert made.id.endswith("@g.us")
    assert made.told().size == 3


def test_members_are_added_removed_promoted_and_demoted_one_by_one() -> None:
    everyone = {"1": "owner", "2": "admin", "3": "member"}
    assert change("add", "4", "3", "12025550101") == (
        {**everyone, "4": "member"},
        [True, False, False],
    )
    assert change("remove", "3", "4", "1", by="2") == (
        {"1": "owner", "2": "admin"},
        [True, False, False],
    )
    assert change("promote", "3", "1") == ({**everyone, "3": "admin"}, [True, False])
    assert change("demote", "2", "1") == ({**everyone, "2": "member"}, [True, False])


def test_only_those_who_run_a_group_change_its_members() -> None:
    with pytest.raises(port.Refused):
        change("add", "4", by="3")


def test_a_group_is_run_by_somebody_whoever_leaves() -> None:
    assert groups.left(a_group(), "1").members == {"2": "admin", "3": "member"}
    alone = groups.left(a_group({"1": "owner", "3": "member", "2": "member"}), "1")
    assert alone.members == {"3": "member", "2": "admin"}
    assert groups.left(a_group({"1": "owner"}), "1").members == {}


def test_a_renewed_link_is_another_one() -> None:
    first = a_group()
    assert len({first.invite, groups.renewed(first).invite}) == 2


def test_nonsense_is_refused() -> None:
    with pytest.raises(ValueError, match="a stanza of kind"):
        stanzas.read(new_id(), {"kind": "smoke", "id": "x", "from": "1202555"}, at=NOON)
