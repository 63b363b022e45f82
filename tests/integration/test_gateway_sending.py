"""Accepting texts: a 202 is committed, everything else leaves nothing."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import orjson
import pytest
from pydantic import TypeAdapter

from shared.contracts.commands import Dispatch
from shared.contracts.content import Content, Text
from shared.ids import new_id
from tests.support import gateway as gateway_support
from tests.support.builders import a_message_row, an_instance, an_organization
from tests.support.customer import Answer
from tests.support.gateway import Gateway, Sender
from tests.support.keys import said

TO = "+12025550199"
CONTENT: TypeAdapter[Content] = TypeAdapter(Content)
# A request that has nothing unusual takes another way than one that has.
BOTH_WAYS: list[dict[str, Any]] = [{}, {"priority": "normal"}, {"to": "+1 (202) 555-0199"}]


@pytest.mark.parametrize("more", BOTH_WAYS)
async def test_what_is_accepted_is_committed_and_can_be_asked_for(
    gateway: Gateway, sender: Sender, more: dict[str, Any]
) -> None:
    await sender.warm()
    long_ways = gateway.server.long_ways
    answer = await sender.post(
        {"to": TO, "message": 'Hélló "x" \\ 👋', **more}, headers={"X-Request-Id": "from-me"}
    )
    assert answer.status == 202
    assert gateway.server.long_ways - long_ways == (1 if more else 0)
    assert answer.data == {
        "id": answer.data["id"],
        "status": "queued",
        "instanceId": str(sender.instance),
        "to": TO,
        "createdAt": answer.data["createdAt"],
    }
    row = await gateway.row(
        "SELECT * FROM dispatcher.messages WHERE id = $1", UUID(answer.data["id"])
    )
    assert UUID(answer.data["id"]).version == 7
    assert row["tenant_id"] == sender.tenant
    assert row["instance_id"] == sender.instance
    assert (row["shard"], row["direction"], row["status"], row["type"]) == (
        7,
        "outbound",
        "queued",
        "text",
    )
    assert row["chat"] == "12025550199@s.whatsapp.net"
    assert (row["sender"], row["recipient"]) == ("+12025550000", TO)
    assert (row["priority"], row["on_unknown"], row["metadata"]) == (1, "fail", None)
    assert row["request_id"] == "from-me"
    assert row["engine_message_id"].startswith("3EB0")
    assert len(row["engine_message_id"]) == 22
    assert row["due_at"] == row["created_at"]
    assert abs(row["created_at"] - gateway.clock.now()) < timedelta(seconds=60)
    assert row["expires_at"] == row["created_at"] + timedelta(hours=24)
    assert CONTENT.validate_json(said(row)) == Text(text='Hélló "x" \\ 👋')
    shown = (await sender.customer.get(f"/api/messages/{answer.data['id']}")).data
    assert shown["createdAt"] == answer.data["createdAt"]
    assert shown["engineMessageId"] == row["engine_message_id"]


async def test_both_ways_answer_with_the_same_headers(sender: Sender) -> None:
    await sender.warm()
    usual = await sender.post({"to": TO, "message": "x"})
    other = await sender.post({"to": TO, "message": "x", "priority": "normal"})
    assert usual.status == other.status == 202
    changing = {"date", "x-request-id", "ratelimit-remaining", "ratelimit-reset", "content-length"}

    def fixed(answer: Answer) -> dict[str, str]:
        headers = {name.lower(): value for name, value in answer.headers.items()}
        assert changing <= set(headers)
        return {name: value for name, value in headers.items() if name not in changing}

    assert fixed(usual) == fixed(other)


async def test_options_and_references_reach_the_row(gateway: Gateway, sender: Sender) -> None:
    inbound = await a_message_row(gateway.sql, sender.tenant, sender.instance, status="received")
    answer = await sender.post(
        {
            "to": "12025550199@c.us",
            "message": "Hello @Ada",
            "mentions": ["+1 202 555 0142"],
            "linkPreview": True,
            "replyTo": str(inbound),
            "priority": "high",
            "metadata": {"order": "1042"},
            "onUnknown": "resend",
            "instanceId": str(sender.instance),
        },
    )
    assert answer.status == 202, answer.body
    row = await gateway.row(
        "SELECT * FROM dispatcher.messages WHERE id = $1", UUID(answer.data["id"])
    )
    engine_id = await gateway.sql.fetchval(
        "SELECT engine_message_id FROM dispatcher.messages WHERE id = $1", inbound
    )
    assert CONTENT.validate_json(said(row)) == Text(
        text="Hello @Ada",
        mentions=("12025550142@s.whatsapp.net",),
        link_preview=True,
        reply_to=engine_id,
    )
    assert orjson.loads(row["metadata"]) == {"order": "1042"}
    assert (row["priority"], row["on_unknown"]) == (0, "resend")


async def test_the_dispatcher_is_told_once_for_many(gateway: Gateway, sender: Sender) -> None:
    other = await gateway.sender()
    await asyncio.gather(*(who.text() for who in (sender, other) for _ in range(20)))
    told: set[UUID] = set()
    news = 0
    while told != {sender.instance, other.instance}:
        told |= set((await gateway.heard.next(Dispatch)).instance_ids)
        news += 1
    assert news < 20


async def test_messages_are_numbered_in_the_order_in_which_they_were_accepted(
    gateway: Gateway, sender: Sender
) -> None:
    await sender.warm()
    ids = [(await sender.text(message=str(number))).data["id"] for number in range(5)]
    rows = await gateway.sql.fetch("SELECT id FROM dispatcher.messages ORDER BY sequence DESC")
    assert [str(row[0]) for row in rows[:5]] == ids[::-1]


async def test_many_at_once_are_all_accepted_and_each_under_its_own_id(
    gateway: Gateway, sender: Sender
) -> None:
    await sender.warm()
    keyed: list[dict[str, Any]] = [
        {"headers": {"Idempotency-Key": f"key-{n}"}} if n % 3 == 0 else {} for n in range(60)
    ]
    answers = await asyncio.gather(*(sender.text(message="x", **more) for more in keyed))
    assert {answer.status for answer in answers} == {202}
    assert len({answer.data["id"] for answer in answers}) == 60
    assert await gateway.count("dispatcher.messages") == 61
    assert await gateway.count("gateway.idempotency_keys") == 20


async def test_what_happens_to_an_instance_is_noticed_within_a_second(
    gateway: Gateway, sender: Sender
) -> None:
    await sender.warm()
    await gateway.sql.execute("UPDATE sessions.session_states SET status = 'banned'")
    gateway.clock.move(timedelta(seconds=1))
    assert (await sender.text()).code == "INSTANCE_NOT_READY"


async def test_disconnecting_is_noticed_at_once_where_it_was_asked_for(gateway: Gateway) -> None:
    ada, account = await gateway.register()
    tenant = UUID(account["organization"]["id"])
    instance = await an_instance(gateway.sql, tenant)
    keyed, _ = await gateway.key(instance, tenant)
    assert (await keyed.text(TO, "x")).status == 202
    await ada.post(f"/api/instances/{instance}/disconnect")
    assert (await keyed.text(TO, "x")).code == "INSTANCE_NOT_READY"


async def test_a_user_names_the_instance_and_a_key_can_only_mean_its_own(
    gateway: Gateway, sender: Sender
) -> None:
    ada, account = await gateway.register()
    tenant = UUID(account["organization"]["id"])
    own = str(await an_instance(gateway.sql, tenant))
    other = str(await an_instance(gateway.sql, await an_organization(gateway.sql)))
    before = await gateway.rows()

    async def text(**more: Any) -> Answer:
        return await ada.post("/api/messages/text", {"to": TO, "message": "x", **more})

    missing = await text()
    assert list(missing.body["error"]["data"]["fields"]) == ["instanceId"]
    for named in ({"instanceId": other}, {"sessionId": other}, {"instanceId": str(new_id())}):
        refused = await text(**named)
        assert (refused.status, refused.code) == (404, "NOT_FOUND")
    assert (await text(instanceId=own, sessionId=other)).status == 422
    for named in ({"instanceId": own}, {"instanceId": other}):
        refused = await sender.post({"to": TO, "message": "x", **named})
        assert (refused.status, refused.code) == (404, "NOT_FOUND")
    assert await gateway.rows() == before
    assert (await text(instanceId=own)).data["instanceId"] == own
    assert (await text(sessionId=own)).status == 202


async def test_a_reply_to_another_instances_message_is_refused(
    gateway: Gateway, sender: Sender
) -> None:
    other = await gateway.sender()
    foreign = (await other.text()).data["id"]
    refused = await sender.post({"to": TO, "message": "x", "replyTo": foreign})
    assert list(refused.body["error"]["data"]["fields"]) == ["replyTo"]
    own = await sender.post({"to": TO, "message": "x", "replyTo": "3EB0WHATSAPPS"})
    assert own.status == 202


async def test_a_web_page_that_is_trusted_may_send(database_url: str) -> None:
    async with gateway_support.running(database_url, cors_origins="https://a.example") as gateway:
        sender = await gateway.sender()
        await sender.warm()
        origin = {"Origin": "https://a.example"}
        page = await sender.post({"to": TO, "message": "x"}, headers=origin)
        assert page.headers["Access-Control-Allow-Origin"] == "https://a.example"
        plain = await sender.post({"to": TO, "message": "x"})
        assert plain.headers["Vary"] == page.headers["Vary"] == "Origin"
        assert "Access-Control-Allow-Origin" not in plain.headers


async def test_where_every_page_may_send_no_answer_depends_on_the_page(database_url: str) -> None:
    async with gateway_support.running(database_url, cors_origins="*") as gateway:
        sender = await gateway.sender()
        await sender.warm()
        for more in BOTH_WAYS:
            assert "Vary" not in (await sender.post({"to": TO, "message": "x", **more})).headers


@pytest.mark.parametrize("more", BOTH_WAYS)
async def test_a_bearer_token_comes_before_a_key_whatever_else_is_sent(
    sender: Sender, more: dict[str, Any]
) -> None:
    await sender.warm()
    answer = await sender.post(
        {"to": TO, "message": "x", **more}, headers={"Authorization": "Bearer of-somebody-else"}
    )
    assert answer.status == 401
