"""Events become signed posts to the endpoints that want them."""

import json
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
import standardwebhooks
import svix.webhooks
from aiohttp import web

from shared.broker.port import Outgoing
from shared.broker.topology import BATCHES
from shared.clock import SystemClock
from shared.contracts.events import InstanceConnected
from shared.ids import new_id
from shared.security.sealing import Key, KeyRing
from shared.security.signatures import new_secret, verify_hex
from tests.support.builders import an_instance, an_organization
from tests.support.clock import HandClock
from tests.support.keys import KEYS, answered, delivered
from tests.support.webhooks import Receiver, World, an_event, receiver, world

__all__ = ["receiver", "world"]


async def test_an_event_arrives_as_the_documented_body(world: World, receiver: Receiver) -> None:
    event = world.sent()
    async with world.running() as parts:
        await world.endpoint(receiver.url)
        await world.post(parts, event)
    (got,) = receiver.got
    assert json.loads(got.body) == {
        "id": str(event.id),
        "event": "message.sent",
        "instance": {"id": str(world.instance), "name": "An instance"},
        "data": event.event.model_dump(mode="json", by_alias=True, exclude_none=True),
        "timestamp": "2026-01-15T12:00:00.000Z",
    }
    assert got.headers["content-type"] == "application/json"
    assert got.headers["user-agent"].startswith("Waypost-Webhooks/")
    assert got.headers["x-webhook-event"] == "message.sent"
    assert got.headers["x-webhook-instance"] == str(world.instance)
    delivery = await world.delivery(event)
    assert delivery["state"] == "delivered"
    assert delivered(delivery) == got.body
    assert got.body not in delivery["body"]
    assert str(delivery["message_id"]) == event.subject


async def test_a_secret_from_before_they_were_sealed_still_signs(
    world: World, receiver: Receiver
) -> None:
    async with world.running() as parts:
        endpoint = await world.endpoint(receiver.url)
        await world.sql.execute(
            "UPDATE gateway.webhooks SET secret = 'whsec_MTIz', secret_sealed = NULL WHERE id = $1",
            endpoint,
        )
        await world.post(parts, world.sent())
    (got,) = receiver.got
    verify_hex(got.body, signature=got.headers["x-webhook-signature"], secret="whsec_MTIz")


async def test_a_secret_that_cannot_be_read_delays_its_deliveries_and_nobody_elses(
    world: World, receiver: Receiver
) -> None:
    lost = Key.new("lost")
    event = world.sent()
    async with world.running() as parts:
        await world.endpoint(f"{receiver.url}-unreadable", ring=KeyRing([lost]))
        await world.endpoint(receiver.url)
        await world.post(parts, event)
    (got,) = receiver.got
    assert "unreadable" not in got.path
    waiting = await world.sql.fetch(
        "SELECT state, attempts FROM webhooks.deliveries ORDER BY state"
    )
    assert [tuple(row) for row in waiting] == [("delivered", 1), ("pending", 1)]
    error = await world.sql.fetchval("SELECT error FROM webhooks.attempts WHERE error IS NOT NULL")
    assert error == "secret"
    world.clock.move(timedelta(days=1))
    async with world.running(encryption_keys=f"{KEYS},{lost.written()}") as parts:
        await world.post(parts)
    assert [post.path.endswith("unreadable") for post in receiver.got] == [False, True]


async def test_both_public_libraries_verify_the_signature(
    database_url: str, receiver: Receiver
) -> None:
    # They compare the timestamp with the machine's clock.
    clock = HandClock(SystemClock().now())
    secret = new_secret()
    async with World.of(database_url, clock) as world, world.running() as parts:
        await world.endpoint(receiver.url, secret=secret)
        await world.post(parts, world.sent())
    (got,) = receiver.got
    verified = standardwebhooks.Webhook(secret).verify(got.body, dict(got.headers))
    assert verified["event"] == "message.sent"
    svix.webhooks.Webhook(secret).verify(got.body, dict(got.headers))
    verify_hex(got.body, signature=got.headers["x-webhook-signature"], secret=secret)
    verify_hex(got.body, signature=got.headers["x-hub-signature-256"], secret=secret)
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(new_secret()).verify(got.body, dict(got.headers))


async def test_only_those_who_want_an_event_get_it(world: World, receiver: Receiver) -> None:
    other_instance = await an_instance(world.sql, world.tenant)
    stranger = await an_organization(world.sql)
    url = receiver.url.removesuffix("hook")
    async with world.running() as parts:
        await world.endpoint(f"{url}all", "*")
        await world.endpoint(f"{url}family", "message.*")
        await world.endpoint(f"{url}exact", "message.sent", "message.read")
        await world.endpoint(f"{url}mine", instance_id=world.instance)
        await world.endpoint(f"{url}another-name", "message.delivered", "instance.*")
        await world.endpoint(f"{url}another-instance", instance_id=other_instance)
        await world.endpoint(f"{url}another-tenant", tenant_id=stranger)
        await world.endpoint(f"{url}switched-off", active=False)
        await world.post(parts, world.sent())
    assert sorted(got.path for got in receiver.got) == ["/all", "/exact", "/family", "/mine"]


