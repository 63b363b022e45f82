"""What happens on a connection before a request came about."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from shared.web.connections import ConnectionLimits, Runner
from shared.web.edge import Edge
from shared.web.envelope import respond
from tests.support.clock import HandClock
from tests.support.eventually import eventually

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def served(**limits: object) -> AsyncIterator[int]:
    """A server that answers GET /; its port."""

    async def answer(request: web.Request) -> web.StreamResponse:
        return respond("here")

    app = web.Application()
    Edge(service="gateway", clock=HandClock(), registry=CollectorRegistry()).install(app)
    app.router.add_get("/", answer)
    runner = Runner(app, ConnectionLimits(**limits), shutdown_timeout=1)  # type: ignore[arg-type]
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def asked(port: int, raw: bytes) -> tuple[str, dict[str, str], bytes]:
    """What is answered to these bytes, until the connection ends."""
    async with asyncio.timeout(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(raw)
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    return first, dict(line.lower().split(": ", 1) for line in lines), body


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (b"NOT HTTP AT ALL\r\n\r\n", "method"),
        (b"GET / HTTP/x\r\n\r\n", "first line"),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", "method"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nSecret\x00: hunter2\r\n\r\n", "head"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 9000 + b"\r\n\r\n", "too long"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 200 + b"\r\n", "too many headers"),
        (b"GET / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", "head"),
    ],
)
async def test_what_is_no_request_is_answered_in_the_envelope_without_its_own_words(
    raw: bytes, told: str
) -> None:
    async with served() as port:
        first, headers, body = await asked(port, raw)

    problem = json.loads(body)["error"]
    assert (first.split(" ", 1)[1], problem["code"]) == ("400 Bad Request", "BAD_REQUEST")
    assert told in problem["message"]
    assert problem["requestId"] == headers["x-request-id"]
    assert headers["x-content-type-options"] == "nosniff"
    assert b"hunter2" not in body


async def test_an_expectation_that_nobody_knows_is_refused_in_the_envelope() -> None:
    raw = b"GET / HTTP/1.1\r\nHost: a\r\nExpect: much\r\nConnection: close\r\n\r\n"
    async with served() as port:
        first, headers, body = await asked(port, raw)

    assert first == "HTTP/1.1 417 Expectation Failed"
    assert json.loads(body)["error"]["requestId"] == headers["x-request-id"]


async def test_one_connection_too_many_is_told_so_until_another_has_left() -> None:
    async with served(most=1) as port:
        _, held = await asyncio.open_connection("127.0.0.1", port)
        first, headers, body = await asked(port, b"")
        assert first == "HTTP/1.1 503 Service Unavailable"
        assert headers["retry-after"] == "5"
        assert json.loads(body)["error"]["code"] == "ENGINE_UNAVAILABLE"

        held.close()
        await held.wait_closed()
        first, _, _ = await asked(port, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert first == "HTTP/1.1 200 OK"


@pytest.mark.parametrize("raw", [b"", b"GET / HTTP/1.1\r\nHost: a\r\nX-Half: "])
async def test_a_connection_without_a_whole_head_is_ended(raw: bytes) -> None:
    async with served(idle=timedelta(milliseconds=50)) as port:
        assert await asked(port, raw) == ("", {}, b"")


async def test_who_takes_nothing_of_an_answer_is_cut_off() -> None:
    """Closing would wait for them, for as long as they please."""

    async def large(request: web.Request) -> web.StreamResponse:
        return web.Response(body=b"x" * 30_000_000)

    app = web.Application()
    app.router.add_get("/", large)
    limits = ConnectionLimits(unread=timedelta(milliseconds=100))
    runner = Runner(app, limits, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        address = runner.addresses[0]
        reader, writer = await asyncio.open_connection(address[0], address[1], limit=1000)
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await reader.readuntil(b"\r\n")

        async def gone() -> bool:
            return not runner.server or not runner.server.connections

        await eventually(gone, within=timedelta(seconds=10))
        writer.transport.abort()
    finally:
        await runner.cleanup()
