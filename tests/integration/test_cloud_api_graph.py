"""What Meta's answers, and the lack of them, mean to a message."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import pytest

from services.sessions.engines.cloud_api.account import Account
from services.sessions.engines.cloud_api.graph import Graph
from services.sessions.engines.cloud_api.outgoing import request
from services.sessions.engines.cloud_api.refusals import SessionOver
from services.sessions.engines.port import Attachment, Outgoing, Refused, Retryable
from shared.contracts.content import Text
from shared.errors import Throttled, Transient, Unconfirmed
from shared.media.kinds import MediaTooLarge
from shared.media.store import MediaGone
from shared.security.egress import EgressClient, EgressPolicy
from tests.support.cloud_api import a_graph
from tests.support.meta import TOKEN, Error, Meta
from tests.support.samples import png

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
async def meta() -> AsyncIterator[Meta]:
    async with Meta.running() as running:
        yield running


@pytest.fixture
async def graph(meta: Meta) -> AsyncIterator[Graph]:
    made = a_graph(meta.url)
    async with made.web:
        yield made


@pytest.fixture
def account(meta: Meta) -> Account:
    return Account(phone_number_id=meta.add_number(), access_token=TOKEN)


def words() -> dict[str, object]:
    hello = Outgoing(engine_message_id="3EB0AA", to="+12025550142", content=Text(text="Hello"))
    return request(hello, media_id=None)


def a_file(tmp_path: Path) -> Attachment:
    path = tmp_path / "house.png"
    path.write_bytes(png())
    return Attachment(
        path=path, mime_type="image/png", size=len(png()), sha256=sha256(png()).hexdigest()
    )


@asynccontextmanager
async def somebody(talk: Talk) -> AsyncIterator[Graph]:
    """A server that is no Graph API at all."""
    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    graph = a_graph(f"http://127.0.0.1:{port}/v1")
    async with graph.web:
        yield graph
    server.close()
    await server.wait_closed()


async def test_a_message_that_is_taken_has_metas_id(
    graph: Graph, meta: Meta, account: Account
) -> None:
    id_ = await graph.send(account, words())
    assert [(sent.id, sent.to, sent.ours) for sent in meta.sent] == [(id_, "12025550142", "3EB0AA")]


async def test_what_meta_refuses_is_told_apart_by_its_code(
    graph: Graph, meta: Meta, account: Account
) -> None:
    for error, raised in (
        (Error(400, 131047), Refused),
        (Error(400, 131000), Retryable),
        (Error(400, 80007), Throttled),
        (Error(400, 190), SessionOver),
        (Error(503), Unconfirmed),
        (Error(200), Unconfirmed),
        (Error(200, body=b'{"messages": []}'), Unconfirmed),
        (Error(502, body=b"x" * 300_000), Unconfirmed),
    ):
        meta.failing.append(error)
        with pytest.raises(raised) as caught:
            await graph.send(account, words())
        assert type(caught.value) is raised
    assert meta.sent == []


async def test_a_wait_that_meta_names_is_kept(graph: Graph, meta: Meta, account: Account) -> None:
    meta.failing.append(Error(429, 130429, headers={"Retry-After": "17"}))
    with pytest.raises(Throttled) as caught:
        await graph.send(account, words())
    assert caught.value.retry_after == timedelta(seconds=17)


async def test_a_token_that_is_not_valid_ends_the_session(graph: Graph, account: Account) -> None:
    with pytest.raises(SessionOver) as caught:
        await graph.number(replace(account, access_token="another"))
    assert caught.value.end == "logged_out"
    assert "put a new accessToken" in caught.value.message


async def test_what_could_not_be_dialled_was_certainly_not_sent(account: Account) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        graph = a_graph(f"http://127.0.0.1:{probe.getsockname()[1]}/v1")
        async with graph.web:
            with pytest.raises(Retryable):
                await graph.send(account, words())


async def test_what_the_operator_does_not_allow_is_not_dialled(account: Account) -> None:
    for url in ("http://127.0.0.1:9/v1", "http://graph.example.com/v1"):
        closed = replace(a_graph(url), web=EgressClient(policy=EgressPolicy()))
        async with closed.web:
            with pytest.raises(Transient):
                await closed.send(account, words())


async def test_a_connection_that_is_cut_after_the_request_leaves_it_open(
    account: Account, tmp_path: Path
) -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()

    async with somebody(cut) as graph:
        with pytest.raises(Unconfirmed):
            await graph.send(account, words())
        # What says nothing to anybody may be done again.
        with pytest.raises(Retryable):
            await graph.upload(account, a_file(tmp_path), filename=None)
        with pytest.raises(Retryable):
            await graph.number(account)


async def test_an_answer_that_does_not_come_in_time_leaves_it_open(account: Account) -> None:
    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with somebody(wait) as graph:
        with pytest.raises(Unconfirmed):
            await graph.send(account, words(), patience=timedelta(seconds=0.2))


async def test_a_redirect_is_not_followed_with_the_token(account: Account) -> None:
    seen = []

    async def elsewhere(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 302 Found\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    async with somebody(elsewhere) as graph:
        with pytest.raises(Refused):
            await graph.number(account)
    assert len(seen) == 1


async def test_a_file_goes_up_whole_and_comes_down_whole(
    graph: Graph, meta: Meta, account: Account, tmp_path: Path
) -> None:
    id_ = await graph.upload(account, a_file(tmp_path), filename='Häuser "1".png')
    assert meta.files[id_] == (png(), "image/png")
    await graph.fetch(account, id_, tmp_path / "again.png")
    assert (tmp_path / "again.png").read_bytes() == png()


async def test_a_file_that_is_gone_or_too_large_is_not_tried_again(
    graph: Graph, meta: Meta, account: Account, tmp_path: Path
) -> None:
    with pytest.raises(MediaGone):
        await graph.fetch(account, "1234567890", tmp_path / "gone")
    large = meta.add_file(bytes(2 * 1024 * 1024), "video/mp4")
    with pytest.raises(MediaTooLarge):
        await graph.fetch(account, large, tmp_path / "large")


async def test_an_id_of_a_file_leads_nowhere_else(
    graph: Graph, account: Account, tmp_path: Path
) -> None:
    with pytest.raises(MediaGone):
        await graph.fetch(account, f"x/../{account.phone_number_id}", tmp_path / "file")


async def test_a_business_tells_what_it_shows(graph: Graph, account: Account) -> None:
    number = await graph.number(account)
    assert (number.verified_name, number.phone_number) == ("Example Ltd", "+12025550000")
    assert (await graph.business(account)).about == "Open from nine to five"
