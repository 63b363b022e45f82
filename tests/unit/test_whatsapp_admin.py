"""The admin API of the local WhatsApp server, without any client."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from tests.whatsapp import admin, receipts
from tests.whatsapp.accounts import Phone, device_hash
from tests.whatsapp.devices import Device, Mailbox
from tests.whatsapp.jid import LIDS, PHONES, Jid
from tests.whatsapp.stanza import Attributes, Stanza
from tests.whatsapp.world import World

Client = TestClient[Any, Any]


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
async def client(world: World) -> AsyncIterator[Client]:
    async with TestClient(TestServer(admin.application(world))) as client:
        yield client


async def test_a_phone_is_added_once(client: Client) -> None:
    first = await (await client.post("/phones", json={"phone": "+4915100"})).json()
    again = await (await client.post("/phones", json={"phone": "4915100"})).json()
    assert first == again
    assert (first["jid"], first["devices"]) == ("4915100@s.whatsapp.net", [])
    named = await client.post("/phones", json={"phone": "1", "lid": "77@lid", "pushName": "Ada"})
    assert (await named.json())["lidJid"] == "77@lid"
    assert [p["pushName"] for p in await (await client.get("/phones")).json()] == ["4915100", "Ada"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/phones/1", None, 404),
        ("POST", "/phones", {}, 422),
        ("POST", "/phones/2/scan", {"qr": "nonsense"}, 422),
        ("POST", "/phones/2/scan", {"qr": "a,b,c,d,e"}, 409),
        ("POST", "/phones/2/code", {"code": "ABCD-EFGH"}, 409),
        ("DELETE", "/phones/2/devices/1", None, 404),
        ("DELETE", "/phones/2/devices/0", None, 404),
        ("POST", "/faults", {"kind": "rain"}, 422),
    ],
)
async def test_what_cannot_be_done_is_told(
    client: Client, method: str, path: str, body: object, status: int
) -> None:
    await client.post("/phones", json={"phone": "2"})
    assert (await client.request(method, path, json=body)).status == status


async def test_a_happening_is_waited_for(client: Client, world: World) -> None:
    world.happenings.tell("message", phone="1", id="A")
    asked = client.get("/happenings", params={"after": "0", "wait": "5", "id": "B"})
    async with asyncio.TaskGroup() as both:
        waiting = both.create_task(asked)
        world.happenings.tell("message", phone="1", id="B")
    answer = await waiting.result().json()
    assert [(found["n"], found["id"]) for found in answer["happenings"]] == [(2, "B")]
    assert answer["last"] == 2
    late = await (await client.get("/happenings", params={"after": "2"})).json()
    assert late["happenings"] == []


async def test_a_reset_leaves_nobody(client: Client, world: World) -> None:
    await client.post("/phones", json={"phone": "1"})
    await client.post("/groups", json={"by": "1", "subject": "Tea", "members": ["2"]})
    await client.post("/faults", json={"kind": "no_ack"})
    world.happenings.tell("message")
    assert (await client.post("/reset")).status == 204
    for path in ("/phones", "/groups", "/faults", "/connections", "/unknown"):
        assert await (await client.get(path)).json() == []
    assert world.happenings.last > 1


async def test_a_fault_strikes_as_often_as_it_is_told_to(client: Client, world: World) -> None:
    await client.post("/faults", json={"kind": "402", "phone": "1", "expire": 60})
    await client.post("/faults", json={"kind": "no_ack", "count": 2})
    assert world.faults.refusal("2") is None
    refusal = world.faults.refusal("1")
    assert refusal is not None
    assert (refusal.text("reason"), refusal.text("expire")) == ("402", "60")
    assert world.faults.refusal("1") is None
    struck = [world.faults.strikes("no_ack", "9") is not None for _ in range(3)]
    assert struck == [True, True, False]


def test_a_mailbox_keeps_what_is_not_confirmed_in_order() -> None:
    mailbox = Mailbox()
    for number in ("1", "2", "3"):
        mailbox.put(("message", number), Stanza("message", {"id": number}))
    assert mailbox.confirm(("message", "2"))
    assert not mailbox.confirm(("message", "2"))
    assert [stanza.text("id") for stanza in mailbox.backlog()] == ["1", "3"]


async def test_a_phone_without_a_client_can_report_on_messages(
    client: Client, world: World
) -> None:
    author, reader = world.add_phone("1"), world.add_phone("2")
    device = author.devices[1] = Device(author, 1)
    body = {"to": "1", "ids": ["A", "B"], "type": "read"}
    assert (await client.post("/phones/2/receipts", json=body)).status == 202
    (receipt,) = device.mailbox.backlog()
    assert (receipt.text("type"), receipt.jid("from")) == ("read", reader.at(LIDS))
    assert [item.text("id") for item in receipt.every("item")] == ["B"]
    ack = Stanza("ack", {"id": "A", "to": reader.at(LIDS), "class": "receipt", "type": "read"})
    receipts.acknowledged(device, ack)
    assert device.mailbox.backlog() == []


def test_a_message_said_twice_is_told_from_the_same_ciphertext_again() -> None:
    phone = Phone("1", "100")
    device = phone.devices[0]

    def said(ciphertext: bytes) -> Stanza:
        to = Stanza("to", {"jid": Jid("2", PHONES)}, [Stanza("enc", {}, ciphertext)])
        attributes: Attributes = {"id": "A", "to": Jid("2", PHONES)}
        return Stanza("message", attributes, [Stanza("participants", {}, [to])])

    phone.record(device, said(b"once"), retry=False)
    sent = phone.record(device, said(b"once"), retry=False)
    assert (sent.sends, sent.repeats) == (1, 1)
    phone.record(device, said(b"twice"), retry=False)
    phone.record(device, said(b"again, please"), retry=True)
    assert (sent.sends, sent.repeats, sent.retries) == (2, 1, 1)


def test_a_hash_of_devices_does_not_depend_on_their_order() -> None:
    devices = [Jid("1", PHONES, n) for n in (0, 2, 1)]
    assert device_hash(devices) == device_hash(sorted(devices, key=str))
    assert device_hash(devices).startswith("2:")
    assert device_hash(devices) != device_hash(devices[1:])
