"""The session service with numbers at Meta: what is sent, what comes in, and what may go wrong."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

import pytest

from services.sessions.domain.lifecycle import Status
from shared.contracts.commands import (
    ConnectInstance,
    DisconnectInstance,
    MarkRead,
    ShowPresence,
    TakeCallbacks,
    Transmission,
    TransmissionOutcome,
)
from shared.contracts.content import Media, Poll, Text
from shared.contracts.events import MessageReaction, MessageReceived
from shared.contracts.questions import Profile, TellProfile
from shared.db.database import Database
from shared.db.tables.grants import role
from shared.ids import new_id
from shared.security.sealing import seal_text, setting_place
from tests.support import meta as metas
from tests.support import sessions
from tests.support.builders import NOON, an_instance, an_organization
from tests.support.eventually import eventually
from tests.support.keys import RING
from tests.support.meta import TOKEN, Error, Json, Meta, a_message, a_status, a_text, a_value
from tests.support.sessions import Sessions, a_transmission

ALICE = "12025550199"
LATER = NOON + timedelta(days=5000)


@dataclass
class World:
    """A session process and a Meta."""

    meta: Meta
    sessions: Sessions
    database: Database

    async def instance(self, *, token: str = TOKEN, ready: bool = True) -> UUID:
        """An instance with a number at Meta, and its secrets as the gateway seals them."""
        sql, id_ = self.sessions.sql, new_id()
        tenant = await an_organization(sql)
        settings = self.meta.settings(self.meta.add_number())
        for name, secret in (("accessToken", token), ("appSecret", metas.APP_SECRET)):
            settings[name] = seal_text(RING, secret, setting_place(tenant, id_, name))
        await an_instance(sql, tenant, id=id_, engine="cloud_api", settings=settings, status=None)
        if ready:
            await self.sessions.ready(id_)
        return id_

    async def told(self, instance: UUID, *values: Json, news: bool = True) -> None:
        """The gateway has stored a callback, and says so unless that is lost."""
        tenant = await self.sessions.sql.fetchval(
            "SELECT tenant_id FROM gateway.instances WHERE id = $1", instance
        )
        async with self.database.hot() as connection:
            await metas.store(connection, RING, tenant, instance, values)
        if news:
            await self.sessions.command(TakeCallbacks(shard=self.sessions.shard))

    async def status(self, instance: UUID) -> tuple[str, str | None]:
        """How an instance is, and why."""
        row = await self.sessions.sql.fetchrow(
            "SELECT status, last_error FROM sessions.session_states WHERE instance_id = $1",
            instance,
        )
        assert row is not None
        return row[0], row[1]

    async def becomes(self, instance: UUID, status: Status) -> str:
        """Return why an instance has come to be so, once it is."""

        async def so() -> Any:
            found, why = await self.status(instance)
            return found == status.value and (why or "no reason")

        return str(await eventually(so))

    async def waiting(self) -> int:
        """How many callbacks wait."""
        found: int = await self.sessions.sql.fetchval("SELECT count(*) FROM sessions.callbacks")
        return found

    async def taken(self) -> None:
        """Return when no callback waits any more."""

        async def none() -> bool:
            return await self.waiting() == 0

        await eventually(none)


@asynccontextmanager
async def running(database_url: str, meta: Meta, **settings: Any) -> AsyncIterator[World]:
    async with (
        sessions.running(
            database_url,
            cloud_api_url=meta.url,
            allowed_nets="127.0.0.0/8",
            reconcile_every=0.1,
            **settings,
        ) as process,
        Database.open(database_url, role=role("gateway")) as database,
    ):
        yield World(meta, process, database)


@pytest.fixture
async def meta() -> AsyncIterator[Meta]:
    async with Meta.running() as running:
        yield running


@pytest.fixture
async def world(database_url: str, meta: Meta) -> AsyncIterator[World]:
    async with running(database_url, meta) as made:
        yield made


def to_alice(instance: UUID, **given: Any) -> Transmission:
    return a_transmission(instance, **given)


# Opening


async def test_an_instance_is_ready_once_meta_has_told_whose_number_it_is(world: World) -> None:
    instance = await world.instance()
    assert await world.status(instance) == ("ready", None)
    event = await world.sessions.ready(instance)
    assert event.event.model_dump()["phone_number"] == "+12025550000"


async def test_a_token_that_is_not_valid_logs_the_instance_out_and_says_what_to_do(
    world: World,
) -> None:
    instance = await world.instance(token="of yesterday", ready=False)
    why = await world.becomes(instance, Status.LOGGED_OUT)
    assert "(190)" in why
    assert "put a new accessToken" in why


async def test_a_number_that_is_not_there_fails_the_instance(world: World) -> None:
    world.meta.failing.append(Error(400, 100, "Object does not exist"))
    instance = await world.instance(ready=False)
    assert "does not exist" in await world.becomes(instance, Status.FAILED)


async def test_an_outage_of_meta_is_waited_for(world: World) -> None:
    world.meta.failing += [Error(503), Error(500, 131000)]
    instance = await world.instance(ready=False)
    update = await world.sessions.heard.event("connection.update", instance)
    assert "503" in update.event.model_dump()["reason"]
    await world.sessions.ready(instance)


async def test_secrets_that_no_key_opens_are_not_sent_to_anybody(world: World) -> None:
    instance = await world.instance()
    await world.sessions.sql.execute(
        'UPDATE gateway.instances SET settings = settings || \'{"accessToken": "sealed:AgFh"}\''
        " WHERE id = $1",
        instance,
    )
    world.meta.failing.append(Error(400, 190))
    await world.sessions.send(instance)
    await world.becomes(instance, Status.LOGGED_OUT)
    await world.sessions.sql.execute("UPDATE gateway.instances SET updated_at = $1", LATER)

    async def connecting() -> bool:
        return (await world.status(instance))[0] == "connecting"

    await eventually(connecting)
    assert world.meta.sent == []


async def test_an_instance_whose_secrets_no_key_opens_can_be_deleted(world: World) -> None:
    instance = await an_instance(
        world.sessions.sql,
        await an_organization(world.sessions.sql),
        engine="cloud_api",
        settings={"phoneNumberId": "11111", "accessToken": "sealed:AgFh"},
        status="ready",
        connected=False,
        deleted_at=NOON,
    )
    await world.becomes(instance, Status.LOGGED_OUT)


# Sending


async def test_a_message_is_accepted_under_metas_id_and_its_receipts_find_it(
    world: World,
) -> None:
    instance = await world.instance()
    transmission = to_alice(instance)
    await world.sessions.transmit(transmission)
    settled = await world.sessions.heard.outcome(transmission)
    [sent] = world.meta.sent
    assert settled.outcome is TransmissionOutcome.ACCEPTED
    assert (settled.engine_message_id, sent.to) == (sent.id, ALICE)
    statuses = [a_status(sent, status) for status in ("read", "sent", "sent", "delivered")]
    await world.told(instance, a_value("1", statuses=statuses))
    kinds = await world.sessions.heard.receipts_of(transmission.message_id, count=4)
    assert kinds == ["read", "sent", "sent", "delivered"]
    await world.taken()


async def test_a_receipt_that_comes_before_the_answer_finds_its_message_too(
    world: World,
) -> None:
    instance = await world.instance()

    async def at_once(sent: metas.Sent) -> None:
        await world.told(instance, a_value("1", statuses=[a_status(sent, "delivered")]))
        await world.taken()

    world.meta.then = at_once
    transmission = to_alice(instance)
    await world.sessions.transmit(transmission)
    assert (await world.sessions.heard.outcome(transmission)).outcome.value == "accepted"
    receipts = await world.sessions.heard.receipts_of(transmission.message_id, count=1)
    assert receipts == ["delivered"]


async def test_a_receipt_settles_what_meta_has_never_answered(
    database_url: str, meta: Meta
) -> None:
    async with running(database_url, meta, transmit_deadline=0.3) as world:
        instance = await world.instance()
        meta.silent.add(ALICE)
        transmission = to_alice(instance)
        await world.sessions.transmit(transmission)
        settled = await world.sessions.heard.outcome(transmission)
        assert settled.outcome is TransmissionOutcome.UNKNOWN
        ours = {"to": ALICE, "biz_opaque_callback_data": transmission.engine_message_id}
        sent = metas.Sent("1", "wamid.after-all", ours)
        await world.told(instance, a_value("1", statuses=[a_status(sent, "delivered")]))
        await world.sessions.heard.receipts_of(transmission.message_id, count=1)
        [receipt] = world.sessions.heard.receipts
        assert receipt.engine_message_id == "wamid.after-all"


async def test_what_meta_takes_back_is_reported_with_its_reason(world: World) -> None:
    instance = await world.instance()
    transmission = to_alice(instance)
    await world.sessions.transmit(transmission)
    await world.sessions.heard.outcome(transmission)
    error = {"code": 131047, "title": "Re-engagement message"}
    status = a_status(world.meta.sent[0], "failed", errors=[error])
    await world.told(instance, a_value("1", statuses=[status]))
    await world.sessions.heard.receipts_of(transmission.message_id, count=1)
    [receipt] = world.sessions.heard.receipts
    assert (receipt.kind, receipt.code) == ("failed", "REJECTED")
    assert receipt.detail == "WhatsApp says: Re-engagement message (131047)."


async def test_what_meta_refuses_is_told_apart(world: World) -> None:
    instance = await world.instance()
    for error, outcome, code in (
        (Error(400, 131047), TransmissionOutcome.REJECTED, "REJECTED"),
        (Error(400, 131056), TransmissionOutcome.RETRYABLE, "RETRYABLE"),
        (Error(429, 130429), TransmissionOutcome.RETRYABLE, "RATE_LIMIT_EXCEEDED"),
        (Error(502), TransmissionOutcome.UNKNOWN, "UNCONFIRMED"),
    ):
        world.meta.refusing[ALICE] = error
        settled = await world.sessions.send(instance)
        assert (settled.outcome, settled.code) == (outcome, code)
    poll = await world.sessions.send(instance, content=Poll(question="Tea?", options=("a", "b")))
    assert (poll.outcome, poll.code) == (TransmissionOutcome.REJECTED, "UNSUPPORTED")


async def test_a_token_that_is_withdrawn_ends_the_session_and_loses_no_message(
    world: World,
) -> None:
    instance = await world.instance()
    world.meta.token = "another"
    settled = await world.sessions.send(instance)
    assert (settled.outcome, settled.code) == (TransmissionOutcome.RETRYABLE, "SESSION_DOWN")
    await world.becomes(instance, Status.LOGGED_OUT)
    # Somebody puts a new one in, and connects it again.
    place = setting_place(
        await world.sessions.sql.fetchval("SELECT tenant_id FROM gateway.instances"),
        instance,
        "accessToken",
    )
    await world.sessions.sql.execute(
        "UPDATE gateway.instances SET updated_at = $2,"
        " settings = settings || jsonb_build_object('accessToken', $1::text)",
        seal_text(RING, "another", place),
        LATER,
    )
    await world.sessions.command(ConnectInstance(instance_id=instance))
    await world.sessions.ready(instance, count=2)
    again = await world.sessions.send(instance)
    assert again.outcome is TransmissionOutcome.ACCEPTED


async def test_an_account_that_meta_has_locked_is_banned(world: World) -> None:
    instance = await world.instance()
    world.meta.refusing[ALICE] = Error(400, 131031, "Account locked")
    await world.sessions.send(instance)
    assert "Account locked" in await world.becomes(instance, Status.BANNED)


async def test_signs_are_shown_as_meta_knows_them(world: World) -> None:
    instance = await world.instance()
    chat = f"{ALICE}@s.whatsapp.net"
    message = a_text(by=ALICE)
    await world.told(instance, a_value("1", messages=[message]))
    await world.sessions.heard.event("message.received", instance)
    await world.sessions.command(
        MarkRead(instance_id=instance, chat=chat, sender=chat, engine_message_ids=(message["id"],))
    )
    await world.sessions.command(
        ShowPresence(instance_id=instance, chat=chat, state="typing", until=LATER)
    )

    async def both() -> bool:
        return len(world.meta.marks) == 2

    await eventually(both)
    assert {mark["message_id"] for mark in world.meta.marks} == {message["id"]}
    assert [mark for mark in world.meta.marks if "typing_indicator" in mark]


async def test_the_account_tells_its_business_name(world: World) -> None:
    answered = await world.sessions.ask(await world.instance(), TellProfile())
    assert isinstance(answered.answer, Profile)
    assert answered.answer.identity.push_name == "Example Ltd"


# What comes in


async def test_what_was_written_is_told_once_however_often_it_comes(world: World) -> None:
    instance = await world.instance()
    message = a_text("Hello", by=ALICE)
    await world.told(instance, a_value("1", messages=[message, message]))
    await world.told(instance, a_value("2", messages=[message, a_text("Then", by=ALICE)]))
    await world.sessions.heard.event("message.received", instance, count=2)
    await world.taken()
    told = world.sessions.heard.named("message.received", instance)
    events = [one.event for one in told if isinstance(one.event, MessageReceived)]
    assert [event.content for event in events] == [Text(text="Hello"), Text(text="Then")]
    assert events[0].identity.push_name == "Ada"
    assert (events[0].from_, events[0].to) == (f"+{ALICE}", "+12025550000")
    assert events[0].engine_message_id == message["id"]


async def test_a_reaction_to_what_we_have_sent_names_our_message(world: World) -> None:
    instance = await world.instance()
    transmission = to_alice(instance)
    await world.sessions.transmit(transmission)
    await world.sessions.heard.outcome(transmission)
    said = {"message_id": world.meta.sent[0].id, "emoji": "👍"}
    await world.told(instance, a_value("1", messages=[a_message("reaction", said, by=ALICE)]))
    event = (await world.sessions.heard.event("message.reaction", instance)).event
    assert isinstance(event, MessageReaction)
    assert (event.message_id, event.emoji) == (str(transmission.message_id), "👍")


async def test_somebody_without_a_number_is_heard_and_can_be_answered(world: World) -> None:
    instance = await world.instance()
    message = a_text(from_user_id="US.1349")
    del message["from"]
    people = [{"profile": {"name": "Eve"}, "user_id": "US.1349"}]
    await world.told(instance, a_value("1", messages=[message]) | {"contacts": people})
    event = (await world.sessions.heard.event("message.received", instance)).event
    assert isinstance(event, MessageReceived)
    assert (event.from_, event.identity.phone) == ("US.1349@lid", None)
    await world.sessions.send(instance, to=event.identity.chat_id)
    assert world.meta.sent[0].body["recipient"] == "US.1349"


async def test_a_file_that_comes_in_is_fetched_and_kept(world: World) -> None:
    instance = await world.instance()
    content = b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n"
    said = {
        "id": world.meta.add_file(content, "application/pdf"),
        "mime_type": "application/pdf",
        "filename": "a.pdf",
    }
    await world.told(instance, a_value("1", messages=[a_message("document", said, by=ALICE)]))
    event = (await world.sessions.heard.event("message.received", instance)).event
    assert isinstance(event, MessageReceived)
    assert isinstance(event.content, Media)
    media_id = UUID(event.content.media_id)

    async def stored() -> Any:
        return await world.sessions.sql.fetchrow(
            "SELECT sha256, mime_type FROM sessions.inbound_media"
            " WHERE id = $1 AND status = 'stored'",
            media_id,
        )

    row = await eventually(stored)
    assert tuple(row) == (sha256(content).hexdigest(), "application/pdf")


async def test_news_that_is_lost_costs_a_moment_and_no_message(world: World) -> None:
    instance = await world.instance()
    await world.told(instance, a_value("1", messages=[a_text(by=ALICE)]), news=False)
    await world.sessions.heard.event("message.received", instance)


async def test_what_comes_for_an_instance_that_is_not_connected_waits_for_it(
    world: World,
) -> None:
    instance = await world.instance()
    sql = world.sessions.sql
    await sql.execute("UPDATE gateway.instances SET connected = false, updated_at = $1", LATER)
    await world.sessions.command(DisconnectInstance(instance_id=instance))
    await world.becomes(instance, Status.DISCONNECTED)
    await world.told(instance, a_value("1", messages=[a_text("Waited", by=ALICE)]))
    other = await world.instance()
    await world.told(other, a_value("1", messages=[a_text(by=ALICE)]))
    await world.sessions.heard.event("message.received", other)
    assert world.sessions.heard.named("message.received", instance) == []
    await sql.execute("UPDATE gateway.instances SET connected = true")
    await world.sessions.command(ConnectInstance(instance_id=instance))
    await world.sessions.heard.event("message.received", instance)
    await world.taken()


async def test_what_cannot_be_read_is_set_aside_and_holds_nobody_up(world: World) -> None:
    instance = await world.instance()
    nobody = a_text("Lost") | {"from": "nobody"}
    value = a_value("1", messages=[nobody, a_text("Beside it", by=ALICE)]) | {"contacts": []}
    await world.told(instance, value)
    await world.told(instance, a_value("1", messages=[a_text("After it", by=ALICE)]))
    sealed = "UPDATE sessions.callbacks SET sealed = 'x'::bytea WHERE sequence = $1"
    await world.sessions.heard.event("message.received", instance, count=2)
    rows = await world.sessions.sql.fetch("SELECT sequence, error FROM sessions.callbacks")
    assert [row["error"] for row in rows] == ["UNREADABLE"]
    # Whoever has mended what could not read it lets it be looked at again.
    await world.sessions.sql.execute("UPDATE sessions.callbacks SET error = NULL")
    await world.sessions.sql.execute(sealed, rows[0]["sequence"])

    async def aside() -> Any:
        return await world.sessions.sql.fetchval(
            "SELECT error = 'UNREADABLE' FROM sessions.callbacks"
        )

    await eventually(aside)
    assert len(world.sessions.heard.named("message.received", instance)) == 2


async def test_a_process_that_dies_before_it_has_forgotten_a_callback_doubles_nothing(
    database_url: str, meta: Meta
) -> None:
    message = a_text("Once", by=ALICE)
    async with running(database_url, meta) as world:
        instance = await world.instance()
        # As if it had died between the commit of the event and the end of the callback.
        await world.sessions.sql.execute(
            "CREATE RULE kept AS ON DELETE TO sessions.callbacks DO INSTEAD NOTHING"
        )
        await world.told(instance, a_value("1", messages=[message]))
        await world.sessions.heard.event("message.received", instance)
        await world.sessions.sql.execute("DROP RULE kept ON sessions.callbacks")
        assert await world.waiting() == 1
    async with running(database_url, meta) as world:
        await world.sessions.ready(instance)
        await world.taken()
        assert world.sessions.heard.named("message.received", instance) == []
        seen = "SELECT count(*) FROM sessions.inbound WHERE instance_id = $1"
        assert await world.sessions.sql.fetchval(seen, instance) == 1


async def test_only_the_owner_of_the_shard_takes_what_waits(world: World) -> None:
    instance = await world.instance()
    # Another process has taken every shard over, unnoticed as yet.
    await world.sessions.sql.execute(
        "UPDATE sessions.shards SET owner = 'them', epoch = epoch + 1,"
        " lease_until = clock_timestamp() + interval '1 hour'"
    )
    await world.told(instance, a_value("1", messages=[a_text(by=ALICE)]))

    async def noticed() -> bool:
        # What is refused is looked at again a second later; a lost session is not open any more.
        lost: bool = await world.sessions.sql.fetchval(
            "SELECT clock_timestamp() - received_at > interval '1.5 s' FROM sessions.callbacks"
        )
        return lost

    await eventually(noticed)
    assert world.sessions.heard.named("message.received", instance) == []
    await world.sessions.sql.execute("UPDATE sessions.shards SET lease_until = clock_timestamp()")
    await world.sessions.heard.event("message.received", instance)
    await world.taken()
    assert len(world.sessions.heard.named("message.received", instance)) == 1


async def test_logging_out_forgets_what_waits(world: World) -> None:
    instance = await world.instance()
    await world.sessions.sql.execute(
        "UPDATE gateway.instances SET connected = false, updated_at = $1", LATER
    )
    await world.sessions.command(DisconnectInstance(instance_id=instance))
    await world.becomes(instance, Status.DISCONNECTED)
    await world.told(instance, a_value("1", messages=[a_text(by=ALICE)]))
    await world.sessions.command(DisconnectInstance(instance_id=instance, logout=True))
    await world.becomes(instance, Status.LOGGED_OUT)
    assert await world.waiting() == 0
