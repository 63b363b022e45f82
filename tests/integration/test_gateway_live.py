"""Live events: who hears what, on which replica, and what becomes of those who cannot keep up."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import aiohttp
import pytest

from services.gateway.store import events
from services.gateway.store.events import NewEvent
from shared.broker.rabbitmq import RabbitBroker
from shared.contracts.envelope import Emitted, encode
from shared.contracts.events import InstanceConnected, MessageSent, WebhookRecovered
from shared.contracts.model import Event
from shared.ids import new_id
from shared.messaging.outbox import event, outgoing
from shared.security.sealing import Key, KeyRing
from tests.support.builders import an_instance
from tests.support.customer import Customer
from tests.support.eventually import eventually
from tests.support.gateway import Gateway, Sender, running
from tests.support.keys import KEYS, RING
from tests.support.live import EXAMPLES, HERE, LiveClient, deaf_client


def key_of(customer: Customer) -> str:
    return customer.headers["X-API-Key"]


def an_event(sender: Sender, made: Event | None = None, *, text: str = "text") -> Emitted:
    sent = MessageSent.model_validate(
        {
            "messageId": str(new_id()),
            "from": "+12025550000",
            "to": "+12025550199",
            "messageType": text,
            "timestamp": "2026-01-15T12:00:00.000Z",
            "identity": {"chatId": "12025550199@s.whatsapp.net"},
        }
    )
    return Emitted(
        id=new_id(),
        event=made or sent,
        tenant_id=sender.tenant,
        instance_id=sender.instance,
        time=sent.timestamp,
        subject="x",
        partition_key="x",
    )


async def publish(gateway: Gateway, *emitted: Emitted) -> None:
    """As an outbox does."""
    await gateway.broker.publish(outgoing([event(one) for one in emitted]))


async def logged(gateway: Gateway, *emitted: Emitted, ring: KeyRing = RING) -> None:
    """Put events into the log and tell nobody."""
    await events.append(
        gateway.database,
        ring,
        [
            NewEvent(one.id, one.tenant_id, one.instance_id, one.name, one.time, encode(one))
            for one in emitted
        ],
    )


def auth(sender: Sender, **more: Any) -> dict[str, Any]:
    return {"apiKey": key_of(sender.customer), **more}


async def test_an_event_is_told_as_webhooks_tell_it_with_its_cursor(
    gateway: Gateway, sender: Sender
) -> None:
    async with LiveClient.connected(gateway.url, auth(sender)) as client:
        emitted = an_event(sender)
        await publish(gateway, emitted)
        told = await client.event("message.sent")
    cursor = told.pop("cursor")
    name = await gateway.sql.fetchval(
        "SELECT name FROM gateway.instances WHERE id = $1", sender.instance
    )
    assert told == {
        "id": str(emitted.id),
        "event": "message.sent",
        "instance": {"id": str(sender.instance), "name": name},
        "data": emitted.event.model_dump(mode="json", by_alias=True, exclude_none=True),
        "timestamp": "2026-01-15T12:00:00.000Z",
    }
    after = await sender.customer.get(f"/api/events?after={cursor}")
    assert after.data == []
    assert (await sender.customer.get("/api/events")).data[0]["id"] == told["id"]


@pytest.mark.parametrize("way", ["auth", "token", "header", "bearer", "query", "polling"])
async def test_a_credential_is_taken_wherever_a_client_can_put_it(
    gateway: Gateway, sender: Sender, way: str
) -> None:
    key = key_of(sender.customer)
    ways: dict[str, dict[str, Any]] = {
        "auth": {"auth": {"apiKey": key}},
        "token": {"auth": {"token": key}},
        "header": {"extraHeaders": {"X-API-Key": key}},
        "bearer": {"extraHeaders": {"Authorization": f"Bearer {key}"}},
        "query": {"query": {"token": key}},
        "polling": {"auth": {"apiKey": key}, "transports": ["polling"]},
    }
    given = ways[way]
    async with LiveClient.connected(gateway.url, given.pop("auth", None), **given) as client:
        await publish(gateway, emitted := an_event(sender))
        assert (await client.event())["id"] == str(emitted.id)


async def test_a_client_that_polls_moves_on_to_a_websocket(
    gateway: Gateway, sender: Sender
) -> None:
    transports = ["polling", "websocket"]
    async with LiveClient.connected(gateway.url, auth(sender), transports=transports) as client:
        assert (await client.next("upgrade"))["to"] == "websocket"
        await publish(gateway, emitted := an_event(sender))
        assert (await client.event())["id"] == str(emitted.id)


@pytest.mark.parametrize(
    ("said", "code", "why"),
    [
        ({}, "UNAUTHORIZED", "No credential"),
        ({"apiKey": "api_" + "x" * 43}, "UNAUTHORIZED", "not known"),
        ({"token": "nonsense"}, "UNAUTHORIZED", "copy it whole"),
        ({"apikey": "x"}, "VALIDATION_FAILED", ""),
        ({"types": ["message.snet"]}, "VALIDATION_FAILED", ""),
    ],
)
async def test_a_refusal_says_why(
    gateway: Gateway, said: dict[str, Any], code: str, why: str
) -> None:
    async with LiveClient.connecting(gateway.url, said) as client:
        refused = await client.next("connect_error")
    assert refused["data"]["code"] == code
    assert why in refused["message"]
    # The same again would be refused again, so the client does not try by itself.
    assert not refused["active"]


async def test_a_position_that_is_none_is_refused_by_its_name(
    gateway: Gateway, sender: Sender
) -> None:
    async with LiveClient.connecting(gateway.url, auth(sender, after="junk")) as client:
        refused = await client.next("connect_error")
    assert refused["data"]["code"] == "VALIDATION_FAILED"
    assert "`after`" in refused["message"]


async def test_a_key_without_the_permission_is_refused(gateway: Gateway, sender: Sender) -> None:
    customer, _ = await gateway.key(
        sender.instance, sender.tenant, permissions={"messages": {"receive": False}}
    )
    async with LiveClient.connecting(gateway.url, {"apiKey": key_of(customer)}) as client:
        refused = await client.next("connect_error")
    assert refused["data"]["code"] == "FORBIDDEN"
    assert "messages.receive" in refused["message"]


async def test_everybody_hears_what_they_may_see_and_no_more(
    gateway: Gateway, sender: Sender
) -> None:
    stranger = await gateway.sender()
    other = Sender(sender.customer, await an_instance(gateway.sql, sender.tenant), sender.tenant)
    admin, _ = await gateway.register()
    await gateway.sql.execute(
        "UPDATE gateway.users SET tenant_id = $1 WHERE email = 'ada@example.com'", sender.tenant
    )
    agent, _ = await gateway.register("agent@example.com")
    await gateway.sql.execute(
        "UPDATE gateway.users SET tenant_id = $1, role = 'agent' WHERE email = 'agent@example.com'",
        sender.tenant,
    )
    tokens = [one.headers["Authorization"].removeprefix("Bearer ") for one in (admin, agent)]
    async with AsyncExitStack() as stack:
        key, all_, none, foreign = [
            await stack.enter_async_context(LiveClient.connected(gateway.url, said))
            for said in (
                auth(sender),
                {"token": tokens[0]},
                {"token": tokens[1]},
                auth(stranger),
            )
        ]
        own, beside = an_event(sender), an_event(other)
        recovered = WebhookRecovered(webhook_id="x", url="https://example.com")
        of_none = replace(an_event(sender, recovered), instance_id=None)
        for emitted in (own, beside, of_none):
            await publish(gateway, emitted)
        last = an_event(stranger)
        await publish(gateway, last)
        # All have been handed out when the last of them has arrived.
        assert (await foreign.event())["id"] == str(last.id)
        for emitted in (own, beside, of_none):
            assert (await all_.event())["id"] == str(emitted.id)
        assert (await key.event())["id"] == str(own.id)
        assert key.heard() == none.heard() == foreign.heard() == all_.heard() == []


async def test_a_client_chooses_types_and_instances(gateway: Gateway, sender: Sender) -> None:
    other = Sender(sender.customer, await an_instance(gateway.sql, sender.tenant), sender.tenant)
    admin, _ = await gateway.register()
    await gateway.sql.execute("UPDATE gateway.users SET tenant_id = $1", sender.tenant)
    token = admin.headers["Authorization"].removeprefix("Bearer ")
    async with LiveClient.connected(gateway.url, {"token": token}) as client:
        chosen = await client.say("subscribe", {"types": ["instance.*"]})
        assert chosen["data"]["types"] == [
            "instance.connected",
            "instance.disconnected",
            "instance.qr",
            "instance.status",
        ]
        chosen = await client.say("subscribe", {"instances": [str(sender.instance)]})
        assert chosen["data"]["instances"] == [str(sender.instance)]
        wanted = an_event(sender, InstanceConnected())
        await publish(gateway, an_event(sender), an_event(other, InstanceConnected()), wanted)
        assert (await client.event())["id"] == str(wanted.id)
        await client.say("subscribe", {"types": ["message.sent"]})
        await client.say("unsubscribe", {"types": ["instance.connected"]})
        await publish(gateway, an_event(sender, InstanceConnected()))
        await publish(gateway, wanted := an_event(sender))
        assert (await client.event())["id"] == str(wanted.id)
        await client.say("unsubscribe", {"instances": [str(sender.instance)]})
        await publish(gateway, an_event(sender))
        await client.say("subscribe", {"instances": [str(other.instance)]})
        await publish(gateway, wanted := an_event(other))
        assert (await client.event())["id"] == str(wanted.id)
        for said, code in (
            ({"types": ["message.snet"]}, "VALIDATION_FAILED"),
            ({"instances": [str(new_id())]}, "NOT_FOUND"),
            ({"instances": ["x"]}, "VALIDATION_FAILED"),
            ("message.*", "BAD_REQUEST"),
        ):
            answer = await client.say("subscribe", said)
            assert (answer["success"], answer["error"]["code"]) == (False, code), answer
        answer = await client.say("listen", {})
        assert "subscribe or unsubscribe" in answer["error"]["message"]


async def test_a_client_that_was_away_goes_on_where_it_was(
    gateway: Gateway, sender: Sender
) -> None:
    async with LiveClient.connected(gateway.url, auth(sender)) as client:
        cursor = (await client.event("cursor"))["cursor"]
    missed = [an_event(sender) for _ in range(450)]
    await logged(gateway, *missed)
    async with LiveClient.connected(gateway.url, auth(sender, after=cursor)) as client:
        end = (await client.event("cursor"))["cursor"]
        assert (await sender.customer.get(f"/api/events?after={end}")).data == []
        await publish(gateway, later := an_event(sender))
        told = [(await client.event())["id"] for _ in range(451)]
    assert told == [str(one.id) for one in (*missed, later)]


async def test_catching_up_while_events_go_on_coming_misses_none_and_repeats_none(
    gateway: Gateway, sender: Sender
) -> None:
    emitted = [an_event(sender) for _ in range(600)]
    await publish(gateway, emitted[0])
    first = await sender.customer.get("/api/events")
    cursor = first.body["pagination"]["nextCursor"]

    async def go_on() -> None:
        for start in range(1, 600, 20):
            await publish(gateway, *emitted[start : start + 20])

    publishing = asyncio.create_task(go_on())
    async with LiveClient.connected(gateway.url, auth(sender, after=cursor)) as client:
        told = [(await client.event())["id"] for _ in range(599)]
    await publishing
    assert told == [str(one.id) for one in emitted[1:]]


async def test_a_cursor_that_is_too_old_is_refused(gateway: Gateway, sender: Sender) -> None:
    first = await sender.customer.get("/api/events")
    cursor = first.body["pagination"]["nextCursor"]
    await gateway.sql.execute("INSERT INTO gateway.event_log VALUES (1, 7)")
    await gateway.sql.execute(
        "INSERT INTO gateway.events SELECT 8, $1, $2, NULL, 'test', now(), ''::bytea",
        new_id(),
        new_id(),
    )
    async with LiveClient.connecting(gateway.url, auth(sender, after=cursor)) as client:
        refused = await client.next("connect_error")
    assert refused["data"]["code"] == "BAD_REQUEST"
    assert refused["data"]["data"]["reason"] == "cursor_expired"


async def test_whom_an_event_cannot_be_read_to_is_sent_away_and_gets_it_later(
    database_url: str, gateway: Gateway, sender: Sender
) -> None:
    """A replica without the newest key: nobody else suffers, and nobody's cursor passes it."""
    other = await gateway.sender()
    new = Key.new("new")
    async with (
        LiveClient.connected(gateway.url, auth(sender)) as client,
        LiveClient.connected(gateway.url, auth(sender, types=["instance.*"])) as choosy,
        LiveClient.connected(gateway.url, auth(other)) as stranger,
    ):
        cursor = (await client.event("cursor"))["cursor"]
        await logged(gateway, sealed := an_event(sender), ring=KeyRing([new]))
        behind, theirs = an_event(sender, InstanceConnected()), an_event(other)
        await publish(gateway, behind, theirs)
        closing = await client.event("closing")
        assert (closing["code"], closing["reconnect"]) == ("UNAVAILABLE", True)
        assert (await choosy.event())["id"] == str(behind.id)
        assert (await stranger.event())["id"] == str(theirs.id)
    async with (
        running(database_url, encryption_keys=f"{new.written()},{KEYS}") as mended,
        LiveClient.connected(mended.url, auth(sender, after=cursor)) as client,
    ):
        told = [(await client.event())["id"] for _ in range(2)]
    assert told == [str(sealed.id), str(behind.id)]


