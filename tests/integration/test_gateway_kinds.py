"""Every kind of message beside texts and files: what is accepted, and what reaches the row."""

from typing import Any
from uuid import UUID

import orjson
import pytest
from pydantic import TypeAdapter

from shared.contracts.commands import Dispatch
from shared.contracts.content import (
    ContactCard,
    Location,
    Poll,
    Reaction,
    Sendable,
    Text,
)
from tests.support.builders import a_message_row, an_instance
from tests.support.customer import Answer
from tests.support.gateway import Gateway, Sender
from tests.support.keys import said

TO = "+12025550199"
CHAT = "12025550199@s.whatsapp.net"
GROUP = "120363000000000001@g.us"
CONTENT: TypeAdapter[Sendable] = TypeAdapter(Sendable)


async def row_of(gateway: Gateway, answer: Answer) -> dict[str, Any]:
    assert answer.status == 202, answer.body
    row = await gateway.row(
        "SELECT * FROM dispatcher.messages WHERE id = $1", UUID(answer.data["id"])
    )
    return {**row, "content": CONTENT.validate_json(said(row))}


async def a_row(gateway: Gateway, owner: Sender, **given: Any) -> UUID:
    """A message; what the builder does not know is changed afterwards."""
    known = {name: given.pop(name) for name in ("chat", "status", "text") if name in given}
    message = await a_message_row(gateway.sql, owner.tenant, owner.instance, **known)
    for column, value in given.items():
        await gateway.sql.execute(
            f"UPDATE dispatcher.messages SET {column} = $2 WHERE id = $1", message, value
        )
    return message


async def reply(sender: Sender, to: str, message: str) -> Answer:
    return await sender.post({"to": to, "message": "Hello", "replyTo": message})


KINDS: list[tuple[str, dict[str, Any], Sendable]] = [
    (
        "location",
        {"latitude": 52.5163, "longitude": 13.3777, "name": "Gate", "address": "Platz 1"},
        Location(latitude=52.5163, longitude=13.3777, name="Gate", address="Platz 1"),
    ),
    (
        "contact",
        {"name": "Ada", "phones": ["+1 202 555 0142"]},
        ContactCard(name="Ada", phones=("+12025550142",)),
    ),
    (
        "poll",
        {"question": "When?", "options": ["Monday", " Tuesday "], "selectable": 2},
        Poll(question="When?", options=("Monday", "Tuesday"), selectable=2),
    ),
]


@pytest.mark.parametrize(("kind", "body", "content"), KINDS)
async def test_each_kind_is_accepted_and_kept_as_it_will_be_sent(
    gateway: Gateway, sender: Sender, kind: str, body: dict[str, Any], content: Sendable
) -> None:
    answer = await sender.customer.post(
        f"/api/messages/{kind}",
        {"to": TO, **body, "priority": "low", "metadata": {"order": "1042"}},
    )
    row = await row_of(gateway, answer)
    assert (row["type"], row["chat"], row["content"]) == (kind, CHAT, content)
    assert (row["priority"], orjson.loads(row["metadata"])) == (2, {"order": "1042"})
    assert (await gateway.heard.next(Dispatch)).instance_ids == (sender.instance,)
    shown = (await sender.customer.get(f"/api/messages/{answer.data['id']}")).data
    assert shown["type"] == kind
    listed = await sender.customer.get(f"/api/messages?type={kind}")
    assert [one["id"] for one in listed.data] == [answer.data["id"]]


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("location", {"latitude": 91, "longitude": 0}, "latitude"),
    ("location", {"latitude": 0}, "longitude"),
    ("contact", {"name": "Ada"}, "phones"),
    ("contact", {"name": "Ada", "phones": [GROUP]}, "phones.0"),
    ("contact", {"name": " ", "phones": [TO]}, "name"),
    ("poll", {"question": "?", "options": ["one"]}, "options"),
    ("poll", {"question": "?", "options": [str(n) for n in range(13)]}, "options"),
    ("poll", {"question": "?", "options": ["one", "one"]}, "body"),
    ("poll", {"question": "?", "options": ["one", "two"], "selectable": 3}, "body"),
    ("poll", {"question": "?", "options": ["one", "two"], "selectable": 0}, "selectable"),
    ("reaction", {"emoji": "👍"}, "messageId"),
    ("send", {}, "body"),
    ("send", {"message": "x", "body": "y"}, "body"),
    ("send", {"message": "x", "scheduledAt": "2036-01-01T00:00:00Z"}, "scheduledAt"),
    ("read", {"messageIds": []}, "messageIds"),
]


