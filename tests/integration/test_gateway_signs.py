"""Small signs to chats: that messages were read, and what somebody is doing."""

from datetime import timedelta
from uuid import UUID

import pytest

from shared.broker.topology import shard_queue
from shared.contracts.commands import MarkRead, ShowPresence
from shared.ids import new_id
from tests.integration.test_gateway_kinds import GROUP, TO, a_row
from tests.support.builders import an_instance
from tests.support.gateway import Gateway, Sender

ADA = "12025550142@s.whatsapp.net"


async def received(gateway: Gateway, to: Sender, chat: str, **more: object) -> UUID:
    return await a_row(
        gateway,
        to,
        **{
            "chat": chat,
            "status": "received",
            "direction": "inbound",
            "sender": "+12025550142",
            **more,
        },
    )


def engine_id(message: UUID) -> str:
    return "3EB0" + message.hex[:18].upper()


async def test_each_who_wrote_in_each_chat_is_told_what_was_read(
    gateway: Gateway, sender: Sender
) -> None:
    first = await received(gateway, sender, ADA)
    second = await received(gateway, sender, ADA)
    voice = await received(gateway, sender, ADA, type="voice")
    in_group = await received(gateway, sender, GROUP, sender="100000000000077@lid")
    all_of_them = [first, second, voice, in_group]
    answer = await sender.customer.post(
        "/api/messages/read", {"messageIds": [str(id_) for id_ in [*all_of_them, first]]}
    )
    assert answer.status == 202, answer.body
    assert answer.data == {
        "instanceId": str(sender.instance),
        "messageIds": [str(id_) for id_ in all_of_them],
    }
    told = [await gateway.heard.next(MarkRead, queue=shard_queue(7)) for _ in range(3)]
    assert {(one.chat, one.sender, one.engine_message_ids, one.played) for one in told} == {
        (ADA, ADA, (engine_id(first), engine_id(second)), False),
        (ADA, ADA, (engine_id(voice),), True),
        (GROUP, "100000000000077@lid", (engine_id(in_group),), False),
    }


async def test_only_what_this_instance_has_received_can_be_read(
    gateway: Gateway, sender: Sender
) -> None:
    own = await a_row(gateway, sender, status="sent")
    elsewhere = Sender(
        sender.customer, await an_instance(gateway.sql, sender.tenant), sender.tenant
    )
    other = await received(gateway, elsewhere, ADA)
    good = await received(gateway, sender, ADA)
    refused = await sender.customer.post(
        "/api/messages/read",
        {"messageIds": [str(id_) for id_ in (good, own, other, new_id())]},
    )
    assert (refused.status, refused.code) == (422, "VALIDATION_FAILED")
    assert set(refused.body["error"]["data"]["fields"]) == {
        "messageIds.1",
        "messageIds.2",
        "messageIds.3",
    }
    assert await gateway.count("gateway.outbox") == 0


@pytest.mark.parametrize("state", ["typing", "recording", "paused"])
async def test_a_chat_is_shown_what_the_account_does_if_not_too_late(
    gateway: Gateway, sender: Sender, state: str
) -> None:
    answer = await sender.customer.post("/api/chats/presence", {"to": TO, "state": state})
    assert answer.status == 202, answer.body
    assert answer.data == {"instanceId": str(sender.instance), "to": TO, "state": state}
    told = await gateway.heard.next(ShowPresence, queue=shard_queue(7))
    assert (told.instance_id, told.chat, told.state) == (
        sender.instance,
        "12025550199@s.whatsapp.net",
        state,
    )
    assert timedelta(0) < told.until - gateway.clock.now() <= timedelta(seconds=20)


async def test_a_state_that_is_none_is_refused(sender: Sender) -> None:
    refused = await sender.customer.post("/api/chats/presence", {"to": TO, "state": "dancing"})
    assert (refused.status, refused.code) == (422, "VALIDATION_FAILED")


async def test_signs_need_an_instance_that_is_ready_and_able(gateway: Gateway) -> None:
    for given, code in (
        ({"status": "disconnected"}, "INSTANCE_NOT_READY"),
        ({"engine": "pigeon"}, "VALIDATION_FAILED"),
    ):
        sender = await gateway.sender(**given)
        message = await received(gateway, sender, ADA)
        for path, body in (
            ("messages/read", {"messageIds": [str(message)]}),
            ("chats/presence", {"to": TO, "state": "typing"}),
        ):
            refused = await sender.customer.post(f"/api/{path}", body)
            assert refused.code == code, (given, path)