async def test_a_token_that_expires_ends_the_connection(gateway: Gateway) -> None:
    customer, _ = await gateway.register()
    token = customer.headers["Authorization"].removeprefix("Bearer ")
    async with LiveClient.connected(gateway.url, {"token": token}) as client:
        gateway.clock.move(timedelta(minutes=16))
        assert (await client.event("closing"))["code"] == "CREDENTIAL_EXPIRED"
        # The client tries by itself, as it would with a new token, and is told why not.
        gone = await client.next("disconnect")
        assert gone["active"]
        refused = await client.next("connect_error")
        assert refused["data"]["code"] == "UNAUTHORIZED"


async def test_whose_scope_changes_has_to_connect_again(gateway: Gateway) -> None:
    customer, _ = await gateway.register()
    token = customer.headers["Authorization"].removeprefix("Bearer ")
    async with LiveClient.connected(gateway.url, {"token": token}) as client:
        await gateway.sql.execute("UPDATE gateway.users SET role = 'viewer'")
        assert (await client.event("closing"))["code"] == "SCOPE_CHANGED"
        await client.next("connect")


@pytest.fixture
async def replicas(database_url: str, own_amqp_url: str) -> AsyncIterator[tuple[Gateway, Gateway]]:
    """Two gateways of one system."""
    async with (
        replica(database_url, own_amqp_url, "one") as one,
        replica(database_url, own_amqp_url, "two") as two,
    ):
        yield one, two


