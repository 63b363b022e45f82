"""Files of messages: brought from a URL or the store, checked, sent, and gone afterwards."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from aiohttp import web

from shared.contracts.commands import (
    SettledTransmission,
    TransmissionOutcome,
    WriteFromSandboxContact,
)
from shared.contracts.content import Media
from shared.contracts.events import MessageReceived
from shared.ids import new_id
from shared.media.settings import MediaSettings
from shared.media.store import MediaStore
from tests.support import sessions
from tests.support.builders import NOON, a_file, an_organization
from tests.support.eventually import eventually
from tests.support.samples import png
from tests.support.sessions import Sessions, a_paired_instance, a_transmission

PNG = png()
RETRYABLE, REJECTED = TransmissionOutcome.RETRYABLE, TransmissionOutcome.REJECTED
LARGEST = 64 * 1024


@dataclass
class FileServer:
    """Somebody else's server of files, on this machine."""

    url: str
    slow: asyncio.Event
    over: asyncio.Event
    asked: int = 0

    @classmethod
    @asynccontextmanager
    async def running(cls) -> AsyncIterator["FileServer"]:
        server = cls("", asyncio.Event(), asyncio.Event())
        app = web.Application()
        routes: dict[str, Callable[[web.Request], Awaitable[web.StreamResponse]]] = {
            "/house.png": server._picture,
            "/moved": server._moved,
            "/round": server._round,
            "/inside": server._inside,
            "/endless": server._endless,
            "/large": server._large,
            "/packed": server._packed,
            "/slow": server._slow,
            "/cut": server._cut,
        }
        for path, handler in routes.items():
            app.router.add_get(path, handler)
        app.router.add_get("/status/{status}", server._status)
        app.router.add_get("/text/{words}", server._text)
        runner = web.AppRunner(app, handler_cancellation=True)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        server.url = f"http://{host}:{port}"
        try:
            yield server
        finally:
            server.over.set()
            await runner.cleanup()

    async def _picture(self, request: web.Request) -> web.Response:
        return web.Response(body=PNG, content_type="image/png")

    async def _moved(self, request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "/house.png"})

    async def _round(self, request: web.Request) -> web.Response:
        self.asked += 1
        return web.Response(status=302, headers={"Location": "/round"})

    async def _inside(self, request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "http://10.0.0.1/house.png"})

    async def _endless(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(PNG * 100)

    async def _large(self, request: web.Request) -> web.Response:
        return web.Response(body=bytes(LARGEST + 1))

    async def _packed(self, request: web.Request) -> web.Response:
        return web.Response(body=PNG, headers={"Content-Encoding": "br"})

    async def _slow(self, request: web.Request) -> web.Response:
        self.slow.set()
        await self.over.wait()
        return web.Response(status=503)

    async def _cut(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(PNG)
        assert request.transport is not None
        request.transport.abort()
        return response

    async def _status(self, request: web.Request) -> web.Response:
        return web.Response(status=int(request.match_info["status"]), body=PNG)

    async def _text(self, request: web.Request) -> web.Response:
        return web.Response(text=request.match_info["words"], content_type="image/png")


@pytest.fixture
async def server() -> AsyncIterator[FileServer]:
    async with FileServer.running() as server:
        yield server


def settings(folder: Path, **given: Any) -> dict[str, Any]:
    """What a session process needs to find files, here and in the tests' server."""
    return {
        "reconcile_every": 0.1,
        "media_store": str(folder / "store"),
        "scratch": folder / "scratch",
        "allowed_nets": "127.0.0.0/8",
        "max_file_size": LARGEST,
        **given,
    }


@pytest.fixture
async def world(database_url: str, tmp_path: Path) -> AsyncIterator[Sessions]:
    async with sessions.running(database_url, **settings(tmp_path)) as running:
        yield running
        assert files(tmp_path / "scratch") == []
    assert [path.name for path in (tmp_path / "scratch").glob("*")] == ["lock"]


@pytest.fixture
async def tenant(world: Sessions) -> UUID:
    return await an_organization(world.sql)


@pytest.fixture
async def instance(world: Sessions, tenant: UUID) -> UUID:
    id_ = await a_paired_instance(world.sql, tenant, phone_number="+12025550190")
    await world.ready(id_)
    return id_


@pytest.fixture
def store(tmp_path: Path) -> MediaStore:
    """The store of the process, as everybody sees it."""
    return MediaStore.of(
        MediaSettings.model_validate(
            {
                "database_url": "postgresql://x",
                "amqp_url": "amqp://x",
                "media_store": str(tmp_path / "store"),
            }
        )
    )


def files(place: Path) -> list[str]:
    return [path.name for path in place.rglob("*") if path.is_file() and path.name != "lock"]


def an_image(**given: object) -> Media:
    return Media.model_validate({"kind": "image", "mime_type": "image/png", **given})


async def sent(
    world: Sessions, tenant: UUID, instance: UUID, content: Media
) -> SettledTransmission:
    return await world.send(instance, tenant_id=tenant, content=content, to="+12025550142")


async def kept(store: MediaStore, tenant: UUID, digest: str) -> bytes:
    return b"".join([part async for part in store.read(tenant, digest)])


# Sending


async def test_a_file_at_a_url_reaches_whom_it_is_for(
    world: Sessions, tenant: UUID, instance: UUID, server: FileServer, store: MediaStore
) -> None:
    other = await a_paired_instance(world.sql, tenant, phone_number="+12025550192")
    await world.ready(other)
    content = an_image(url=f"{server.url}/house.png", caption="Our house")
    settled = await world.send(instance, tenant_id=tenant, content=content, to="+12025550192")
    assert settled.outcome is TransmissionOutcome.ACCEPTED
    event = (await world.heard.event("message.received", other)).event
    assert isinstance(event, MessageReceived)
    assert isinstance(event.content, Media)
    assert (event.content.caption, event.content.url) == ("Our house", None)
    row = await stored(world, UUID(event.content.media_id))
    assert row["sha256"] == sha256(PNG).hexdigest()
    assert await kept(store, tenant, row["sha256"]) == PNG


async def test_a_file_of_the_store_is_sent_by_its_id(
    world: Sessions, tenant: UUID, instance: UUID, store: MediaStore, tmp_path: Path
) -> None:
    media_id = await uploaded(world, tenant, store, tmp_path)
    settled = await sent(world, tenant, instance, an_image(media_id=str(media_id)))
    assert settled.outcome is TransmissionOutcome.ACCEPTED
    body = await world.sql.fetchval("SELECT body ->> 'sha256' FROM sessions.sandbox_wire")
    assert body == sha256(PNG).hexdigest()


async def uploaded(
    world: Sessions, tenant: UUID, store: MediaStore, folder: Path, **given: object
) -> UUID:
    """A file that the tenant has uploaded."""
    path = folder / "upload"
    await asyncio.to_thread(path.write_bytes, PNG)
    digest = sha256(PNG).hexdigest()
    await store.put(tenant, path, digest)
    facts = {"sha256": digest, "size": len(PNG), "mime_type": "image/png", **given}
    return await a_file(world.sql, tenant, **facts)


async def test_what_was_received_can_be_sent_on(
    world: Sessions, tenant: UUID, instance: UUID
) -> None:
    await world.send(instance, to="+12025550109")
    event = (await world.heard.event("message.received", instance)).event
    assert isinstance(event, MessageReceived)
    assert isinstance(event.content, Media)
    assert event.content.media_id is not None
    await stored(world, UUID(event.content.media_id))
    settled = await sent(world, tenant, instance, an_image(media_id=event.content.media_id))
    assert settled.outcome is TransmissionOutcome.ACCEPTED


@pytest.mark.parametrize(
    ("path", "outcome", "code"),
    [
        ("/moved", TransmissionOutcome.ACCEPTED, None),
        ("/round", REJECTED, "MEDIA_GONE"),
        ("/inside", REJECTED, "MEDIA_GONE"),
        ("/endless", REJECTED, "MEDIA_TOO_LARGE"),
        ("/large", REJECTED, "MEDIA_TOO_LARGE"),
        ("/packed", REJECTED, "MEDIA_TYPE"),
        ("/text/Hello", REJECTED, "MEDIA_TYPE"),
        ("/text/", REJECTED, "MEDIA_GONE"),
        ("/cut", RETRYABLE, "RETRYABLE"),
        ("/status/204", REJECTED, "MEDIA_GONE"),
        ("/status/403", REJECTED, "MEDIA_GONE"),
        ("/status/404", REJECTED, "MEDIA_GONE"),
        ("/status/410", REJECTED, "MEDIA_GONE"),
        ("/status/429", RETRYABLE, "RETRYABLE"),
        ("/status/500", RETRYABLE, "RETRYABLE"),
        ("/status/503", RETRYABLE, "RETRYABLE"),
    ],
)
async def test_what_becomes_of_a_message_follows_from_what_is_at_its_url(
    world: Sessions,
    *,
    tenant: UUID,
    instance: UUID,
    server: FileServer,
    path: str,
    outcome: TransmissionOutcome,
    code: str | None,
) -> None:
    settled = await sent(world, tenant, instance, an_image(url=server.url + path))
    assert (settled.outcome, settled.code) == (outcome, code)
    assert server.asked <= 4


@pytest.mark.parametrize(
    ("url", "outcome"),
    [
        ("http://10.0.0.1/house.png", REJECTED),
        ("https://169.254.169.254/latest/meta-data", REJECTED),
        ("https://user:secret@example.com/house.png", REJECTED),
        ("ftp://example.com/house.png", REJECTED),
        ("nonsense", REJECTED),
        ("http://127.0.0.1:1/house.png", REJECTED),
        ("http://127.0.0.1:1024/house.png", RETRYABLE),
    ],
)
async def test_a_url_that_may_not_be_called_fails_and_one_that_is_down_is_tried_again(
    world: Sessions, tenant: UUID, instance: UUID, url: str, outcome: TransmissionOutcome
) -> None:
    settled = await sent(world, tenant, instance, an_image(url=url))
    assert settled.outcome is outcome
    assert await world.sql.fetchval("SELECT count(*) FROM sessions.sandbox_wire") == 0


async def test_a_file_that_is_no_more_fails_its_message(
    world: Sessions, tenant: UUID, instance: UUID, store: MediaStore, tmp_path: Path
) -> None:
    deleted = await uploaded(world, tenant, store, tmp_path, deleted_at=NOON)
    lost = await a_file(world.sql, tenant, mime_type="image/png")
    another = await an_organization(world.sql)
    foreign = await uploaded(world, another, store, tmp_path)
    for media_id in (str(deleted), str(lost), str(foreign), str(new_id()), "nonsense"):
        settled = await sent(world, tenant, instance, an_image(media_id=media_id))
        assert (settled.outcome, settled.code) == (REJECTED, "MEDIA_GONE"), media_id
    settled = await sent(world, tenant, instance, an_image())
    assert (settled.outcome, settled.code) == (REJECTED, "MEDIA_GONE")


async def test_a_stored_file_of_the_wrong_kind_or_size_fails_its_message(
    world: Sessions, tenant: UUID, instance: UUID, store: MediaStore, tmp_path: Path
) -> None:
    a_text = await uploaded(world, tenant, store, tmp_path, mime_type="text/plain")
    huge = await uploaded(world, tenant, store, tmp_path, size=10**9)
    for media_id, code in ((a_text, "MEDIA_TYPE"), (huge, "MEDIA_TOO_LARGE")):
        settled = await sent(world, tenant, instance, an_image(media_id=str(media_id)))
        assert (settled.outcome, settled.code) == (REJECTED, code)


async def test_types_that_are_not_allowed_here_are_not_sent(
    database_url: str, tmp_path: Path, server: FileServer
) -> None:
    only = settings(tmp_path, media_types="application/pdf")
    async with sessions.running(database_url, **only) as world:
        tenant = await an_organization(world.sql)
        instance = await a_paired_instance(world.sql, tenant)
        await world.ready(instance)
        content = an_image(url=f"{server.url}/house.png")
        settled = await sent(world, tenant, instance, content)
    assert (settled.outcome, settled.code) == (REJECTED, "MEDIA_TYPE")


async def test_a_server_that_does_not_answer_holds_up_nothing_else(
    database_url: str, tmp_path: Path, server: FileServer
) -> None:
    hasty = settings(tmp_path, media_deadline=1.0)
    async with sessions.running(database_url, **hasty) as world:
        tenant = await an_organization(world.sql)
        instance = await a_paired_instance(world.sql, tenant)
        await world.ready(instance)
        slow = a_transmission(
            instance, tenant_id=tenant, content=an_image(url=f"{server.url}/slow")
        )
        await world.transmit(slow)
        await server.slow.wait()
        assert (await world.send(instance)).outcome is TransmissionOutcome.ACCEPTED
        assert world.heard.settled[0].transmission_id != slow.transmission_id
        settled = await world.heard.outcome(slow)
    assert (settled.outcome, settled.code) == (RETRYABLE, "RETRYABLE")
    assert files(tmp_path / "scratch") == []


async def test_the_slow_files_of_one_tenant_do_not_keep_anothers_waiting(
    world: Sessions, tenant: UUID, instance: UUID, server: FileServer
) -> None:
    slow = [
        a_transmission(instance, tenant_id=tenant, content=an_image(url=f"{server.url}/slow"))
        for _ in range(16)
    ]
    for one in slow:
        await world.transmit(one)
    await server.slow.wait()
    other = await an_organization(world.sql)
    theirs = await a_paired_instance(world.sql, other)
    await world.ready(theirs)
    quick = a_transmission(theirs, tenant_id=other, content=an_image(url=f"{server.url}/house.png"))
    await world.transmit(quick)
    assert (await world.heard.outcome(quick)).outcome is TransmissionOutcome.ACCEPTED
    assert len(world.heard.settled) == 1


async def test_a_message_that_waits_for_its_file_when_the_process_ends_was_certainly_not_sent(
    database_url: str, tmp_path: Path, server: FileServer
) -> None:
    async with sessions.running(database_url, **settings(tmp_path, media_deadline=60)) as world:
        tenant = await an_organization(world.sql)
        instance = await a_paired_instance(world.sql, tenant)
        await world.ready(instance)
        await world.transmit(
            a_transmission(instance, tenant_id=tenant, content=an_image(url=f"{server.url}/slow"))
        )
        await server.slow.wait()
    sql = await asyncpg.connect(database_url)
    try:
        assert await sql.fetchval("SELECT outcome FROM sessions.handovers") == "retryable"
    finally:
        await sql.close()
    assert files(tmp_path / "scratch") == []


# Receiving


async def stored(world: Sessions, media_id: UUID | None) -> asyncpg.Record:
    """The row of a file that was received, once it has been fetched."""
    found: list[asyncpg.Record] = []

    async def is_stored() -> bool:
        row = await world.sql.fetchrow(
            "SELECT * FROM sessions.inbound_media WHERE id = $1 AND status <> 'waiting'", media_id
        )
        found.extend([row] if row is not None else [])
        return bool(found)

    await eventually(is_stored)
    return found[-1]


async def test_a_picture_that_comes_in_is_told_at_once_and_stored_within_a_second(
    world: Sessions, tenant: UUID, instance: UUID, store: MediaStore
) -> None:
    await world.send(instance, to="+12025550109")
    emitted = await world.heard.event("message.received", instance)
    assert isinstance(emitted.event, MessageReceived)
    assert isinstance(emitted.event.content, Media)
    assert emitted.event.content.media_id is not None
    row = await stored(world, UUID(emitted.event.content.media_id))
    assert (row["status"], row["mime_type"], row["handle"]) == ("stored", "image/png", None)
    assert (row["tenant_id"], row["instance_id"]) == (tenant, instance)
    assert row["engine_message_id"] == emitted.event.engine_message_id
    assert row["stored_at"] - row["created_at"] < timedelta(seconds=1)
    content = await kept(store, tenant, row["sha256"])
    assert (len(content), content[:4]) == (row["size"], b"\x89PNG")


async def test_what_is_left_to_fetch_is_fetched_by_the_next_process(
    database_url: str, tmp_path: Path
) -> None:
    """The first dies after it has told of the message, and before it has fetched anything."""
    sql = await asyncpg.connect(database_url)
    try:
        tenant = await an_organization(sql)
        instance = await a_paired_instance(sql, tenant)
        media_id = new_id()
        await sql.execute(
            "INSERT INTO sessions.inbound_media (id, tenant_id, instance_id, shard, handle,"
            " engine_message_id, mime_type, status, attempts, due_at, created_at)"
            " VALUES ($1, $2, $3, 7, '{\"picture\": \"pixel\"}', '3EB0AA', 'image/png', 'waiting',"
            " 1, now() - interval '1 second', now() - interval '1 minute')",
            media_id,
            tenant,
            instance,
        )
    finally:
        await sql.close()
    async with sessions.running(database_url, **settings(tmp_path)) as world:
        row = await stored(world, media_id)
    assert (row["status"], row["attempts"]) == ("stored", 2)


async def test_media_without_a_file_is_told_without_an_id(world: Sessions, instance: UUID) -> None:
    await world.command(
        WriteFromSandboxContact(
            instance_id=instance,
            from_="+12025550142",
            engine_message_id="3EB0AA",
            content=Media(kind="voice", mime_type="audio/ogg"),
        )
    )
    event = (await world.heard.event("message.received", instance)).event
    assert isinstance(event, MessageReceived)
    assert isinstance(event.content, Media)
    assert event.content.media_id is None
    assert await world.sql.fetchval("SELECT count(*) FROM sessions.inbound_media") == 0
