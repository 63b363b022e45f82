"""The sandbox's numbers, as the session service's neighbours see them."""

from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from shared.contracts.commands import (
    ScanSandboxQr,
    Transmission,
    TransmissionOutcome,
    WriteFromSandboxContact,
)
from shared.contracts.content import (
    ContactCard,
    Edit,
    Location,
    Media,
    Poll,
    Reaction,
    Revoke,
    Sendable,
    Text,
)
from shared.contracts.events import (
    InstanceConnected,
    MessageEdited,
    MessageReaction,
    MessageReceived,
    MessageRevoked,
)
from shared.contracts.questions import CreateGroup, Group, PairByCode, PairingCode, TellGroup
from shared.ids import new_id
from tests.support import sessions
from tests.support.builders import an_instance, an_organization
from tests.support.sessions import Sessions, a_paired_instance, a_transmission


def number(last: int) -> str:
    return f"+1202555{last:04d}"


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


async def on_the_wire(world: Sessions) -> int:
    return int(await world.sql.fetchval("SELECT count(*) FROM sessions.sandbox_wire"))


async def test_an_ordinary_contact_gets_it_and_reads_it(world: Sessions, instance: UUID) -> None:
    message = new_id()
    settled = await world.send(instance, message_id=message)
    assert settled.outcome is TransmissionOutcome.ACCEPTED
    assert await world.heard.receipts_of(message, count=2) == ["delivered", "read"]


@pytest.mark.parametrize(("last", "code"), [(101, "NOT_ON_WHATSAPP"), (102, "REJECTED")])
async def test_some_numbers_refuse_for_good(
    world: Sessions, instance: UUID, last: int, code: str
) -> None:
    settled = await world.send(instance, to=number(last))
    assert (settled.outcome, settled.code) == (TransmissionOutcome.REJECTED, code)
    assert await on_the_wire(world) == 0


async def test_0103_refuses_twice_and_then_takes_it(world: Sessions, instance: UUID) -> None:
    message = new_id()
    outcomes = [
        (await world.send(instance, message_id=message, to=number(103), attempt=attempt)).outcome
        for attempt in (1, 2, 3)
    ]
    assert outcomes == [
        TransmissionOutcome.RETRYABLE,
        TransmissionOutcome.RETRYABLE,
        TransmissionOutcome.ACCEPTED,
    ]
    assert await on_the_wire(world) == 1


async def test_0104_is_acknowledged_late(world: Sessions, instance: UUID) -> None:
    message = new_id()
    settled = await world.send(instance, message_id=message, to=number(104))
    assert settled.outcome is TransmissionOutcome.ACCEPTED
    assert await world.heard.receipts_of(message, count=2) == ["delivered", "read"]


async def test_0105_is_never_acknowledged(world: Sessions, tenant: UUID) -> None:
    id_ = await a_paired_instance(world.sql, tenant, settings={"unconfirmedAfter": 0.5})
    await world.ready(id_)
    settled = await world.send(id_, to=number(105))
    assert settled.outcome is TransmissionOutcome.UNKNOWN
    assert settled.unconfirmed_after == 0.5
    assert await on_the_wire(world) == 1


async def test_0106_never_reads_and_0107_never_gets_it(world: Sessions, instance: UUID) -> None:
    silent, unread, read = new_id(), new_id(), new_id()
    await world.send(instance, message_id=silent, to=number(107))
    await world.send(instance, message_id=unread, to=number(106))
    await world.send(instance, message_id=read)
    assert await world.heard.receipts_of(read, count=2) == ["delivered", "read"]
    assert await world.heard.receipts_of(unread, count=1) == ["delivered"]
    assert await world.heard.receipts_of(silent, count=0) == []


async def test_0108_answers_with_the_same_text(world: Sessions, instance: UUID) -> None:
    message = new_id()
    await world.send(instance, message_id=message, to=number(108), content=Text(text="Echo?"))
    event = (await world.heard.event("message.received", instance)).event
    assert isinstance(event, MessageReceived)
    assert event.content == Text(text="Echo?")
    assert (event.from_, event.to) == (number(108), "+12025550190")
    assert event.identity.chat_id == "12025550108@s.whatsapp.net"
    assert await world.heard.receipts_of(message, count=2) == ["delivered", "read"]


