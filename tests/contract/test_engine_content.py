"""What every engine promises about what is said, asked and shown, whatever it speaks to."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, Protocol

import asyncpg
import orjson
import pytest

from services.sessions.engines.port import (
    Attachment,
    Connected,
    Engine,
    MessageEdited,
    MessageReceived,
    MessageRevoked,
    Opening,
    Outgoing,
    Paired,
    Qr,
    Reaction,
    SessionDown,
    Stanza,
)
from services.sessions.engines.port import Sink as EngineSink
from services.sessions.engines.sandbox.engine import SandboxEngine
from services.sessions.engines.sandbox.files import PIXEL
from services.sessions.store.fence import Fence
from shared.clock import SystemClock
from shared.contracts.capabilities import CLOUD_API, SANDBOX, Capability
from shared.contracts.commands import WriteFromSandboxContact
from shared.contracts.content import (
    ContactCard,
    Content,
    Edit,
    Location,
    Media,
    Poll,
    PollVote,
    Revoke,
    Sendable,
    Text,
)
from shared.contracts.content import Reaction as SentReaction
from shared.contracts.questions import (
    ChangedMembers,
    ChangeMembers,
    CheckedNumbers,
    CheckNumbers,
    CreateGroup,
    Done,
    Group,
    Groups,
    InviteLink,
    LeaveGroup,
    ListGroups,
    PairByCode,
    PairingCode,
    Profile,
    TellGroup,
    TellInviteLink,
    TellProfile,
)
from shared.db.database import Database
from shared.db.tables.grants import role
from shared.errors import Rejected, Transient
from shared.ids import new_id
from shared.media.settings import MediaSettings
from shared.media.store import MediaStore
from tests.contract.arrived import Arrived
from tests.contract.cloud_api_trial import cloud_api
from tests.support.builders import a_file, an_instance, an_organization
from tests.support.leases import take_shard
from tests.support.sessions import engine_id
from tests.support.sink import Sink


class Trial(Protocol):
    """An engine on trial, with power over the WhatsApp that it speaks to.

    ``contact`` is the address of somebody there who does what the trial says, ``nobody`` the digits
    of a number that is not on WhatsApp.
    """

    engine: Engine
    contact: str
    nobody: str

    def watched(self, sink: EngineSink) -> EngineSink:
        """The sink to give to the engine, so that new devices are linked as they ask for it."""
        ...

    async def unopened(self, *, scanned: bool = True) -> Opening:
        """A session that nobody has opened, under a lease that is valid.

        Unless it is ``scanned``, no phone scans the codes that it will show.
        """
        ...

    async def say(
        self,
        opening: Opening,
        content: Content,
        *,
        file: bytes | None = None,
        group: str | None = None,
    ) -> str:
        """Have the contact say something to an instance; return the message's id.

        In a group that both are in, if one is named. Media has a ``file``.
        """
        ...

    async def change(
        self,
        opening: Opening,
        target_id: str,
        *,
        action: Literal["edit", "revoke", "reaction"],
        text: str = "",
    ) -> None:
        """Have the contact edit or revoke a message of its own, or react to one, with ``text``."""
        ...

    async def arrived(self, opening: Opening, count: int) -> Sequence[Arrived]:
        """The first ``count`` things that an instance has sent to the contact."""
        ...

    async def enter(self, opening: Opening, code: str, number: str) -> None:
        """Have somebody type a pairing code into the phone that has a number."""
        ...


class SandboxTrial:
    """The sandbox, which is its own WhatsApp."""

    contact = "12025550142@s.whatsapp.net"
    nobody = "12025550101"

    def __init__(self, database: Database, store: MediaStore, url: str) -> None:
        self._database = database
        self._store = store
        self._url = url
        self._sandbox = SandboxEngine(
            database=database, fence=Fence(database), store=store, clock=SystemClock()
        )
        self.engine: Engine = self._sandbox

    def watched(self, sink: EngineSink) -> EngineSink:
        return sink

    async def unopened(self, *, scanned: bool = True) -> Opening:
        return Opening(
            instance_id=new_id(),
            tenant_id=new_id(),
            lease=await take_shard(self._database),
            phone_number=None,
            settings={} if scanned else {"autoScan": False},
        )

    async def say(
        self,
        opening: Opening,
        content: Content,
        *,
        file: bytes | None = None,
        group: str | None = None,
    ) -> str:
        if file is not None:
            content = content.model_copy(update={"media_id": await self._uploaded(opening, file)})
        id_ = engine_id(new_id())
        await self._sandbox.write(
            WriteFromSandboxContact(
                instance_id=opening.instance_id,
                from_=self.contact,
                engine_message_id=id_,
                content=content,
                group=group,
            ),
            cause=str(new_id()),
        )
        return id_

    async def change(
        self,
        opening: Opening,
        target_id: str,
        *,
        action: Literal["edit", "revoke", "reaction"],
        text: str = "",
    ) -> None:
        await self._sandbox.write(
            WriteFromSandboxContact(
                instance_id=opening.instance_id,
                from_=self.contact,
                action=action,
                engine_message_id=target_id,
                content=Text(text=text) if action == "edit" else None,
                emoji=text if action == "reaction" else None,
            ),
            cause=str(new_id()),
        )

    async def arrived(self, opening: Opening, count: int) -> Sequence[Arrived]:
        async with self._database.hot() as connection:
            rows = await connection.fetch(
                "SELECT body, recipient FROM sessions.sandbox_wire"
                " WHERE instance_id = $1 ORDER BY id LIMIT $2",
                opening.instance_id,
                count,
            )
        assert len(rows) == count
        return [await self._seen(opening, orjson.loads(row[0]), recipient=row[1]) for row in rows]

    async def enter(self, opening: Opening, code: str, number: str) -> None:
        self._sandbox.scan(opening.instance_id)

    async def _seen(self, opening: Opening, body: dict[str, Any], *, recipient: str) -> Arrived:
        file = None
        if "sha256" in body:
            file = b"".join(
                [part async for part in self._store.read(opening.tenant_id, body["sha256"])]
            )
        words = ("text", "caption", "name", "question", "emoji")
        return Arrived(
            kind=body["kind"],
            group=recipient if recipient.endswith("@g.us") else None,
            text=next((body[word] for word in words if word in body), None),
            target=body.get("targetId"),
            file=file,
        )

    async def _uploaded(self, opening: Opening, file: bytes) -> str:
        """The ``mediaId`` of a file of the instance's tenant, which the sandbox's contacts send."""
        digest, media_id = sha256(file).hexdigest(), new_id()
        with TemporaryDirectory() as folder:
            path = Path(folder) / "file"
            await asyncio.to_thread(path.write_bytes, file)
            await self._store.put(opening.tenant_id, path, digest)
        sql = await asyncpg.connect(self._url)
        try:
            await an_organization(sql, id=opening.tenant_id)
            await an_instance(sql, opening.tenant_id, id=opening.instance_id, status=None)
            await a_file(sql, opening.tenant_id, id=media_id, sha256=digest, size=len(file))
        finally:
            await sql.close()
        return str(media_id)


@asynccontextmanager
async def sandbox(database_url: str) -> AsyncIterator[Trial]:
    with TemporaryDirectory(prefix="waypost-tests-") as folder:
        store = MediaStore.of(
            MediaSettings.model_validate(
                {
                    "database_url": database_url,
                    "amqp_url": "amqp://memory.invalid",
                    "media_store": folder,
                }
            )
        )
        async with Database.open(database_url, role=role("sessions")) as database:
            yield SandboxTrial(database, store, database_url)


TRIALS: dict[str, Callable[[str], AbstractAsyncContextManager[Trial]]] = {
    "sandbox": sandbox,
    "cloud_api": cloud_api,
}
ABLE: Mapping[str, frozenset[Capability]] = {"sandbox": SANDBOX, "cloud_api": CLOUD_API}


def needs(*capabilities: Capability) -> pytest.MarkDecorator:
    """For engines that can do this; the others are never asked to."""
    able = [name for name in TRIALS if ABLE[name].issuperset(capabilities)]
    return pytest.mark.parametrize("trial", able, indirect=True)


@pytest.fixture(params=TRIALS)
async def trial(request: pytest.FixtureRequest, database_url: str) -> AsyncIterator[Trial]:
    async with TRIALS[request.param](database_url) as made:
        yield made


@pytest.fixture
async def sink(trial: Trial) -> AsyncIterator[Sink]:
    sink = Sink()
    async with trial.engine.events(trial.watched(sink)):
        yield sink


async def opened(trial: Trial, sink: Sink) -> Opening:
    """A session that is connected."""
    opening = await trial.unopened()
    await trial.engine.open(opening)
    await sink.first(Connected, opening.instance_id)
    return opening


# What a message can say


SAID: Mapping[str, tuple[Sendable, str]] = {
    "text": (Text(text="Hello"), "Hello"),
    "location": (Location(latitude=52.5, longitude=13.4, name="Berlin"), "Berlin"),
    "contact": (ContactCard(name="Ada", phones=("+12025550199",)), "Ada"),
    "poll": (Poll(question="Tea?", options=("Yes", "No")), "Tea?"),
}


async def sent(trial: Trial, opening: Opening, content: Sendable, **more: Any) -> str:
    """Say something to the contact; return the message's id."""
    done = await trial.engine.transmit(
        opening.instance_id,
        Outgoing(
            engine_message_id=engine_id(new_id()),
            to=more.pop("to", trial.contact),
            content=content,
            **more,
        ),
    )
    return done.engine_message_id