async def test_an_event_of_no_instance_goes_to_endpoints_of_the_whole_tenant(
    world: World, receiver: Receiver
) -> None:
    event = an_event(InstanceConnected(), tenant_id=world.tenant, instance_id=None)
    async with world.running() as parts:
        await world.endpoint(receiver.url)
        await world.endpoint(receiver.url, instance_id=world.instance)
        await world.post(parts, event)
    (got,) = receiver.got
    assert json.loads(got.body)["instance"] is None
    assert "x-webhook-instance" not in got.headers


async def test_an_event_that_is_told_again_is_not_delivered_again(
    world: World, receiver: Receiver
) -> None:
    event = world.sent()
    async with world.running() as parts:
        await world.endpoint(receiver.url)
        await world.post(parts, event, event)
        await world.post(parts, world.sent(), event)
    assert sorted(receiver.ids) == sorted({*receiver.ids})
    assert len(receiver.got) == 2
    assert await world.states() == ["delivered", "delivered"]


async def test_an_event_of_a_type_from_the_future_is_passed_on(
    world: World, receiver: Receiver
) -> None:
    body = json.dumps(
        [
            {
                "type": "dev.waypost.campaign.progress.v1",
                "id": str(new_id()),
                "tenantid": str(world.tenant),
                "time": "2026-01-15T12:00:00.000Z",
                "data": {"percent": 40},
            }
        ]
    ).encode()
    async with world.running() as parts:
        await world.endpoint(receiver.url, "campaign.*")
        await world.broker.publish([Outgoing(BATCHES, "campaign.progress", body, "1", "x")])
        await parts.worker.quiet()
    assert json.loads(receiver.got[0].body)["data"] == {"percent": 40}


async def test_an_endpoint_gets_what_happens_a_second_after_it_was_made(
    world: World, receiver: Receiver
) -> None:
    async with world.running() as parts:
        await world.post(parts, world.sent())  # remembers that nobody listens
        await world.endpoint(receiver.url)
        world.clock.move(timedelta(seconds=1))
        event = world.sent()
        await world.post(parts, event)
    assert receiver.ids == [str(event.id)]


async def test_what_there_is_no_room_for_waits_in_the_table_and_is_claimed(
    world: World, receiver: Receiver
) -> None:
    events = [world.sent() for _ in range(400)]
    async with world.running(endpoint_slots=4) as parts:
        await world.endpoint(receiver.url)
        await world.happen(*events)
        assert "pending" in await world.states()
        while "pending" in await world.states():
            await world.post(parts)
    assert sorted(receiver.ids) == sorted(str(event.id) for event in events)
    assert set(await world.states()) == {"delivered"}


async def test_a_test_is_posted_at_once_and_once_even_to_an_endpoint_that_is_off(
    world: World, receiver: Receiver
) -> None:
    receiver.status = 500
    async with world.running() as parts:
        endpoint_id = await world.endpoint(receiver.url, "message.read", active=False)
        await world.endpoint(receiver.url)
        event_id = await world.ask_for_test(endpoint_id)
        await parts.worker.quiet()
    (got,) = receiver.got
    assert json.loads(got.body)["event"] == "test"
    assert got.id == str(event_id)
    assert (await world.delivery(event_id))["state"] == "exhausted"
    (attempt,) = await world.attempts(event_id)
    assert attempt["status_code"] == 500


async def test_a_test_of_an_endpoint_that_is_deleted_is_dropped(world: World) -> None:
    async with world.running() as parts:
        await world.ask_for_test(UUID(int=1))
        await parts.worker.quiet()
    assert await world.states() == []


async def test_attempts_keep_the_beginning_of_the_answer(world: World, receiver: Receiver) -> None:
    async def answer(_request: web.Request) -> web.Response:
        return web.Response(body=b"\xff\x00" + b"x" * 5000)

    receiver.answering = answer
    event = world.sent()
    async with world.running() as parts:
        await world.endpoint(receiver.url)
        await world.post(parts, event)
    (attempt,) = await world.attempts(event)
    assert attempt["response"] is None
    assert answered(world.tenant, attempt) == "\ufffd\ufffd" + "x" * 1022
    assert attempt["at"] == datetime(2026, 1, 15, 12, tzinfo=UTC)
    assert attempt["status_code"] == 200


async def test_while_paused_deliveries_are_made_and_wait(world: World, receiver: Receiver) -> None:
    async with world.running() as parts:
        await world.endpoint(receiver.url)
        world.pause.hold()
        await world.post(parts, world.sent())
        assert await world.states() == ["pending"]
        assert receiver.got == []
        world.pause.go_on()
        await world.post(parts)
        assert await world.states() == ["delivered"]