async def test_0109_answers_with_an_image(world: Sessions, instance: UUID) -> None:
    await world.send(instance, to=number(109))
    event = (await world.heard.event("message.received", instance)).event
    assert isinstance(event, MessageReceived)
    assert isinstance(event.content, Media)
    assert (event.content.kind, event.message_type) == ("image", "image")


@pytest.mark.parametrize(("last", "status"), [(110, "banned"), (111, "logged_out")])
async def test_some_numbers_end_the_session(
    world: Sessions, instance: UUID, last: int, status: str
) -> None:
    message = new_id()
    settled = await world.send(instance, message_id=message, to=number(last))
    assert (settled.outcome, settled.code) == (TransmissionOutcome.RETRYABLE, "SESSION_DOWN")
    gone = (await world.heard.event("instance.disconnected", instance)).event
    assert not gone.model_dump()["will_retry"]
    state = await world.sql.fetchrow("SELECT * FROM sessions.session_states")
    assert state is not None
    assert (state["status"], state["last_error"] is not None) == (status, True)
    await world.sql.execute("UPDATE gateway.instances SET updated_at = clock_timestamp()")
    await world.ready(instance, count=2)
    again = await world.send(instance, message_id=message, to=number(last), attempt=2)
    assert again.outcome is TransmissionOutcome.ACCEPTED


async def test_0112_asks_to_slow_down_once(world: Sessions, instance: UUID) -> None:
    message = new_id()
    first = await world.send(instance, message_id=message, to=number(112))
    assert (first.outcome, first.retry_after) == (TransmissionOutcome.RETRYABLE, 10.0)
    second = await world.send(instance, message_id=message, to=number(112), attempt=2)
    assert second.outcome is TransmissionOutcome.ACCEPTED


async def test_0113_sends_receipts_doubled_and_in_the_wrong_order(
    world: Sessions, instance: UUID
) -> None:
    message = new_id()
    await world.send(instance, message_id=message, to=number(113))
    kinds = await world.heard.receipts_of(message, count=4)
    assert kinds == ["read", "read", "delivered", "delivered"]


async def test_two_instances_reach_each_other(world: Sessions, tenant: UUID) -> None:
    alice = await a_paired_instance(world.sql, tenant, phone_number="+12025550191")
    bob = await a_paired_instance(world.sql, tenant, phone_number="+12025550192")
    await world.ready(alice)
    await world.ready(bob)
    message = new_id()
    await world.send(alice, message_id=message, to="+12025550192", content=Text(text="Hi Bob"))
    event = (await world.heard.event("message.received", bob)).event
    assert isinstance(event, MessageReceived)
    assert (event.from_, event.to) == ("+12025550191", "+12025550192")
    assert event.content == Text(text="Hi Bob")
    assert await world.heard.receipts_of(message, count=2) == ["delivered", "read"]


async def test_another_tenants_instance_is_just_a_number(world: Sessions, instance: UUID) -> None:
    other = await an_organization(world.sql)
    stranger = await a_paired_instance(world.sql, other, phone_number="+12025550192")
    await world.ready(stranger)
    message = new_id()
    await world.send(instance, message_id=message, to="+12025550192")
    assert await world.heard.receipts_of(message, count=2) == ["delivered", "read"]
    assert world.heard.named("message.received", stranger) == []


async def test_a_contact_writes_edits_reacts_and_revokes(world: Sessions, instance: UUID) -> None:
    def act(action: str, **more: object) -> WriteFromSandboxContact:
        facts = {"instance_id": instance, "from_": number(150), "engine_message_id": "3EB0AA"}
        return WriteFromSandboxContact.model_validate({**facts, "action": action, **more})

    await world.command(act("message", content={"kind": "text", "text": "Hi"}, push_name="Zoe"))
    await world.command(act("edit", content={"kind": "text", "text": "Hello"}))
    await world.command(act("reaction", emoji="👍"))
    await world.command(act("revoke"))
    received = (await world.heard.event("message.received", instance)).event
    edited = (await world.heard.event("message.edited", instance)).event
    reaction = (await world.heard.event("message.reaction", instance)).event
    revoked = (await world.heard.event("message.revoked", instance)).event
    assert isinstance(received, MessageReceived)
    assert isinstance(edited, MessageEdited)
    assert isinstance(reaction, MessageReaction)
    assert isinstance(revoked, MessageRevoked)
    assert received.identity.push_name == "Zoe"
    assert edited.content == Text(text="Hello")
    assert reaction.emoji == "👍"
    ids = {event.message_id for event in (received, edited, reaction, revoked)}
    assert len(ids) == 1


