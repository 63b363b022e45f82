"""Long answers: who reads slowly is waited for, and who takes nothing is no fault of ours."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from aiohttp import web
from aiohttp.test_utils import TestServer
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from services.gateway.api import trickle
from shared.web.answers import Answers
from shared.web.edge import Edge
from tests.support.clock import HandClock
from tests.support.eventually import eventually

SIZE = 4 * 1024 * 1024
PATIENCE = timedelta(seconds=0.4)


@asynccontextmanager
async def downloading(answers: Answers) -> AsyncIterator[socket.socket]:
    """A reader that has asked for ``SIZE`` bytes, and leaves most of them to their sender."""

    async def send(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = SIZE
        await trickle.prepare(request, response)
        await trickle.write(request, response, bytes(SIZE), patience=PATIENCE)
        await response.write_eof()
        return response

    app = web.Application()
    clock = HandClock()
    Edge(service="gateway", clock=clock, registry=CollectorRegistry(), answers=answers).install(app)
    app.router.add_get("/", send)
    async with TestServer(app) as server:
        with socket.socket() as reader:
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
            reader.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(reader, (server.host, server.port))
            asked = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            await loop.sock_sendall(reader, asked)
            yield reader


async def test_who_takes_a_little_at_a_time_gets_all_of_it() -> None:
    loop, answers = asyncio.get_running_loop(), Answers(HandClock().monotonic)
    got = 0
    async with downloading(answers) as reader:
        while part := await loop.sock_recv(reader, 32 * 1024):
            got += len(part)
            # So slow that all of it takes several times as long as anybody waits for a piece.
            await asyncio.sleep(PATIENCE.total_seconds() / 16)
    assert got > SIZE
    assert answers.recent() == (1, 0)


async def test_who_takes_nothing_is_cut_off_and_counts_as_gone() -> None:
    answers = Answers(HandClock().monotonic)
    with capture_logs() as lines:
        async with downloading(answers):

            async def over() -> bool:
                return answers.recent().all == 1

            await eventually(over)
    assert answers.recent() == (1, 0)
    assert [(line["event"], line.get("status")) for line in lines] == [("request_handled", 499)]