@pytest.mark.parametrize("kind", sorted(SAID.keys() - {"poll"}))
async def test_what_is_sent_arrives_as_it_was_said(trial: Trial, sink: Sink, kind: str) -> None:
    opening = await opened(trial, sink)
    content, words_of_it = SAID[kind]
    await sent(trial, opening, content)
    (arrived,) = await trial.arrived(opening, 1)
    assert (arrived.kind, arrived.text) == (kind, words_of_it)


@needs(Capability.POLL)
async def test_a_poll_arrives_as_it_was_asked(trial: Trial, sink: Sink) -> None:
    opening = await opened(trial, sink)
    content, words_of_it = SAID["poll"]
    await sent(trial, opening, content)
    (arrived,) = await trial.arrived(opening, 1)
    assert (arrived.kind, arrived.text) == ("poll", words_of_it)


async def test_a_file_arrives_whole(trial: Trial, sink: Sink, tmp_path: Path) -> None:
    opening = await opened(trial, sink)
    path = tmp_path / "house.png"
    path.write_bytes(PIXEL)
    attachment = Attachment(
        path=path, mime_type="image/png", size=len(PIXEL), sha256=sha256(PIXEL).hexdigest()
    )
    content = Media(kind="image", mime_type="image/png", caption="Our house")
    await sent(trial, opening, content, attachment=attachment)
    (arrived,) = await trial.arrived(opening, 1)
    assert arrived == replace(arrived, kind="image", text="Our house", file=PIXEL)
    assert path.read_bytes() == PIXEL