async def test_what_is_wrong_is_named_and_leaves_nothing(gateway: Gateway, sender: Sender) -> None:
    await sender.warm()
    before = await gateway.rows()
    for kind, body, field in WRONG:
        to = {} if kind == "read" else {"to": TO}
        refused = await sender.customer.post(f"/api/messages/{kind}", {**to, **body})
        assert (refused.status, refused.code) == (422, "VALIDATION_FAILED"), (kind, body)
        assert field in refused.body["error"]["data"]["fields"], refused.body
    assert await gateway.rows() == before


async def test_the_generic_form_sends_words_by_either_name(
    gateway: Gateway, sender: Sender
) -> None:
    for words in ("message", "body"):
        answer = await sender.customer.post(
            "/api/messages/send", {"to": TO, words: "Hello", "priority": "high"}
        )
        row = await row_of(gateway, answer)
        assert (row["type"], row["content"], row["priority"]) == ("text", Text(text="Hello"), 0)


async def test_a_user_sends_by_the_instance_in_the_path(gateway: Gateway) -> None:
    ada, account = await gateway.register()
    tenant = UUID(account["organization"]["id"])
    instance = await an_instance(gateway.sql, tenant)
    other = await an_instance(gateway.sql, tenant)
    for path in ("instances", "clients"):
        answer = await ada.post(
            f"/api/{path}/{instance}/send-message", {"to": TO, "message": "Hello"}
        )
        assert answer.data["instanceId"] == str(instance)
    wrong = await ada.post(
        f"/api/instances/{instance}/send-message",
        {"to": TO, "message": "Hello", "instanceId": str(other)},
    )
    assert list(wrong.body["error"]["data"]["fields"]) == ["instanceId"]


async def test_a_key_that_repeats_a_message_of_any_kind_gets_the_first_answer(
    gateway: Gateway, sender: Sender
) -> None:
    headers = {"Idempotency-Key": "place-1"}
    body = {"to": TO, "latitude": 1, "longitude": 2}
    first = await sender.customer.post("/api/messages/location", body, headers=headers)
    again = await sender.customer.post("/api/messages/location", body, headers=headers)
    assert again.data == first.data
    assert again.headers["Idempotency-Replayed"] == "true"
    other = await sender.customer.post(
        "/api/messages/location", {**body, "latitude": 3}, headers=headers
    )
    assert other.code == "IDEMPOTENCY_MISMATCH"
    assert await gateway.count("dispatcher.messages") == 1


async def test_what_an_engine_cannot_say_is_refused_with_what_it_can(gateway: Gateway) -> None:
    sender = await gateway.sender(engine="pigeon")
    refused = await sender.customer.post(
        "/api/messages/poll", {"to": TO, "question": "?", "options": ["one", "two"]}
    )
    assert (refused.status, refused.code) == (422, "VALIDATION_FAILED")
    assert refused.body["error"]["data"] == {
        "engine": "pigeon",
        "needed": "poll",
        "capabilities": [],
    }
    assert await gateway.count("dispatcher.messages") == 0


async def test_a_reply_says_who_wrote_what_it_answers(gateway: Gateway, sender: Sender) -> None:
    ada = "+12025550142"
    theirs = await a_row(
        gateway, sender, chat=GROUP, status="received", direction="inbound", sender=ada
    )
    own = await a_row(gateway, sender, chat=GROUP, status="sent")
    for message, who in ((theirs, "12025550142@s.whatsapp.net"), (own, None)):
        answer = await reply(sender, GROUP, str(message))
        row = await row_of(gateway, answer)
        engine_id = "3EB0" + message.hex[:18].upper()
        assert row["content"] == Text(text="Hello", reply_to=engine_id, reply_to_sender=who)


