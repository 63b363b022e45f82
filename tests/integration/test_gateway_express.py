"""The short way of texts: wherever a request leaves it, the answer is that of the long way."""

import asyncio
import gzip
import json
import socket
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from services.gateway.store import acceptance
from services.gateway.store.acceptance import NewMessage, Origin
from shared.ids import new_id
from tests.api.wire import Reply, Wire
from tests.support.customer import Answer
from tests.support.gateway import ALL, Gateway, Sender
from tests.support.keys import RING

TO = "+12025550199"
PLAIN: dict[str, Any] = {"to": TO, "message": "Hello"}
# The same text by the long way.
LONG: dict[str, Any] = {**PLAIN, "priority": "normal"}


async def failing(gateway: Gateway, code: str, *, after: float = 0) -> None:
    """Have PostgreSQL refuse every message with this SQLSTATE, after so many seconds."""
    await gateway.sql.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN PERFORM pg_sleep({after});"
        f" RAISE EXCEPTION 'refused' USING ERRCODE = '{code}'; END $$"
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


def spoken(
    sender: Sender, body: bytes, *, version: str = "1.1", method: str = "POST", **headers: str
) -> tuple[bytes, bytes]:
    """The head and the body of a request for a text, as they go over the wire."""
    lines = {
        "Host": "localhost",
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        **sender.customer.headers,
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"{method} /api/messages/text HTTP/{version}\r\n{head}\r\n".encode(), body


async def asked(gateway: Gateway, *parts: bytes) -> Reply:
    """What is answered to these bytes, each sent by itself."""
    wire = Wire(gateway.server.port or 0)
    for part in parts:
        await wire.send(part)
        await asyncio.sleep(0)
    try:
        return await wire.reply()
    finally:
        await wire.close()


def names(answer: Answer) -> set[str]:
    """The headers that it has."""
    return {name.lower() for name in answer.headers}


BODY = json.dumps(PLAIN).encode()
LARGE = json.dumps({**PLAIN, "message": "x" * 2_000_000}).encode()


async def test_the_usual_request_does_not_reach_the_application(
    gateway: Gateway, sender: Sender
) -> None:
    await sender.warm()
    before = gateway.server.long_ways
    replies = [await asked(gateway, *spoken(sender, BODY)) for _ in range(3)]
    replies += [await asked(gateway, b"".join(spoken(sender, BODY, X_Request_Id="mine")))]
    assert [reply.status for reply in replies] == [202] * 4
    assert gateway.server.long_ways == before
    assert await gateway.count("dispatcher.messages") == 5


@pytest.mark.parametrize(
    ("body", "how", "status"),
    [
        (BODY, {"Expect": "100-continue"}, 202),
        (BODY, {"version": "1.0"}, 202),
        (BODY, {"Connection": "close"}, 202),
        (BODY, {"Origin": "https://a.example"}, 202),
        (BODY, {"Idempotency_Key": "one"}, 202),
        (BODY, {"Content_Type": "application/json; charset=utf-8"}, 202),
        (gzip.compress(LARGE), {"Content_Encoding": "gzip"}, 413),
        (BODY, {"Authorization": "Bearer of-somebody-else"}, 401),
        (BODY, {"X-API-Key": "api_of-nobody"}, 401),
        (BODY, {"method": "PUT"}, 405),
    ],
    ids=lambda value: next(iter(value), None) if isinstance(value, dict) else "",
)
async def test_what_is_not_usual_is_left_to_the_application(
    gateway: Gateway, sender: Sender, body: bytes, how: dict[str, str], status: int
) -> None:
    await sender.warm()
    before = gateway.server.long_ways
    reply = await asked(gateway, *spoken(sender, body, **how))
    assert reply.status == status
    assert gateway.server.long_ways == before + 1
    assert await gateway.count("dispatcher.messages") == (2 if status == 202 else 1)


async def test_a_body_that_does_not_come_with_its_head_is_waited_for_by_the_application(
    gateway: Gateway, sender: Sender
) -> None:
    await sender.warm()
    before = gateway.server.long_ways
    head, body = spoken(sender, BODY)
    wire = Wire(gateway.server.port or 0)
    await wire.send(head + body[:10])
    async with asyncio.timeout(5):
        while gateway.server.long_ways == before:  # noqa: ASYNC110 - the server moves in our loop
            await asyncio.sleep(0)
    await wire.send(body[10:])
    assert (await wire.reply()).status == 202
    await wire.close()


async def test_who_may_not_send_is_refused_and_counted_as_by_the_long_way(gateway: Gateway) -> None:
    sender = await gateway.sender()
    may = {**ALL, "messages": {"send": False, "receive": True}}
    keyed, _ = await gateway.key(sender.instance, sender.tenant, permissions=may)
    await sender.warm()
    assert (await keyed.get("/api/instance/info")).status == 200
    refused = await keyed.text(TO, "x")
    assert (refused.status, refused.code) == (403, "FORBIDDEN")
    assert await gateway.count("dispatcher.messages") == 1


async def test_answers_that_nobody_reads_hold_back_the_requests_behind_them(
    gateway: Gateway, sender: Sender
) -> None:
    await sender.warm()
    many = 6000
    deaf = socket.socket()
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    deaf.setblocking(False)
    await asyncio.get_running_loop().sock_connect(deaf, ("127.0.0.1", gateway.server.port))
    _, writer = await asyncio.open_connection(sock=deaf, limit=1)
    writer.write(b"".join(spoken(sender, BODY)) * many)
    assert gateway.server.runner is not None
    assert gateway.server.runner.server is not None
    connections = gateway.server.runner.server.connections
    async with asyncio.timeout(30):
        while not any(one.writing_paused for one in connections):  # noqa: ASYNC110 - as above
            await asyncio.sleep(0)
    paused_at = answered(gateway, "2xx")
    for _ in range(500):
        await asyncio.sleep(0)
    assert answered(gateway, "2xx") <= paused_at + 1 < many
    writer.transport.abort()


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


async def test_what_failed_after_a_wait_is_measured_with_it(
    gateway: Gateway, sender: Sender
) -> None:
    await sender.warm()
    await failing(gateway, "40P01", after=0.3)
    assert (await sender.post(PLAIN)).status == 503
    seconds = gateway.metric(
        "waypost_gateway_http_request_seconds_sum",
        method="POST",
        route="/api/messages/text",
        status="5xx",
    )
    assert seconds >= 0.3


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


async def test_a_line_too_many_refuses_the_batch_and_moves_no_words(
    gateway: Gateway, sender: Sender
) -> None:
    origin = Origin(sender.instance, sender.tenant, 7, "+12025550000")
    chats = ("1111111@s.whatsapp.net", "2222222@s.whatsapp.net\n6666666@s.whatsapp.net", "3333333")
    batch = [
        NewMessage(str(new_id()), origin, chat, "{}", "id", gateway.clock.now()) for chat in chats
    ]
    with pytest.raises(asyncpg.NotNullViolationError):
        async with gateway.database.hot() as connection:
            await acceptance.accept(connection, batch, ring=RING)
    assert await gateway.count("dispatcher.messages") == 0