async def test_what_was_sent_can_be_reacted_to(trial: Trial, sink: Sink) -> None:
    opening = await opened(trial, sink)
    first = await sent(trial, opening, Text(text="Hello"))
    await sent(trial, opening, SentReaction(target_id=first, emoji="👍"))
    arrived = (await trial.arrived(opening, 2))[1]
    assert (arrived.kind, arrived.text, arrived.target) == ("reaction", "👍", first)


@needs(Capability.EDIT, Capability.REVOKE)
async def test_what_was_sent_can_be_reacted_to_edited_and_revoked(trial: Trial, sink: Sink) -> None:
    opening = await opened(trial, sink)
    first = await sent(trial, opening, Text(text="Helo"))
    changes: tuple[tuple[Sendable, tuple[str, str | None, str]], ...] = (
        (SentReaction(target_id=first, emoji="👍"), ("reaction", "👍", first)),
        (Edit(target_id=first, text="Hello"), ("edit", "Hello", first)),
        (Revoke(target_id=first), ("revoke", None, first)),
    )
    for number, (change, shown) in enumerate(changes, 2):
        await sent(trial, opening, change)
        # Waited for before the next: contacts may look at several kinds beside one another.
        arrived = (await trial.arrived(opening, number))[-1]
        assert (arrived.kind, arrived.text, arrived.target) == shown


# What comes in