@asynccontextmanager
async def replica(database_url: str, amqp_url: str, name: str) -> AsyncIterator[Gateway]:
    async with (
        RabbitBroker.connect(amqp_url, name=name) as broker,
        running(database_url, broker=broker) as gateway,
    ):
        yield gateway


async def test_what_one_replica_causes_is_heard_at_another(
    replicas: tuple[Gateway, Gateway],
) -> None:
    one, two = replicas
    sender, stranger = await one.sender(), await one.sender()
    async with (
        LiveClient.connected(one.url, auth(sender)) as here,
        LiveClient.connected(two.url, auth(sender)) as there,
        LiveClient.connected(two.url, auth(stranger)) as foreign,
    ):
        for gateway in (one, two, one, two):
            emitted = an_event(sender)
            await publish(gateway, emitted)
            for client in (here, there):
                assert (await client.event())["id"] == str(emitted.id)
        await publish(one, last := an_event(stranger))
        assert (await foreign.event())["id"] == str(last.id)
        assert foreign.heard() == []
        waiting = asyncio.create_task(sender.customer.get("/api/events?wait=30&types=instance.*"))
        await eventually(lambda: _waits(one))
        await publish(two, an_event(sender, InstanceConnected()))
        assert len((await waiting).data) == 1


async def _waits(gateway: Gateway) -> bool:
    return gateway.waiting() == 1


