"""Messages that change others: edits and revocations, ours and those of contacts."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import orjson
import pytest
from prometheus_client import CollectorRegistry

from services.dispatcher import settlement
from services.dispatcher.consumers import Consumers
from services.dispatcher.dispatching import Dispatching
from services.dispatcher.metrics import DispatcherMetrics
from services.dispatcher.store import settling
from shared.broker.memory import MemoryBroker
from shared.contracts.commands import Receipt, TransmissionOutcome
from shared.contracts.content import Identity, Text
from shared.contracts.envelope import Emitted
from shared.contracts.events import MessageEdited, MessageEvent, MessageReceived, MessageRevoked
from shared.db.database import Database, HotConnection
from shared.errors import Transient
from shared.ids import id_of, new_id
from shared.messaging.contents import opened, seal
from shared.messaging.outbox import Relay
from shared.pause import Pause
from shared.security.sealing import Key, KeyRing
from tests.support.builders import NOON, a_message_row, a_settled, an_instance, an_organization
from tests.support.clock import HandClock
from tests.support.eventually import eventually
from tests.support.keys import RING, said

ADA = "12025550142@s.whatsapp.net"
GROUP = "120363000000000001@g.us"
ACCEPTED = TransmissionOutcome.ACCEPTED


class World:
    """A tenant with an instance, and the dispatcher's consumers over a real database."""

    def __init__(self, sql: asyncpg.Connection, database: Database) -> None:
        self.sql = sql
        self.database = database
        clock = HandClock()
        broker = MemoryBroker(raise_failures=True)
        metrics = DispatcherMetrics(CollectorRegistry())
        relay = Relay(
            database=database, broker=broker, schema="dispatcher", clock=clock, metrics=metrics
        )
        dispatching = Dispatching(
            database=database,
            broker=broker,
            relay=relay,
            clock=clock,
            metrics=metrics,
            pause=Pause(),
            ring=RING,
        )
        self.consumers = Consumers(
            database=database, dispatching=dispatching, relay=relay, ring=RING, clock=clock
        )
        self.tenant: UUID
        self.instance: UUID

    async def keep(self, what: str) -> None:
        """Have the tenant want its content kept so."""
        await self.sql.execute("UPDATE gateway.organizations SET content_storage = $1", what)

    async def a_row(self, **given: Any) -> UUID:
        """A message's row; what the builder does not know is changed afterwards."""
        known = {
            name: given.pop(name) for name in ("chat", "status", "text", "ring") if name in given
        }
        message = await a_message_row(self.sql, self.tenant, self.instance, **known)
        for column, value in given.items():
            await self.sql.execute(
                f"UPDATE dispatcher.messages SET {column} = $2 WHERE id = $1", message, value
            )
        return message

    async def a_change(self, kind: str, target: UUID, **given: Any) -> tuple[UUID, UUID]:
        """An edit or a revocation in flight, and its transmission."""
        transmission = new_id()
        content = {"kind": kind, "targetId": "3EB0", **given.pop("content", {})}
        message = await self.a_row(
            status="sending",
            type=kind,
            target_id=target,
            transmission_id=transmission,
            content=orjson.dumps(content).decode(),
            attempts=1,
            **given,
        )
        return message, transmission

    async def settle(
        self,
        *changes: tuple[UUID, UUID],
        connection: HotConnection | None = None,
        **given: Any,
    ) -> None:
        """What became of some hand-overs; within a transaction of ``connection``, if given."""
        settled = [
            a_settled(
                **{
                    "outcome": ACCEPTED,
                    "message_id": message,
                    "transmission_id": transmission,
                    "instance_id": self.instance,
                    **given,
                }
            )
            for message, transmission in changes
        ]
        async with AsyncExitStack() as stack:
            if connection is None:
                connection = await stack.enter_async_context(self.database.hot_tx())
            await settlement.settle(connection, settled, ring=RING, now=NOON, jitter=lambda: 0.0)

    async def receive(self, message: UUID, at: datetime) -> None:
        """A receipt."""
        await self.receive_all(message, at=at)

    async def receive_all(self, *messages: UUID, at: datetime) -> None:
        """A batch of receipts."""
        receipts = [
            Receipt(message_id=message, instance_id=self.instance, kind="delivered", at=at)
            for message in messages
        ]
        async with self.database.hot_tx() as connection:
            await settlement.receive(connection, receipts, ring=RING, now=at)

    async def blocked(self) -> None:
        """Return once somebody waits for a row that another transaction has locked."""

        async def waiting() -> bool:
            found: int = await self.sql.fetchval(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            return found > 0

        await eventually(waiting)

    async def row(self, message: UUID) -> dict[str, Any]:
        """A message as it stands."""
        found = await self.sql.fetchrow("SELECT * FROM dispatcher.messages WHERE id = $1", message)
        assert found is not None
        content = opened(RING, self.tenant, message, sealed=found["sealed"], plain=found["content"])
        return {**found, "sealed": None, "content": content}

    def emitted(self, event: MessageEvent, at: datetime, chat: str = ADA) -> Emitted:
        """An event of the session service."""
        return Emitted(
            id=id_of(event.TYPE, event.message_id, at),
            event=event,
            tenant_id=self.tenant,
            instance_id=self.instance,
            time=at,
            subject=f"messages/{event.message_id}",
            partition_key=chat,
        )


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    """A tenant with a ready instance."""
    sql = await asyncpg.connect(database_url)
    async with Database.open(database_url, role="waypost_dispatcher") as database:
        made = World(sql, database)
        made.tenant = await an_organization(sql)
        made.instance = await an_instance(sql, made.tenant)
        yield made
    await sql.close()


def facts(message: UUID, at: datetime = NOON) -> dict[str, Any]:
    return {
        "message_id": str(message),
        "from": "+12025550142",
        "to": "+12025550000",
        "message_type": "text",
        "timestamp": at,
        "identity": Identity(chat_id=ADA, phone="+12025550142"),
    }


def received(message: UUID, text: str = "Hello") -> MessageReceived:
    return MessageReceived.model_validate(
        {**facts(message), "content": Text(text=text), "engine_message_id": "AAA"}
    )


def edited(message: UUID, text: str) -> MessageEdited:
    return MessageEdited.model_validate({**facts(message), "content": Text(text=text)})


def later(seconds: int) -> datetime:
    return NOON + timedelta(seconds=seconds)


async def test_an_accepted_edit_gives_the_message_its_new_words(world: World) -> None:
    target = await world.a_row(status="read", text="Helo")
    edit = await world.a_change("edit", target, content={"text": "Hello"})
    await world.settle(edit, at=later(5))
    row = await world.row(target)
    assert row["content"] == {"kind": "text", "text": "Hello"}
    assert (row["edited_at"], row["revoked_at"], row["status"]) == (later(5), None, "read")
    assert (await world.row(edit[0]))["status"] == "sent"


async def test_an_edit_that_fails_changes_nothing_but_itself(world: World) -> None:
    target = await world.a_row(status="sent", text="Helo")
    edit = await world.a_change("edit", target, content={"text": "Hello"})
    await world.settle(edit, outcome=TransmissionOutcome.REJECTED, code="REJECTED")
    row = await world.row(target)
    assert (row["content"]["text"], row["edited_at"]) == ("Helo", None)
    body = await world.sql.fetchval("SELECT body FROM dispatcher.outbox")
    told = orjson.loads(body)
    assert told["type"] == "dev.waypost.message.failed.v1"
    assert told["data"]["messageType"] == "edit"


async def test_an_accepted_revocation_is_noted_and_erases_the_words(world: World) -> None:
    target = await world.a_row(status="delivered", text="Oops")
    revocation = await world.a_change("revoke", target)
    await world.settle(revocation, at=later(7))
    await world.settle(revocation, at=later(9))
    row = await world.row(target)
    assert (row["revoked_at"], row["edited_at"]) == (later(7), None)
    assert row["content"] is None


async def test_a_receipt_confirms_an_edit_as_well_as_a_report_does(world: World) -> None:
    target = await world.a_row(status="sent", text="Helo")
    edit, _ = await world.a_change("edit", target, content={"text": "Hello"})
    await world.receive(edit, later(3))
    row = await world.row(target)
    assert (row["content"]["text"], row["edited_at"]) == ("Hello", later(3))


async def test_what_whatsapp_takes_back_fails_with_its_reason(world: World) -> None:
    message = await world.a_row(status="sent", text="Hello", sent_at=NOON)
    receipts = [
        Receipt(
            message_id=message,
            instance_id=world.instance,
            kind="failed",
            at=later(seconds),
            code="REJECTED",
            detail=detail,
        )
        for seconds, detail in ((9, "Later."), (3, "Not on WhatsApp."))
    ]
    async with world.database.hot_tx() as connection:
        freed = await settlement.receive(connection, receipts, ring=RING, now=NOON)
    row = await world.row(message)
    assert (row["status"], row["failed_at"]) == ("failed", later(3))
    assert (row["error_code"], row["error_message"]) == ("REJECTED", "Not on WhatsApp.")
    assert [stored.pending.name for stored in freed.told] == ["message.failed"]


async def test_an_edit_that_is_confirmed_late_does_not_bring_old_words_back(world: World) -> None:
    target = await world.a_row(status="sent", text="1")
    first = await world.a_change("edit", target, content={"text": "2"})
    second = await world.a_change("edit", target, content={"text": "3"})
    await world.settle(first, outcome=TransmissionOutcome.UNKNOWN)
    await world.settle(second, at=later(2))
    await world.receive(first[0], later(60))
    assert (await world.row(target))["content"]["text"] == "3"


async def test_a_batch_with_two_changes_and_their_target_keeps_all_of_it(world: World) -> None:
    target = await world.a_row(status="sent", text="1", sent_at=NOON)
    edit = await world.a_change("edit", target, content={"text": "2"})
    revocation = await world.a_change("revoke", target)
    receipts = [
        Receipt(message_id=id_, instance_id=world.instance, kind="read", at=later(4))
        for id_ in (target, edit[0], revocation[0])
    ]
    async with world.database.hot_tx() as connection:
        await settlement.receive(connection, receipts, ring=RING, now=NOON)
    row = await world.row(target)
    assert (row["status"], row["content"]) == ("read", None)
    assert (await world.row(edit[0]))["content"] is None
    assert row["edited_at"] == row["revoked_at"] == later(4)


async def test_batches_that_meet_at_a_target_do_not_deadlock(world: World) -> None:
    target = await world.a_row(status="sent", text="Helo", sent_at=NOON)
    edit = await world.a_change("edit", target, content={"text": "Hello"})
    async with asyncio.TaskGroup() as tasks, world.database.hot_tx() as connection:
        assert list(await settling.lock_messages(connection, [edit[0]])) == [edit[0]]
        # This one begins with the target and goes on to the edit.
        tasks.create_task(world.receive_all(target, edit[0], at=later(4)), name="receipts")
        await world.blocked()
        await world.settle(edit, at=later(3), connection=connection)
    row = await world.row(target)
    assert (row["content"]["text"], row["edited_at"]) == ("Hello", later(3))
    assert row["delivered_at"] == (await world.row(edit[0]))["delivered_at"] == later(4)


async def test_a_revocation_and_an_earlier_edit_of_the_same_do_not_deadlock(world: World) -> None:
    edit = await world.a_change("edit", new_id(), content={"text": "Hello"})
    # Other clocks may have made the target's id the later one.
    target = await world.a_row(status="sent", text="Helo", sent_at=NOON)
    await world.sql.execute(
        "UPDATE dispatcher.messages SET target_id = $1 WHERE id = $2", target, edit[0]
    )
    await world.settle(edit, at=later(3))
    revocation = await world.a_change("revoke", target)
    async with asyncio.TaskGroup() as tasks, world.database.hot_tx() as connection:
        await settling.lock_messages(connection, [revocation[0]])
        tasks.create_task(world.receive_all(edit[0], at=later(4)), name="receipts")
        await world.blocked()
        await world.settle(revocation, at=later(5), connection=connection)
    row = await world.row(target)
    assert (row["content"], row["revoked_at"]) == (None, later(5))
    wording = await world.row(edit[0])
    assert (wording["content"], wording["delivered_at"]) == (None, later(4))


async def test_a_reaction_changes_nobody(world: World) -> None:
    target = await world.a_row(status="sent", text="Hello")
    before = await world.row(target)
    reaction = await world.a_change("reaction", target, content={"emoji": "👍"})
    await world.settle(reaction)
    assert await world.row(target) == before


async def test_the_id_that_an_engine_chose_replaces_the_one_that_was_allocated(
    world: World,
) -> None:
    transmission = new_id()
    message = await world.a_row(status="sending", transmission_id=transmission)
    await world.settle((message, transmission), engine_message_id="3AWHATSAPPSOWN")
    assert (await world.row(message))["engine_message_id"] == "3AWHATSAPPSOWN"
    told = orjson.loads(await world.sql.fetchval("SELECT body FROM dispatcher.outbox"))
    assert told["data"]["engineMessageId"] == "3AWHATSAPPSOWN"


async def test_a_receipt_that_comes_before_the_report_tells_the_engines_id_as_well(
    world: World,
) -> None:
    transmission = new_id()
    message = await world.a_row(status="sending", transmission_id=transmission)
    own = "3AWHATSAPPSOWN"
    receipt = Receipt(
        message_id=message,
        instance_id=world.instance,
        kind="delivered",
        at=later(1),
        engine_message_id=own,
    )
    async with world.database.hot_tx() as connection:
        await settlement.receive(connection, [receipt], ring=RING, now=NOON)
    await world.settle((message, transmission), engine_message_id=own)
    assert (await world.row(message))["engine_message_id"] == own
    bodies = await world.sql.fetch("SELECT body FROM dispatcher.outbox ORDER BY seq")
    assert {orjson.loads(row[0])["data"]["engineMessageId"] for row in bodies} == {own}
    assert len(bodies) == 2


async def test_an_outcome_that_is_unknown_keeps_the_id_that_was_allocated(world: World) -> None:
    transmission = new_id()
    message = await world.a_row(status="sending", transmission_id=transmission)
    allocated = (await world.row(message))["engine_message_id"]
    await world.settle((message, transmission), outcome=TransmissionOutcome.UNKNOWN)
    assert (await world.row(message))["engine_message_id"] == allocated


async def test_what_a_contact_edits_is_kept_until_they_revoke_it(world: World) -> None:
    message = new_id()
    await world.consumers.events([world.emitted(received(message), NOON)])
    await world.consumers.events([world.emitted(edited(message, "Bye"), later(5))])
    row = await world.row(message)
    assert row["content"] == {"kind": "text", "text": "Bye", "mentions": [], "linkPreview": False}
    revoked = MessageRevoked.model_validate(facts(message))
    await world.consumers.events([world.emitted(revoked, later(9))] * 2)
    row = await world.row(message)
    assert row["content"] is None
    assert (row["edited_at"], row["revoked_at"]) == (later(5), later(9))
    assert row["status"] == "received"


async def test_all_in_one_batch_in_any_order_end_with_the_latest_words(world: World) -> None:
    message = new_id()
    await world.consumers.events(
        [
            world.emitted(edited(message, "3"), later(3)),
            world.emitted(edited(message, "2"), later(2)),
            world.emitted(received(message, "1"), NOON),
        ]
    )
    await world.consumers.events([world.emitted(edited(message, "2"), later(2))])
    row = await world.row(message)
    assert (row["content"]["text"], row["edited_at"]) == ("3", later(3))


async def test_changes_of_messages_that_nobody_knows_are_left_alone(world: World) -> None:
    own = await world.a_row(status="sent", text="Mine")
    unknown = new_id()
    await world.consumers.events(
        [world.emitted(edited(id_, "Theirs"), later(1)) for id_ in (unknown, own)]
    )
    assert (await world.row(own))["content"]["text"] == "Mine"
    assert await world.sql.fetchval("SELECT count(*) FROM dispatcher.messages") == 1


async def test_a_message_in_a_group_is_filed_under_the_group(world: World) -> None:
    message = new_id()
    await world.consumers.events([world.emitted(received(message), NOON, chat=GROUP)])
    row = await world.row(message)
    assert (row["chat"], row["sender"]) == (GROUP, "+12025550142")


async def test_what_was_said_is_erased_with_its_outcome_where_nobody_keeps_it(
    world: World,
) -> None:
    await world.keep("none")
    outcomes = {
        TransmissionOutcome.ACCEPTED: ("sent", True),
        TransmissionOutcome.REJECTED: ("failed", True),
        TransmissionOutcome.RETRYABLE: ("retrying", False),
        TransmissionOutcome.UNKNOWN: ("unconfirmed", False),
    }
    for outcome, (status, erased) in outcomes.items():
        transmission = new_id()
        message = await world.a_row(
            status="sending", transmission_id=transmission, attempts=1, ring=RING
        )
        await world.settle((message, transmission), outcome=outcome)
        row = await world.row(message)
        assert (row["status"], row["content"] is None) == (status, erased)


async def test_what_was_said_is_kept_sealed_where_it_is_wanted(world: World) -> None:
    transmission = new_id()
    message = await world.a_row(status="sending", transmission_id=transmission, ring=RING)
    await world.settle((message, transmission))
    assert (await world.row(message))["content"] == {"kind": "text", "text": "Hello"}
    inbound = new_id()
    await world.consumers.events([world.emitted(received(inbound, "Secret"), NOON)])
    found = await world.sql.fetchrow("SELECT * FROM dispatcher.messages WHERE id = $1", inbound)
    assert found is not None
    assert (found["content"], found["words"]) == (None, [])
    assert b"Secret" not in found["sealed"]
    assert b"Secret" in said(found)


async def test_nothing_that_is_received_is_kept_where_nobody_wants_it(world: World) -> None:
    await world.keep("none")
    message = new_id()
    await world.consumers.events([world.emitted(received(message), NOON)])
    await world.consumers.events([world.emitted(edited(message, "Bye"), later(5))])
    found = await world.row(message)
    assert (found["content"], found["words"], found["edited_at"]) == (None, None, later(5))


async def test_an_edit_does_not_bring_back_what_was_erased(world: World) -> None:
    await world.keep("none")
    target = await world.a_row(status="read")
    await world.sql.execute("UPDATE dispatcher.messages SET content = NULL")
    edit = await world.a_change("edit", target, content={"text": "Hello"})
    await world.settle(edit, at=later(5))
    row = await world.row(target)
    assert (row["content"], row["edited_at"]) == (None, later(5))
    assert (await world.row(edit[0]))["content"] is None


async def test_an_edit_of_what_no_key_opens_is_not_lost_but_confirmed_later(world: World) -> None:
    target = await world.a_row(status="read", ring=KeyRing([Key.new("next")]))
    edit = await world.a_change("edit", target, content={"text": "Hello"})
    with pytest.raises(Transient, match="ENCRYPTION_KEYS"):
        await world.settle(edit, at=later(5))
    sent = "SELECT sent_at, edited_at FROM dispatcher.messages WHERE id = ANY ($1::uuid[])"
    for times in await world.sql.fetch(sent, [target, edit[0]]):
        assert tuple(times) == (None, None)
    # When it has been sealed anew.
    await world.sql.execute(
        "UPDATE dispatcher.messages SET sealed = $2 WHERE id = $1",
        target,
        seal(RING, world.tenant, target, '{"kind":"text","text":"Helo"}'),
    )
    await world.settle(edit, at=later(5))
    row = await world.row(target)
    assert (row["content"]["text"], row["edited_at"]) == ("Hello", later(5))