HEARD: Mapping[str, Content] = {
    "text": Text(text="Hello"),
    "location": Location(latitude=52.5, longitude=13.4, name="Berlin"),
    "contact": ContactCard(name="Ada", phones=("+12025550199",)),
    "poll": Poll(question="Tea?", options=("Yes", "No")),
}


@pytest.mark.parametrize("kind", sorted(HEARD.keys() - {"poll"}))
async def test_what_a_contact_says_is_heard_as_it_was_said(
    trial: Trial, sink: Sink, kind: str
) -> None:
    opening = await opened(trial, sink)
    id_ = await trial.say(opening, HEARD[kind])
    heard = await sink.first(MessageReceived, opening.instance_id)
    assert (heard.content, heard.engine_message_id) == (HEARD[kind], id_)
    assert heard.chat == heard.sender.chat_id == trial.contact
    assert heard.media is None


@needs(Capability.POLL)
async def test_a_poll_is_heard_as_it_was_asked(trial: Trial, sink: Sink) -> None:
    opening = await opened(trial, sink)
    id_ = await trial.say(opening, HEARD["poll"])
    heard = await sink.first(MessageReceived, opening.instance_id)
    assert (heard.content, heard.engine_message_id) == (HEARD["poll"], id_)


async def test_an_answer_names_what_it_answers(trial: Trial, sink: Sink) -> None:
    opening = await opened(trial, sink)
    first = await sent(trial, opening, Text(text="Tea?"))
    await trial.say(opening, Text(text="Yes", reply_to=first))
    heard = await sink.first(MessageReceived, opening.instance_id)
    assert heard.reply_to == first


@needs(Capability.POLL)
async def test_a_vote_names_its_poll_and_what_was_chosen(trial: Trial, sink: Sink) -> None:
    opening = await opened(trial, sink)
    poll = await sent(trial, opening, Poll(question="Tea?", options=("Yes", "No")))
    await trial.say(opening, PollVote(poll_id=poll, options=("Yes",)))
    heard = await sink.first(MessageReceived, opening.instance_id)
    assert heard.content == PollVote(poll_id=poll, options=("Yes",))


async def test_a_file_that_comes_in_can_be_fetched(
    trial: Trial, sink: Sink, tmp_path: Path
) -> None:
    opening = await opened(trial, sink)
    content = Media(kind="document", mime_type="text/plain", filename="note.txt")
    await trial.say(opening, content, file=b"A note.")
    heard = await sink.first(MessageReceived, opening.instance_id)
    assert isinstance(heard.content, Media)
    assert (heard.content.kind, heard.content.filename) == ("document", "note.txt")
    assert heard.media is not None
    for name in ("once", "again"):
        await trial.engine.fetch(opening.instance_id, heard.media, tmp_path / name)
        assert (tmp_path / name).read_bytes() == b"A note."


async def test_a_file_cannot_be_fetched_without_a_connection(
    trial: Trial, sink: Sink, tmp_path: Path
) -> None:
    opening = await opened(trial, sink)
    content = Media(kind="document", mime_type="text/plain", filename="note.txt")
    await trial.say(opening, content, file=b"A note.")
    heard = await sink.first(MessageReceived, opening.instance_id)
    assert heard.media is not None
    await trial.engine.close(opening.instance_id)
    with pytest.raises(Transient):
        await trial.engine.fetch(opening.instance_id, heard.media, tmp_path / "file")


@needs(Capability.EDIT)
async def test_a_contact_edits_reacts_to_and_revokes_what_it_said(trial: Trial, sink: Sink) -> None:
    opening = await opened(trial, sink)
    first = await trial.say(opening, Text(text="Helo"))
    await trial.change(opening, first, action="edit", text="Hello")
    await trial.change(opening, first, action="reaction", text="👍")
    await trial.change(opening, first, action="revoke")
    revoked = await sink.first(MessageRevoked, opening.instance_id)
    (edited,) = sink.of(MessageEdited, opening.instance_id)
    (reaction,) = sink.of(Reaction, opening.instance_id)
    assert (edited.target_id, edited.content) == (first, Text(text="Hello"))
    assert (reaction.target_id, reaction.emoji, reaction.author) == (first, "👍", None)
    assert revoked.target_id == first
    events = [event for event in sink.got if isinstance(event, Stanza)]
    assert len({event.stanza_key for event in events}) == 4