async def test_a_revoked_key_is_dropped_at_every_replica_by_the_news_alone(
    replicas: tuple[Gateway, Gateway],
) -> None:
    one, two = replicas
    customer, account = await one.register()
    instance = await an_instance(one.sql, UUID(account["user"]["organizationId"]))
    made = await customer.post(f"/api/instances/{instance}/keys", {"name": "live"})
    key = {"apiKey": made.data["key"]}
    async with (
        LiveClient.connected(one.url, key) as here,
        LiveClient.connected(two.url, key) as there,
    ):
        # What is remembered of the key would be good for ever now; nothing but the news ends it.
        for replica in replicas:
            replica.clock.stand_still()
        gone = await customer.call("DELETE", f"/api/instances/{instance}/keys/{made.data['id']}")
        assert gone.status < 300
        for client in (here, there):
            assert (await client.event("closing"))["code"] == "CREDENTIAL_REVOKED"
            assert not (await client.next("disconnect"))["active"]


async def test_a_client_that_does_not_read_is_dropped_and_nobody_else_suffers(
    database_url: str,
) -> None:
    async with running(database_url, live_backlog_events=300) as gateway:
        sender = await gateway.sender()
        async with (
            LiveClient.connected(gateway.url, auth(sender)) as client,
            deaf_client(gateway.url, auth(sender)),
        ):
            assert gateway.metric("waypost_gateway_live_clients") == 2
            emitted = [an_event(sender, text="x" * 2000) for _ in range(5000)]
            for start in range(0, len(emitted), 100):
                await publish(gateway, *emitted[start : start + 100])
                told = [(await client.event())["id"] for _ in range(100)]
                assert told == [str(one.id) for one in emitted[start : start + 100]]
            dropped = gateway.metric("waypost_gateway_live_dropped_total", reason="too_slow")
            assert dropped == 1
            assert gateway.metric("waypost_gateway_live_clients") == 1

            async def closed() -> bool:
                # The handshake is over, and so is its request.
                return gateway.sockets() == 1

            await eventually(closed, within=timedelta(seconds=20))