async def test_a_message_of_whatsapps_id_is_the_contacts_unless_it_was_sent_from_here(
    gateway: Gateway, sender: Sender
) -> None:
    await gateway.sql.execute(
        "INSERT INTO sessions.handovers (transmission_id, message_id, tenant_id, instance_id,"
        " shard, epoch, engine_message_id, handed_over_at)"
        " VALUES (gen_random_uuid(), gen_random_uuid(), $1, $2, 7, 1, '3AOURS', now())",
        sender.tenant,
        sender.instance,
    )
    for engine_id, who in (("3AOURS", None), ("3ATHEIRS", CHAT)):
        row = await row_of(gateway, await reply(sender, TO, engine_id))
        assert row["content"].reply_to_sender == who
        reacted = await sender.customer.post(
            "/api/messages/reaction", {"to": TO, "messageId": engine_id, "emoji": "👍"}
        )
        row = await row_of(gateway, reacted)
        assert row["content"] == Reaction(target_id=engine_id, target_sender=who, emoji="👍")
        assert row["target_id"] is None
    for path, body in (
        ("text", {"to": GROUP, "message": "x", "replyTo": "3ATHEIRS"}),
        ("reaction", {"to": GROUP, "messageId": "3ATHEIRS", "emoji": "👍"}),
        ("reaction", {"messageId": "3ATHEIRS", "emoji": "👍"}),
        ("reaction", {"messageId": "3AOURS", "emoji": "👍"}),
    ):
        refused = await sender.customer.post(f"/api/messages/{path}", body)
        assert refused.status == 422, body


async def test_a_reaction_goes_to_the_conversation_of_its_message(
    gateway: Gateway, sender: Sender
) -> None:
    theirs = await a_row(
        gateway,
        sender,
        chat=GROUP,
        status="received",
        direction="inbound",
        sender="+12025550142",
    )
    for emoji in ("👍", ""):
        answer = await sender.customer.post(
            "/api/messages/reaction", {"messageId": str(theirs), "emoji": emoji}
        )
        assert "targetId" not in answer.data
        row = await row_of(gateway, answer)
        assert (row["type"], row["chat"], row["target_id"]) == ("reaction", GROUP, theirs)
        assert row["content"] == Reaction(
            target_id="3EB0" + theirs.hex[:18].upper(),
            target_sender="12025550142@s.whatsapp.net",
            emoji=emoji,
        )
    wrong = await sender.customer.post(
        "/api/messages/reaction", {"to": TO, "messageId": str(theirs), "emoji": "👍"}
    )
    assert list(wrong.body["error"]["data"]["fields"]) == ["to"]


@pytest.mark.parametrize(
    ("engine", "status", "accepted"),
    [
        ("sandbox", "queued", True),
        ("whatsmeow", "sent", True),
        ("whatsmeow", "queued", False),
        ("whatsmeow", "unconfirmed", False),
        ("sandbox", "failed", False),
    ],
)
async def test_one_refers_to_a_message_only_when_whatsapps_id_of_it_is_known(
    gateway: Gateway, engine: str, status: str, accepted: bool
) -> None:
    sender = await gateway.sender(engine=engine)
    own = await a_row(gateway, sender, status=status)
    answer = await reply(sender, TO, str(own))
    assert (answer.status == 202) is accepted, answer.body
    if not accepted:
        assert list(answer.body["error"]["data"]["fields"]) == ["replyTo"]


async def test_nothing_refers_to_what_another_tenant_has(gateway: Gateway, sender: Sender) -> None:
    other = await gateway.sender()
    foreign = str(await a_row(gateway, other, status="sent"))
    for path, body in (
        ("text", {"to": TO, "message": "x", "replyTo": foreign}),
        ("reaction", {"messageId": foreign, "emoji": "👍"}),
        ("read", {"messageIds": [foreign]}),
    ):
        refused = await sender.customer.post(f"/api/messages/{path}", body)
        assert refused.status == 422, (path, refused.body)
    for method, json in (("PUT", {"message": "x"}), ("DELETE", None)):
        refused = await sender.customer.call(method, f"/api/messages/{foreign}", json=json)
        assert (refused.status, refused.code) == (404, "NOT_FOUND")