async def test_a_reaction_to_what_the_account_has_sent_names_it(trial: Trial, sink: Sink) -> None:
    opening = await opened(trial, sink)
    mine = await sent(trial, opening, Text(text="Hello"))
    await trial.change(opening, mine, action="reaction", text="❤️")
    reaction = await sink.first(Reaction, opening.instance_id)
    assert (reaction.target_id, reaction.emoji, reaction.author) == (mine, "❤️", None)


# Questions


@needs(Capability.NUMBER_CHECK)
async def test_numbers_are_looked_up_in_the_order_they_were_asked(trial: Trial, sink: Sink) -> None:
    opening = await opened(trial, sink)
    there = trial.contact.partition("@")[0]
    said = await trial.engine.ask(opening.instance_id, CheckNumbers(numbers=(trial.nobody, there)))
    assert isinstance(said, CheckedNumbers)
    assert [(one.number, one.on_whatsapp) for one in said.numbers] == [
        (trial.nobody, False),
        (there, True),
    ]
    assert said.numbers[1].address is not None


async def test_the_account_tells_who_it_is(trial: Trial, sink: Sink) -> None:
    opening = await opened(trial, sink)
    said = await trial.engine.ask(opening.instance_id, TellProfile())
    assert isinstance(said, Profile)
    paired = [event.phone_number for event in sink.of(Paired, opening.instance_id)]
    connected = [event.phone_number for event in sink.of(Connected, opening.instance_id)]
    assert said.identity.phone == [*paired, *connected][0]
    assert said.identity.phone is not None


async def a_group(trial: Trial, opening: Opening) -> Group:
    """A group of the account and the contact."""
    said = await trial.engine.ask(
        opening.instance_id, CreateGroup(name="Harbour", members=(trial.contact,))
    )
    assert isinstance(said, Group)
    return said


@needs(Capability.GROUPS)
async def test_a_group_has_those_it_was_made_of(trial: Trial, sink: Sink) -> None:
    opening = await opened(trial, sink)
    made = await a_group(trial, opening)
    said = await trial.engine.ask(opening.instance_id, TellGroup(group=made.id))
    assert isinstance(said, Group)
    assert (said.name, said.size) == ("Harbour", 2)
    roles = {member.identity.chat_id: member.role for member in said.members}
    assert roles[trial.contact] == "member"
    assert sorted(roles.values()) == ["member", "owner"]
    listed = await trial.engine.ask(opening.instance_id, ListGroups())
    assert isinstance(listed, Groups)
    assert [group.id for group in listed.groups] == [made.id]


@needs(Capability.GROUPS)
async def test_what_is_said_to_a_group_arrives_there(trial: Trial, sink: Sink) -> None:
    opening = await opened(trial, sink)
    group = await a_group(trial, opening)
    await sent(trial, opening, Text(text="Ahoy"), to=group.id)
    (arrived,) = await trial.arrived(opening, 1)
    assert (arrived.group, arrived.text) == (group.id, "Ahoy")


@needs(Capability.GROUPS)
async def test_what_is_said_in_a_group_names_group_and_sender(trial: Trial, sink: Sink) -> None:
    opening = await opened(trial, sink)
    group = await a_group(trial, opening)
    await trial.say(opening, Text(text="Ahoy"), group=group.id)
    heard = await sink.first(MessageReceived, opening.instance_id)
    assert (heard.chat, heard.sender.chat_id) == (group.id, trial.contact)


@needs(Capability.GROUPS)
async def test_members_of_a_group_come_go_and_run_it(trial: Trial, sink: Sink) -> None:
    opening = await opened(trial, sink)
    group = await a_group(trial, opening)

    async def change(what: Literal["add", "remove", "promote", "demote"]) -> str | None:
        said = await trial.engine.ask(
            opening.instance_id,
            ChangeMembers(group=group.id, change=what, members=(trial.contact,)),
        )
        assert isinstance(said, ChangedMembers)
        (one,) = said.members
        return one.error

    async def role() -> str | None:
        said = await trial.engine.ask(opening.instance_id, TellGroup(group=group.id))
        assert isinstance(said, Group)
        roles = {member.identity.chat_id: member.role for member in said.members}
        return roles.get(trial.contact)

    seen = []
    for what in ("promote", "demote", "remove", "add"):
        assert await change(what) is None
        seen.append(await role())
    assert seen == ["admin", "member", None, "member"]
    assert await change("add") is not None