async def test_a_reaction_to_a_message_of_ours_names_that_message(
    world: Sessions, instance: UUID
) -> None:
    transmission = a_transmission(instance)
    await world.transmit(transmission)
    await world.heard.outcome(transmission)
    await world.command(
        WriteFromSandboxContact(
            instance_id=instance,
            from_=number(199),
            action="reaction",
            engine_message_id=transmission.engine_message_id,
            emoji="❤️",
        )
    )
    reaction = (await world.heard.event("message.reaction", instance)).event
    assert isinstance(reaction, MessageReaction)
    assert reaction.message_id == str(transmission.message_id)


# Between two instances


@pytest.fixture
async def alice(world: Sessions, tenant: UUID) -> UUID:
    id_ = await a_paired_instance(world.sql, tenant, phone_number=ALICE)
    await world.ready(id_)
    return id_


@pytest.fixture
async def bob(world: Sessions, tenant: UUID) -> UUID:
    id_ = await a_paired_instance(world.sql, tenant, phone_number=BOB)
    await world.ready(id_)
    return id_


ALICE, BOB, CAROL = "+12025550191", "+12025550192", "+12025550193"


async def said(
    world: Sessions, instance: UUID, content: Sendable, *, to: str = BOB
) -> Transmission:
    """Send something and wait until WhatsApp has it."""
    transmission = a_transmission(instance, to=to, content=content)
    await world.transmit(transmission)
    settled = await world.heard.outcome(transmission)
    assert settled.outcome is TransmissionOutcome.ACCEPTED, settled
    return transmission


async def test_what_an_instance_changes_is_changed_for_the_other(
    world: Sessions, alice: UUID, bob: UUID
) -> None:
    first = await said(world, alice, Text(text="Helo"))
    await said(world, alice, Edit(target_id=first.engine_message_id, text="Hello"))
    await said(world, alice, Revoke(target_id=first.engine_message_id))
    received = (await world.heard.event("message.received", bob)).event
    edited = (await world.heard.event("message.edited", bob)).event
    revoked = (await world.heard.event("message.revoked", bob)).event
    assert isinstance(received, MessageReceived)
    assert isinstance(edited, MessageEdited)
    assert isinstance(revoked, MessageRevoked)
    assert edited.content == Text(text="Hello")
    assert received.message_id == edited.message_id == revoked.message_id
    assert (edited.from_, revoked.from_) == (ALICE, ALICE)


async def test_a_reaction_of_one_instance_names_the_message_of_the_other(
    world: Sessions, alice: UUID, bob: UUID
) -> None:
    first = await said(world, alice, Text(text="Tea?"))
    await world.heard.event("message.received", bob)
    liked = await said(
        world,
        bob,
        Reaction(target_id=first.engine_message_id, target_sender=ALICE, emoji="👍"),
        to=ALICE,
    )
    reaction = (await world.heard.event("message.reaction", alice)).event
    assert isinstance(reaction, MessageReaction)
    assert (reaction.message_id, reaction.emoji) == (str(first.message_id), "👍")
    assert await world.heard.receipts_of(liked.message_id, count=2) == ["delivered", "read"]


async def test_an_answer_of_one_instance_names_the_message_of_the_other(
    world: Sessions, alice: UUID, bob: UUID
) -> None:
    first = await said(world, alice, Text(text="Tea?"))
    answer = Text(text="Yes", reply_to=first.engine_message_id, reply_to_sender=ALICE)
    await said(world, bob, answer, to=ALICE)
    received = (await world.heard.event("message.received", alice)).event
    assert isinstance(received, MessageReceived)
    assert received.reply_to == first.engine_message_id


@pytest.mark.parametrize(
    "content",
    [
        Location(latitude=52.5, longitude=13.4, name="Berlin"),
        ContactCard(name="Ada", phones=("+12025550199",)),
        Poll(question="Tea?", options=("Yes", "No")),
    ],
)
async def test_whatever_an_instance_says_reaches_the_other(
    world: Sessions, alice: UUID, bob: UUID, content: Sendable
) -> None:
    await said(world, alice, content)
    received = (await world.heard.event("message.received", bob)).event
    assert isinstance(received, MessageReceived)
    assert received.content == content