async def test_so_many_connect_and_no_more(database_url: str) -> None:
    async with running(database_url, live_clients=2, live_clients_tenant=1) as gateway:
        one, two, three = [await gateway.sender() for _ in range(3)]
        async with LiveClient.connected(gateway.url, auth(one)):
            async with LiveClient.connecting(gateway.url, auth(one)) as greedy:
                refused = await greedy.next("connect_error")
                assert refused["data"]["code"] == "RATE_LIMIT_EXCEEDED"
            async with (
                LiveClient.connected(gateway.url, auth(two)),
                gateway.http.get(f"{gateway.url}/socket.io/?EIO=4&transport=polling") as full,
            ):
                assert full.status == 503
                assert (await full.json())["error"]["code"] == "ENGINE_UNAVAILABLE"
        async with LiveClient.connected(gateway.url, auth(three)):
            pass


async def test_one_address_connects_so_often_and_no_more(database_url: str) -> None:
    async with running(database_url, live_connects_minute=2) as gateway:
        url = f"{gateway.url}/socket.io/?EIO=4&transport=polling"
        found = []
        for _ in range(3):
            async with gateway.http.get(url) as answer:
                found.append(answer.status)
        assert found == [200, 200, 429]


async def test_who_never_says_who_they_are_is_sent_away(gateway: Gateway) -> None:
    url = f"{gateway.url}/socket.io/?EIO=4&transport=websocket"
    async with gateway.http.ws_connect(url) as silent:
        assert (await silent.receive_str()).startswith("0{")
        await eventually(lambda: _sockets(gateway, 1))
        # Seen once by the one who watches, and then for too long.
        seen = gateway.metric("waypost_gateway_loop_last_success_timestamp_seconds", loop="live")

        async def watched() -> bool:
            return seen != gateway.metric(
                "waypost_gateway_loop_last_success_timestamp_seconds", loop="live"
            )

        await eventually(watched)
        await eventually(watched)
        gateway.clock.move(timedelta(seconds=30))
        async with asyncio.timeout(10):
            assert "NOT_AUTHENTICATED" in await silent.receive_str()
            async for _ in silent:
                pass
    await eventually(lambda: _sockets(gateway, 0))


async def _sockets(gateway: Gateway, many: int) -> bool:
    return gateway.sockets() == many


@pytest.mark.parametrize(
    "frame",
    [
        '451-["subscribe",{"_placeholder":true,"num":0}]',
        '42["subscribe"',
        "42[7]",
        "4",
        "6",
        "9",
        "nonsense",
        "42" + "[" * 5000,
        "x" * 20_000,
    ],
)
async def test_what_no_client_has_to_say_ends_the_connection(
    gateway: Gateway, sender: Sender, frame: str
) -> None:
    url = f"{gateway.url}/socket.io/?EIO=4&transport=websocket"
    async with gateway.http.ws_connect(url) as client:
        await client.receive_str()
        await client.send_str(frame)
        async with asyncio.timeout(10):
            last = await client.receive()
        assert last.type in {aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED}, last
    await eventually(lambda: _sockets(gateway, 0))