@needs(Capability.GROUPS)
async def test_the_link_to_a_group_can_be_renewed(trial: Trial, sink: Sink) -> None:
    opening = await opened(trial, sink)
    group = await a_group(trial, opening)

    async def link(*, renew: bool) -> str:
        said = await trial.engine.ask(
            opening.instance_id, TellInviteLink(group=group.id, renew=renew)
        )
        assert isinstance(said, InviteLink)
        return said.url

    first = await link(renew=False)
    assert first.startswith("https://chat.whatsapp.com/")
    assert await link(renew=False) == first
    assert await link(renew=True) != first


@needs(Capability.GROUPS)
async def test_who_has_left_a_group_is_not_in_it(trial: Trial, sink: Sink) -> None:
    opening = await opened(trial, sink)
    group = await a_group(trial, opening)
    assert await trial.engine.ask(opening.instance_id, LeaveGroup(group=group.id)) == Done()
    listed = await trial.engine.ask(opening.instance_id, ListGroups())
    assert listed == Groups(groups=())
    with pytest.raises(Rejected):
        await trial.engine.ask(opening.instance_id, TellGroup(group=group.id))
    with pytest.raises(Rejected):
        await sent(trial, opening, Text(text="Ahoy"), to=group.id)


@needs(Capability.PAIRING_CODE)
async def test_a_code_links_the_phone_that_it_is_typed_into(trial: Trial, sink: Sink) -> None:
    opening = await trial.unopened(scanned=False)
    await trial.engine.open(opening)
    await sink.first(Qr, opening.instance_id)
    said = await trial.engine.ask(opening.instance_id, PairByCode(phone_number="+12025550177"))
    assert isinstance(said, PairingCode)
    assert re.fullmatch(r"[1-9A-Z]{4}-[1-9A-Z]{4}", said.code)
    await trial.enter(opening, said.code, "+12025550177")
    paired = await sink.first(Paired, opening.instance_id)
    assert paired.phone_number == "+12025550177"
    await sink.first(Connected, opening.instance_id)
    with pytest.raises(Rejected):
        await trial.engine.ask(opening.instance_id, PairByCode(phone_number="+12025550177"))


# Signs


async def test_what_was_said_can_be_marked_as_read(trial: Trial, sink: Sink) -> None:
    opening = await opened(trial, sink)
    id_ = await trial.say(opening, Text(text="Hello"))
    await sink.first(MessageReceived, opening.instance_id)
    await trial.engine.mark_read(
        opening.instance_id,
        chat=trial.contact,
        sender=trial.contact,
        engine_message_ids=[id_],
    )


@pytest.mark.parametrize("state", ["typing", "recording", "paused"])
async def test_a_chat_can_be_shown_what_the_account_is_doing(
    trial: Trial, sink: Sink, state: Literal["typing", "recording", "paused"]
) -> None:
    opening = await opened(trial, sink)
    # Where it can only be shown as an answer.
    await trial.say(opening, Text(text="Hello"))
    await sink.first(MessageReceived, opening.instance_id)
    await trial.engine.show_presence(opening.instance_id, chat=trial.contact, state=state)


async def test_without_a_connection_nothing_is_asked_and_nothing_shown(
    trial: Trial, sink: Sink
) -> None:
    opening = await opened(trial, sink)
    await trial.engine.close(opening.instance_id)
    for question in (TellProfile(), ListGroups(), CheckNumbers(numbers=("12025550142",))):
        with pytest.raises(SessionDown):
            await trial.engine.ask(opening.instance_id, question)
    with pytest.raises(SessionDown):
        await trial.engine.show_presence(opening.instance_id, chat=trial.contact, state="typing")
    with pytest.raises(SessionDown):
        await trial.engine.mark_read(
            opening.instance_id,
            chat=trial.contact,
            sender=trial.contact,
            engine_message_ids=["3EB0AA"],
        )
