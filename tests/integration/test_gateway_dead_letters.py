"""Dead letters: kept, shown to whom they concern, put back or thrown away."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from prometheus_client import CollectorRegistry

from services.gateway.consumers import KeepDeadLetters
from services.gateway.loops.forgetting import Forget
from services.gateway.metrics import GatewayMetrics
from services.gateway.store.dead_letters import place
from shared.broker.dead import AT, REASON, Reason
from shared.broker.port import Incoming, Outcome, Outgoing, Subscription
from shared.broker.rabbitmq import RabbitBroker
from shared.broker.topology import DEAD
from shared.clock import SystemClock
from shared.contracts import commands, envelope, events
from shared.contracts.commands import DisconnectInstance, Dispatch
from shared.contracts.envelope import Emitted
from shared.contracts.model import Command
from shared.db.database import Database
from shared.db.tables.grants import role
from shared.ids import new_id
from shared.messaging import consumer, outbox
from shared.messaging.outbox import Pending
from shared.security.sealing import is_sealed
from tests.support.broker import Inbox
from tests.support.builders import NOON, an_instance
from tests.support.customer import Customer
from tests.support.gateway import Gateway
from tests.support.keys import RING

PATH = "/api/dead-letters"


def a_dead(command: Command, queue: str = "sessions.shard.07", **given: Any) -> Outgoing:
    """A command as the broker brings it to a dead-letter queue."""
    return replace(
        Outgoing(
            exchange=DEAD,
            routing_key=f"{queue}.dead",
            body=command.model_dump_json().encode(),
            message_id=str(new_id()),
            type=command.TYPE,
            headers={REASON: Reason.REFUSED, AT: NOON.isoformat()},
        ),
        **given,
    )


def an_event(tenant: UUID, instance: UUID) -> Emitted:
    """An event of a tenant."""
    return Emitted(
        id=new_id(),
        event=events.Test(message="A secret of the tenant"),
        tenant_id=tenant,
        instance_id=instance,
        time=NOON,
        subject="test",
        partition_key="test",
    )


def a_dead_batch(*batch: Emitted, queue: str = "webhooks.events") -> Outgoing:
    """Events that died together."""
    return Outgoing(
        exchange=DEAD,
        routing_key=f"{queue}.dead",
        body=envelope.join([envelope.encode(event) for event in batch]),
        message_id=str(new_id()),
        type="test",
        content_type=envelope.BATCH,
        headers={REASON: Reason.IN_VAIN},
    )


async def listed(who: Customer, query: str = "") -> list[dict[str, Any]]:
    """What somebody sees."""
    found: list[dict[str, Any]] = (await who.get(f"{PATH}?{query}")).data
    return found


async def an_account(gateway: Gateway, email: str) -> tuple[Customer, UUID, UUID]:
    """An administrator, their tenant and an instance of it."""
    customer, account = await gateway.register(email)
    tenant = UUID(account["organization"]["id"])
    return customer, tenant, await an_instance(gateway.sql, tenant)


async def test_a_dead_letter_is_kept_and_says_what_whence_why_when_and_whose(
    gateway: Gateway,
) -> None:
    ada, tenant, instance = await an_account(gateway, "ada@example.com")
    dead = a_dead(DisconnectInstance(instance_id=instance))
    await gateway.broker.publish([dead])
    [letter] = await listed(ada)
    assert letter.pop("id")
    assert letter == {
        "queue": "sessions.shard.07",
        "type": "disconnect_instance",
        "messageId": dead.message_id,
        "organizationId": str(tenant),
        "instanceId": str(instance),
        "reason": "refused",
        "why": "sessions has refused it; its log says why, in a line messages_refused.",
        "size": len(dead.body),
        "times": 1,
        "firstDiedAt": "2026-01-15T12:00:00.000Z",
        "diedAt": "2026-01-15T12:00:00.000Z",
        "status": "waiting",
        "handledAt": None,
    }


async def test_what_comes_twice_is_kept_once(gateway: Gateway) -> None:
    dead = a_dead(DisconnectInstance(instance_id=new_id()))
    await gateway.broker.publish([dead])
    await gateway.broker.publish([dead, dead])
    [letter] = await listed(await gateway.operator())
    assert letter["times"] == 1


async def test_a_letters_content_is_readable_neither_in_the_table_nor_by_an_operator(
    gateway: Gateway,
) -> None:
    _, tenant, instance = await an_account(gateway, "ada@example.com")
    await gateway.broker.publish([a_dead_batch(an_event(tenant, instance))])
    row = await gateway.row("SELECT * FROM gateway.dead_letters")
    assert row["sealed"]
    assert "secret" not in repr(row)
    answer = await (await gateway.operator()).get(PATH)
    assert "secret" not in repr(answer.body)


async def test_everybody_sees_what_concerns_their_organization_and_an_operator_all(
    gateway: Gateway,
) -> None:
    ada, ours, mine = await an_account(gateway, "ada@example.com")
    bob, theirs, his = await an_account(gateway, "bob@example.com")
    operator = await gateway.operator()
    await gateway.broker.publish(
        [
            a_dead(Dispatch(instance_ids=(mine, his)), "dispatcher.nudges"),
            a_dead_batch(an_event(ours, mine), an_event(theirs, his)),
        ]
    )
    assert {row["organizationId"] for row in await listed(operator)} == {
        None,
        str(ours),
        str(theirs),
    }
    for who, tenant in ((ada, ours), (bob, theirs)):
        [seen] = await listed(who)
        assert (seen["organizationId"], seen["type"]) == (str(tenant), "test")
    [foreign] = await listed(bob)
    for method, path in (("POST", f"{PATH}/{foreign['id']}/requeue"), ("DELETE", PATH)):
        refused = await ada.call(method, path if method == "POST" else f"{path}/{foreign['id']}")
        assert (refused.status, refused.code) == (404, "NOT_FOUND")
    assert (await gateway.stranger().get(PATH)).status == 401


async def test_only_who_manages_the_organization_may_look(gateway: Gateway) -> None:
    await an_account(gateway, "ada@example.com")
    await gateway.sql.execute("UPDATE gateway.users SET role = 'manager'")
    login = await gateway.stranger().post(
        "/api/auth/login", {"email": "ada@example.com", "password": "an example passphrase"}
    )
    manager = gateway.with_token(login.data["token"])
    for method, path in (
        ("GET", PATH),
        ("POST", f"{PATH}/{new_id()}/requeue"),
        ("DELETE", f"{PATH}/{new_id()}"),
    ):
        refused = await manager.call(method, path)
        assert (refused.status, refused.code) == (403, "FORBIDDEN")


async def test_letters_are_filtered_and_paged(gateway: Gateway) -> None:
    operator = await gateway.operator()
    for hours in range(3):
        at = (NOON + timedelta(hours=hours)).isoformat()
        await gateway.broker.publish(
            [
                a_dead(
                    DisconnectInstance(instance_id=new_id()),
                    headers={REASON: Reason.REFUSED, AT: at},
                )
            ]
        )
    await gateway.broker.publish(
        [
            a_dead(
                commands.TestEndpoint(endpoint_id=new_id(), event_id=new_id()), "webhooks.commands"
            )
        ]
    )
    assert len(await listed(operator, "queue=webhooks.commands")) == 1
    assert len(await listed(operator, "type=disconnect_instance")) == 3
    assert len(await listed(operator, "since=2026-01-15T13:00:00Z")) == 2
    assert await listed(operator, "status=requeued") == []
    first = await operator.get(f"{PATH}?limit=3")
    rest = await operator.get(f"{PATH}?limit=3&cursor={first.body['pagination']['nextCursor']}")
    times = [row["diedAt"] for row in (*first.data, *rest.data)]
    assert len(times) == 4
    assert times == sorted(times, reverse=True)
    for query in ("since=yesterday", "status=burnt", "cursor=x", "colour=red"):
        refused = await operator.get(f"{PATH}?{query}")
        assert (refused.status, refused.code) == (422, "VALIDATION_FAILED")


async def test_a_requeued_letter_goes_back_to_the_queue_it_came_from(gateway: Gateway) -> None:
    ada, _, instance = await an_account(gateway, "ada@example.com")
    command = DisconnectInstance(instance_id=instance)
    dead = a_dead(command)
    await gateway.broker.publish([dead])
    [letter] = await listed(ada)
    for _ in range(2):
        answer = await ada.post(f"{PATH}/{letter['id']}/requeue")
        assert (answer.status, answer.data["status"]) == (202, "requeued")
    assert await gateway.heard.next(DisconnectInstance, queue="sessions.shard.07") == command
    assert not gateway.heard.messages
    assert await listed(ada) == []
    [handled] = await listed(ada, "status=requeued")
    assert handled["handledAt"] is not None
    assert (await ada.call("DELETE", f"{PATH}/{letter['id']}")).status == 409


async def test_a_requeued_letter_waits_for_the_broker_sealed(gateway: Gateway) -> None:
    _, tenant, instance = await an_account(gateway, "ada@example.com")
    await gateway.broker.publish([a_dead_batch(an_event(tenant, instance))])
    operator = await gateway.operator()
    [letter] = await listed(operator)
    # What goes through the outbox is gone at once, so it leaves a trace here.
    await gateway.sql.execute(
        "CREATE TABLE public.trace (body bytea);"
        " CREATE RULE trace AS ON INSERT TO gateway.outbox"
        " DO ALSO INSERT INTO public.trace VALUES (NEW.body)"
    )
    assert (await operator.post(f"{PATH}/{letter['id']}/requeue")).status == 202
    [trace] = [row[0] for row in await gateway.sql.fetch("SELECT body FROM public.trace")]
    assert is_sealed(trace)
    assert b"secret" not in trace


async def test_one_event_of_a_batch_goes_back_alone_and_to_one_service_alone(
    gateway: Gateway,
) -> None:
    _, tenant, instance = await an_account(gateway, "ada@example.com")
    one, other = an_event(tenant, instance), an_event(tenant, instance)
    await gateway.broker.publish([a_dead_batch(one, other)])
    operator = await gateway.operator()
    [letter] = [row for row in await listed(operator) if row["messageId"] == str(one.id)]
    await operator.post(f"{PATH}/{letter['id']}/requeue")
    async with asyncio.timeout(5):
        while not gateway.heard.messages:
            gateway.heard.news.clear()
            await gateway.heard.news.wait()
    [message] = gateway.heard.messages
    assert (message.queue, message.type, message.attempt) == ("webhooks.events", "test", 1)
    assert message.content_type == envelope.BATCH
    assert [event.id for event in envelope.carried_batch(message.body)] == [one.id]


async def test_a_letter_that_dies_again_is_back_and_counted(gateway: Gateway) -> None:
    operator = await gateway.operator()
    dead = a_dead(DisconnectInstance(instance_id=new_id()))
    await gateway.broker.publish([dead])
    [letter] = await listed(operator)
    await operator.post(f"{PATH}/{letter['id']}/requeue")
    await gateway.broker.publish([dead])
    [again] = await listed(operator)
    assert (again["id"], again["times"], again["status"]) == (letter["id"], 2, "waiting")
    assert (await operator.post(f"{PATH}/{letter['id']}/requeue")).status == 202
    assert await gateway.heard.next(DisconnectInstance)


async def test_a_requeue_is_committed_with_what_is_published_or_not_at_all(
    gateway: Gateway,
) -> None:
    operator = await gateway.operator()
    await gateway.broker.publish([a_dead(DisconnectInstance(instance_id=new_id()))])
    [letter] = await listed(operator)
    await gateway.sql.execute(
        "ALTER TABLE gateway.outbox ADD CONSTRAINT broken CHECK (name <> 'disconnect_instance')"
    )
    assert (await operator.post(f"{PATH}/{letter['id']}/requeue")).status == 500
    [still] = await listed(operator)
    assert still == letter
    await gateway.sql.execute("ALTER TABLE gateway.outbox DROP CONSTRAINT broken")
    assert (await operator.post(f"{PATH}/{letter['id']}/requeue")).status == 202
    assert await gateway.heard.next(DisconnectInstance)


async def test_a_deleted_letter_keeps_no_content(gateway: Gateway) -> None:
    operator = await gateway.operator()
    await gateway.broker.publish([a_dead(DisconnectInstance(instance_id=new_id()))])
    [letter] = await listed(operator)
    gone = await operator.call("DELETE", f"{PATH}/{letter['id']}")
    assert gone.data == {"id": letter["id"], "deleted": True}
    assert await listed(operator) == []
    row = await gateway.row("SELECT sealed, handled FROM gateway.dead_letters")
    assert row == {"sealed": None, "handled": "deleted"}
    for method, path in (("DELETE", ""), ("POST", "/requeue")):
        again = await operator.call(method, f"{PATH}/{letter['id']}{path}")
        assert (again.status, again.code) == (404, "NOT_FOUND")


GARBAGE = [
    (b"\xff\xfe", "disconnect_instance", "", "The body cannot be read as disconnect_instance."),
    (b"[]", "test", envelope.BATCH, None),
    (b'[{"id": 7}]', "test", envelope.BATCH, "The body cannot be read as test."),
    (b"{}", "tele\0port", "", "No version that was running knows the command teleport."),
    (b"{}", "", "", "No version that was running knows the command without a name."),
]


@pytest.mark.parametrize(("body", "type_", "content_type", "why"), GARBAGE)
async def test_whatever_dies_is_kept(
    gateway: Gateway, body: bytes, type_: str, content_type: str, why: str | None
) -> None:
    dead = a_dead(
        DisconnectInstance(instance_id=new_id()),
        body=body,
        type=type_,
        message_id="not one of ours",
        content_type=content_type,
    )
    await gateway.broker.publish([dead])
    operator = await gateway.operator()
    [letter] = await listed(operator)
    assert why is None or letter["why"] == why
    assert (await operator.post(f"{PATH}/{letter['id']}/requeue")).status == 202


async def test_handled_letters_are_forgotten_after_a_week_and_others_never(
    gateway: Gateway,
) -> None:
    operator = await gateway.operator()
    for _ in range(2):
        await gateway.broker.publish([a_dead(DisconnectInstance(instance_id=new_id()))])
    first, _second = await listed(operator)
    await operator.call("DELETE", f"{PATH}/{first['id']}")
    gateway.clock.move(timedelta(days=8))
    await Forget(
        database=gateway.database,
        clock=gateway.clock,
        metrics=GatewayMetrics(CollectorRegistry()),
        events_kept=timedelta(days=7),
        audit_kept=timedelta(days=365),
    ).step()
    row = await gateway.row("SELECT handled FROM gateway.dead_letters")
    assert row == {"handled": None}


async def test_over_rabbitmq_nothing_is_lost_on_the_way_there_and_back(
    database_url: str, own_amqp_url: str
) -> None:
    """Refused by its service, kept by us, put back, and delivered as if for the first time."""
    refused, taken = Inbox(lambda _: Outcome.DEAD), Inbox()
    elsewhere = Inbox()
    event = an_event(new_id(), new_id())
    kept = asyncio.Event()
    async with (
        Database.open(database_url, role=role("gateway")) as database,
        RabbitBroker.connect(own_amqp_url, name="dead letters") as broker,
    ):
        keeper = KeepDeadLetters(database=database, ring=RING, clock=SystemClock())

        async def keep(messages: Sequence[Incoming]) -> None:
            await keeper.keep(messages)
            kept.set()

        receive = consumer.dead_letters(
            keep, broker=broker, metrics=GatewayMetrics(CollectorRegistry())
        )
        async with (
            broker.subscribe(Subscription(queue="webhooks.events.dead", receive=receive)),
            broker.subscribe(Subscription(queue="stats.events", receive=elsewhere)),
            asyncio.timeout(20),
        ):
            async with broker.subscribe(Subscription(queue="webhooks.events", receive=refused)):
                await broker.publish(outbox.outgoing([outbox.event(event)]))
                await kept.wait()
            async with database.hot() as connection:
                [row] = await connection.fetch("SELECT * FROM gateway.dead_letters")
            body = RING.open(row["sealed"], place(row["id"], row["tenant_id"]))
            back = Pending(row["message_id"], row["kind"], row["type"], row["queue"], body)
            await broker.publish(outbox.outgoing([back]))
            async with broker.subscribe(Subscription(queue="webhooks.events", receive=taken)):
                [again] = await taken.received(1)
    assert (row["reason"], row["message_id"]) == ("refused", event.id)
    assert abs(row["died_at"] - SystemClock().now()) < timedelta(minutes=1)
    assert again.attempt == 1
    assert [one.id for one in envelope.carried_batch(again.body)] == [event.id]
    assert not elsewhere.messages