async def test_what_no_polling_client_has_to_say_is_refused(gateway: Gateway) -> None:
    url = f"{gateway.url}/socket.io/?EIO=4&transport=polling"
    async with gateway.http.get(url) as opened:
        sid = (await opened.text()).split('"sid":"')[1].split('"')[0]
    for body in (b"451-[", b"bAAAA", b"\xff", b"3\x1e" * 30):
        async with gateway.http.post(f"{url}&sid={sid}", data=body) as answer:
            assert answer.status == 400
    async with gateway.http.post(f"{url}&sid={sid}", data=b"4" * 20_000) as answer:
        assert answer.status == 413
    async with gateway.http.get(f"{url}&j=0") as answer:
        assert answer.status == 400


async def test_who_asks_all_the_time_is_sent_away(gateway: Gateway, sender: Sender) -> None:
    async with LiveClient.connected(gateway.url, auth(sender)) as client:
        answers = [await client.say("subscribe", {}) for _ in range(50)]
        assert all(answer["success"] for answer in answers)
        talking = asyncio.create_task(client.say("subscribe", {}))
        assert (await client.event("closing"))["code"] == "TOO_MANY_MESSAGES"
        assert not (await client.next("disconnect"))["active"]
        talking.cancel()
        await asyncio.gather(talking, return_exceptions=True)


async def test_pages_of_origins_that_the_api_allows_may_connect(database_url: str) -> None:
    friend, foe = "https://app.example.com", "https://evil.example.com"
    async with running(database_url, cors_origins=f"{friend}/") as gateway:
        url = f"{gateway.url}/socket.io/?EIO=4&transport=polling"
        async with gateway.http.get(url, headers={"Origin": friend}) as answer:
            assert answer.status == 200
            assert answer.headers.getall("Access-Control-Allow-Origin") == [friend]
        async with gateway.http.get(url, headers={"Origin": foe}) as answer:
            assert answer.status == 400
            assert "Access-Control-Allow-Origin" not in answer.headers
    async with running(database_url) as gateway:
        url = f"{gateway.url}/socket.io/?EIO=4&transport=polling"
        async with gateway.http.get(url, headers={"Origin": foe}) as answer:
            assert answer.status == 400


async def test_clients_are_told_to_connect_again_when_the_process_ends(
    database_url: str,
) -> None:
    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(running(database_url))
        sender = await gateway.sender()
        client = await stack.enter_async_context(LiveClient.connected(gateway.url, auth(sender)))
        await gateway.app.shutdown()
        assert (await client.event("closing"))["code"] == "RESTARTING"
        gone = await client.next("disconnect")
        assert gone["active"]


async def test_the_example_for_node_loses_nothing_over_a_restart(database_url: str) -> None:
    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(running(database_url))
        sender = await gateway.sender()
        client = await stack.enter_async_context(
            LiveClient.running(str(EXAMPLES / "follow.mjs"), gateway.url, key_of(sender.customer))
        )
        await eventually(lambda: _clients(gateway))
        await publish(gateway, first := an_event(sender))
        assert (await client.event())["id"] == str(first.id)
        # The connection is cut, and something happens before the client is back.
        await logged(gateway, missed := an_event(sender))
        gateway.sever()
        await publish(gateway, last := an_event(sender))
        assert [(await client.event())["id"] for _ in range(2)] == [str(missed.id), str(last.id)]


async def _clients(gateway: Gateway) -> bool:
    return gateway.metric("waypost_gateway_live_clients") == 1


async def test_the_example_for_browsers_shows_what_happens(gateway: Gateway) -> None:
    customer, account = await gateway.register()
    instance = await an_instance(gateway.sql, UUID(account["user"]["organizationId"]))
    sender = Sender(customer, instance, UUID(account["user"]["organizationId"]))
    token = customer.headers["Authorization"].removeprefix("Bearer ")
    page = str(EXAMPLES / "browser.html")
    async with LiveClient.running(str(HERE / "live_browser.mjs"), page, gateway.url, token) as seen:
        await seen.next("state", where=lambda told: told["text"] == "live")
        await publish(gateway, emitted := an_event(sender))
        line = await seen.next("events")
        assert line["text"].startswith("2026-01-15T12:00:00.000Z message.sent ")
        assert isinstance(emitted.event, MessageSent)
        assert line["text"].endswith(emitted.event.message_id)
