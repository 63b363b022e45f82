"""The short way of texts: wherever a request leaves it, the answer is that of the long way."""

import asyncio
from typing import Any
from uuid import UUID

import pytest

from tests.support.customer import Answer
from tests.support.gateway import Gateway, Sender

TO = "+12025550199"
PLAIN: dict[str, Any] = {"to": TO, "message": "Hello"}
# The same text by the long way.
LONG: dict[str, Any] = {**PLAIN, "priority": "normal"}


async def failing(gateway: Gateway, code: str) -> None:
    """Have PostgreSQL refuse every message with this SQLSTATE."""
    await gateway.sql.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN RAISE EXCEPTION 'refused' USING ERRCODE = '{code}'; END $$"
    )
    await gateway.sql.execute(
        "CREATE TRIGGER refusing BEFORE INSERT ON dispatcher.messages"
        " FOR EACH ROW EXECUTE FUNCTION refuse()"
    )


def answered(gateway: Gateway, status: str) -> float:
    """How many requests for texts have left a sample with this status."""
    return gateway.metric(
        "waypost_gateway_http_request_seconds_count",
        method="POST",
        route="/api/messages/text",
        status=status,
    )


def counted(answer: Answer) -> int:
    """What is left to the key after this request."""
    return int(answer.headers["RateLimit-Remaining"])


def names(answer: Answer) -> set[str]:
    """The headers that it has."""
    return {name.lower() for name in answer.headers}


@pytest.mark.parametrize(
    ("code", "status", "error"),
    [("40P01", 503, "ENGINE_UNAVAILABLE"), ("23514", 500, "INTERNAL_SERVER_ERROR")],
    ids=["for the moment", "for good"],
)
async def test_what_cannot_be_committed_is_refused_as_by_the_long_way(
    gateway: Gateway, sender: Sender, code: str, status: int, error: str
) -> None:
    await sender.warm()
    await failing(gateway, code)
    refused = answered(gateway, "5xx")
    short = await sender.post(PLAIN, headers={"X-Request-Id": "mine"})
    long = await sender.post(LONG, headers={"X-Request-Id": "mine"})
    assert (short.status, short.code) == (status, error)
    assert short.body == long.body
    assert short.body["error"]["requestId"] == short.headers["X-Request-Id"] == "mine"
    assert names(short) == names(long)
    assert counted(short) == counted(long) + 1
    assert answered(gateway, "5xx") == refused + 2
    assert await gateway.count("dispatcher.messages") == 1  # that of warming up


@pytest.mark.parametrize(
    "body", [{"to": "nobody", "message": "x"}, {**PLAIN, "message": "\0"}, {**PLAIN, "more": 1}]
)
async def test_what_is_wrong_is_counted_once_and_explained(
    gateway: Gateway, sender: Sender, body: dict[str, Any]
) -> None:
    await sender.warm()
    before = await sender.post(PLAIN)
    refused = await sender.post(body)
    after = await sender.post(PLAIN)
    assert (refused.status, refused.code) == (422, "VALIDATION_FAILED")
    assert refused.body["error"]["data"]["fields"]
    assert [counted(before) - counted(answer) for answer in (refused, after)] == [1, 2]
    assert answered(gateway, "4xx") == 1


async def test_a_request_too_many_is_told_when_to_come_back(gateway: Gateway) -> None:
    sender = await gateway.sender()
    keyed, _ = await gateway.key(sender.instance, sender.tenant, rate_limit=2)
    assert (await keyed.get("/api/instance/info")).status == 200
    assert (await keyed.text(TO, "x")).status == 202
    refused = [await keyed.text(TO, "x") for _ in range(2)]
    assert [(answer.status, answer.code) for answer in refused] == 2 * [
        (429, "RATE_LIMIT_EXCEEDED")
    ]
    assert all(int(answer.headers["Retry-After"]) > 0 for answer in refused)
    assert await gateway.count("dispatcher.messages") == 1


async def test_it_leaves_a_sample_and_the_id_that_the_request_brought(
    gateway: Gateway, sender: Sender
) -> None:
    await sender.warm()
    accepted = answered(gateway, "2xx")
    sane = await sender.post(PLAIN, headers={"X-Request-Id": "mine"})
    strange = await sender.post(PLAIN, headers={"X-Request-Id": "no id: spaces"})
    assert answered(gateway, "2xx") == accepted + 2
    assert sane.headers["X-Request-Id"] == "mine"
    assert len(strange.headers["X-Request-Id"]) == 32
    for answer in (sane, strange):
        row = await gateway.row(
            "SELECT request_id FROM dispatcher.messages WHERE id = $1", UUID(answer.data["id"])
        )
        assert row["request_id"] == answer.headers["X-Request-Id"]


@pytest.mark.parametrize(("method", "status"), [("GET", 405), ("PUT", 405), ("OPTIONS", 204)])
async def test_other_methods_are_answered_by_the_application(
    sender: Sender, method: str, status: int
) -> None:
    await sender.warm()
    answer = await sender.customer.call(method, "/api/messages/text", json=PLAIN)
    assert answer.status == status
    assert "POST" in answer.headers["Allow"]


async def test_a_batch_keeps_what_each_of_its_texts_says(gateway: Gateway, sender: Sender) -> None:
    await sender.warm()
    said = ["one\ntwo", 'quo"ted \\ {braces}', "\U0001d518nicode\u2028", "x" * 4096]
    answers = await asyncio.gather(*(sender.text(message=text) for text in said))
    ids = [answer.data["id"] for answer in answers]
    shown = [(await sender.customer.get(f"/api/messages/{id_}")).data for id_ in ids]
    assert [message["content"]["text"] for message in shown] == said