async def test_what_changes_a_message_gets_no_answer_even_from_numbers_that_answer(
    world: Sessions, instance: UUID
) -> None:
    liked = await said(world, instance, Reaction(target_id="3EB0BB", emoji="👍"), to=number(108))
    assert await world.heard.receipts_of(liked.message_id, count=2) == ["delivered", "read"]
    await said(world, instance, Text(text="Echo?"), to=number(108))
    event = (await world.heard.event("message.received", instance)).event
    assert isinstance(event, MessageReceived)
    assert event.content == Text(text="Echo?")


# Groups


async def a_group(world: Sessions, founder: UUID, *members: str) -> str:
    answer = (await world.ask(founder, CreateGroup(name="Harbour", members=members))).answer
    assert isinstance(answer, Group)
    return answer.id


async def test_what_is_said_in_a_group_reaches_all_who_are_in_it(
    world: Sessions, tenant: UUID, alice: UUID, bob: UUID
) -> None:
    carol = await a_paired_instance(world.sql, tenant, phone_number=CAROL)
    await world.ready(carol)
    group = await a_group(world, alice, BOB, CAROL, number(142))
    message = await said(world, alice, Text(text="Ahoy"), to=group)
    for member in (bob, carol):
        emitted = await world.heard.event("message.received", member)
        assert isinstance(emitted.event, MessageReceived)
        assert emitted.event.content == Text(text="Ahoy")
        assert emitted.event.from_ == ALICE
        assert emitted.event.identity.phone == ALICE
        assert emitted.event.group_id == emitted.partition_key == group
    assert world.heard.named("message.received", alice) == []
    assert set(await world.heard.receipts_of(message.message_id, count=4)) == {"delivered", "read"}


async def test_a_contact_writes_to_a_group(world: Sessions, alice: UUID) -> None:
    group = await a_group(world, alice, number(142))
    await world.command(
        WriteFromSandboxContact(
            instance_id=alice,
            from_=number(142),
            engine_message_id="3EB0AA",
            content=Text(text="Ahoy"),
            group=group,
        )
    )
    event = (await world.heard.event("message.received", alice)).event
    assert isinstance(event, MessageReceived)
    assert (event.from_, event.group_id) == (number(142), group)


async def test_only_who_is_in_a_group_writes_to_it(world: Sessions, alice: UUID, bob: UUID) -> None:
    group = await a_group(world, alice, number(142))
    settled = await world.send(bob, to=group)
    assert (settled.outcome, settled.code) == (TransmissionOutcome.REJECTED, "NOT_FOUND")
    await said(world, alice, Text(text="Only us"), to=group)
    assert world.heard.named("message.received", bob) == []


async def test_a_group_is_its_tenants(world: Sessions, alice: UUID) -> None:
    group = await a_group(world, alice)
    other = await a_paired_instance(world.sql, await an_organization(world.sql), phone_number=ALICE)
    await world.ready(other)
    refusal = (await world.ask(other, TellGroup(group=group))).refusal
    assert refusal is not None
    assert refusal.code == "NOT_FOUND"


# Pairing by code


async def test_a_code_is_typed_in_when_the_qr_code_would_be_scanned(
    world: Sessions, tenant: UUID
) -> None:
    new = await an_instance(world.sql, tenant, status=None, settings={"autoScan": False})
    await world.heard.event("instance.qr", new)
    answer = (await world.ask(new, PairByCode(phone_number=CAROL))).answer
    assert isinstance(answer, PairingCode)
    assert world.heard.named("instance.connected", new) == []
    await world.command(ScanSandboxQr(instance_id=new))
    event = (await world.ready(new)).event
    assert isinstance(event, InstanceConnected)
    assert event.phone_number == CAROL


async def test_a_code_is_typed_in_by_itself_unless_told_otherwise(
    world: Sessions, tenant: UUID
) -> None:
    new = await an_instance(world.sql, tenant, status=None)
    await world.heard.event("instance.qr", new)
    answer = (await world.ask(new, PairByCode(phone_number=CAROL))).answer
    assert isinstance(answer, PairingCode)
    event = (await world.ready(new)).event
    assert isinstance(event, InstanceConnected)
    assert event.phone_number == CAROL
