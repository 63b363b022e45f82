"""Files that come with a message: what the routes that send media build on."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import aiohttp
import asyncpg
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, make_mocked_request
from prometheus_client import CollectorRegistry

from services.gateway.api.schemas.media import NewFile
from services.gateway.api.uploads import StoredMedia, Uploads
from services.gateway.domain.principal import Principal, PrincipalKind
from services.gateway.metrics import GatewayMetrics
from shared.clock import SystemClock
from shared.db.database import Database
from shared.db.tables.grants import role
from shared.errors import PayloadTooLarge, PlatformError, Rejected, Transient, UnsupportedMediaType
from shared.ids import new_id
from shared.media.keeping import alone
from shared.media.kinds import MediaKind
from shared.media.store import MediaStore
from tests.support import samples
from tests.support.builders import an_instance, an_organization
from tests.support.eventually import eventually
from tests.support.files import an_inbound_file, form, sha256
from tests.support.media import media_settings

ROOM = 3 * 1024 * 1024


@dataclass
class Desk:
    """Uploads behind one route, without a gateway around them."""

    uploads: Uploads
    store: MediaStore
    database: Database
    sql: asyncpg.Connection
    url: str
    http: aiohttp.ClientSession
    principal: Principal
    outcomes: list[StoredMedia | PlatformError] = field(default_factory=list)

    async def send(
        self, content: bytes, kind: MediaKind = "image", *, key: str | None = None, **more: Any
    ) -> StoredMedia:
        """Bring a file under its kind's name; returns what the handler got, or raises it."""
        headers = {} if key is None else {"Idempotency-Key": key}
        data = form(content, field=kind, **more)
        async with self.http.post(f"{self.url}/{kind}", data=data, headers=headers):
            pass
        outcome = self.outcomes.pop()
        if isinstance(outcome, PlatformError):
            raise outcome
        return outcome

    async def rows(self) -> int:
        found: int = await self.sql.fetchval(
            "SELECT count(*) FROM gateway.media WHERE deleted_at IS NULL"
        )
        return found


@pytest.fixture
async def desk(database_url: str, tmp_path: Path) -> AsyncIterator[Desk]:
    settings = media_settings(tmp_path / "kept", max_file_size=1024 * 1024)
    store = MediaStore.of(settings)
    async with AsyncExitStack() as stack:
        sql = await asyncpg.connect(database_url)
        stack.push_async_callback(sql.close)
        database = await stack.enter_async_context(
            Database.open(database_url, role=role("gateway"), name="gateway")
        )
        uploads = Uploads(
            database=database,
            store=store,
            settings=settings,
            quota=10 * 1024 * 1024,
            arriving=ROOM,
            metrics=GatewayMetrics(CollectorRegistry()),
            clock=SystemClock(),
        )
        tenant = await an_organization(sql)
        desk = Desk(
            uploads,
            store,
            database,
            sql,
            "",
            await stack.enter_async_context(aiohttp.ClientSession()),
            _key_of(tenant, await an_instance(sql, tenant)),
        )

        async def take(request: web.Request) -> web.Response:
            kind: Any = request.match_info["kind"]
            try:
                desk.outcomes.append(await uploads.take_file(request, kind, kind, desk.principal))
            except PlatformError as error:
                desk.outcomes.append(error)
            return web.Response()

        app = web.Application()
        app.router.add_post("/{kind}", take)
        server = await stack.enter_async_context(TestServer(app))
        desk.url = f"http://{server.host}:{server.port}"
        yield desk
        # However a file's way ended, the room that it took is free again.
        for tenant_id in (new_id(), new_id()):
            uploads.staging.room.take(ROOM // 2, tenant_id)


def _key_of(tenant: UUID, instance: UUID) -> Principal:
    return Principal(
        kind=PrincipalKind.INSTANCE_KEY,
        tenant_id=tenant,
        permissions=frozenset(),
        limit_key="key",
        instance_id=instance,
    )


async def stored(desk: Desk, media: StoredMedia) -> bytes:
    chunks = desk.store.read(desk.principal.tenant_id, media.sha256)
    return b"".join([chunk async for chunk in chunks])


async def test_a_form_gives_its_file_and_its_other_fields(desk: Desk) -> None:
    media = await desk.send(
        samples.JPEG, filename="cat.jpg", fields={"to": "+12025550199", "caption": "Grüße"}
    )
    assert (media.mime_type, media.size) == ("image/jpeg", len(samples.JPEG))
    assert (media.filename, media.held) == ("cat.jpg", True)
    assert media.fields == {"to": "+12025550199", "caption": "Grüße"}
    assert await stored(desk, media) == samples.JPEG
    row = await desk.sql.fetchrow("SELECT * FROM gateway.media WHERE id = $1", media.media_id)
    assert row is not None
    assert (row["sha256"], row["instance_id"]) == (media.sha256, desk.principal.instance_id)


async def test_fields_may_come_before_and_after_the_file(desk: Desk) -> None:
    data = form(samples.png(), field="image", fields={"to": "+12025550199"})
    data.add_field("caption", "later")
    async with desk.http.post(f"{desk.url}/image", data=data):
        pass
    [media] = desk.outcomes
    assert isinstance(media, StoredMedia)
    assert media.fields == {"to": "+12025550199", "caption": "later"}


async def test_what_whatsapp_does_not_take_as_that_kind_is_refused_before_it_is_kept(
    desk: Desk,
) -> None:
    with pytest.raises(UnsupportedMediaType):
        await desk.send(samples.PDF, "image")
    with pytest.raises(UnsupportedMediaType):
        await desk.send(samples.MP4, "voice")
    with pytest.raises(PayloadTooLarge):
        await desk.send(samples.WEBP + bytes(600 * 1024), "sticker")
    with pytest.raises(PayloadTooLarge):
        await desk.send(samples.png() + bytes(2 * 1024 * 1024))
    with pytest.raises(Rejected, match="image"):
        await desk.send(b"")
    assert await desk.rows() == 0
    assert [page async for page in desk.store.objects() if page] == []


async def test_a_request_that_is_no_form_is_refused(desk: Desk) -> None:
    async with desk.http.post(f"{desk.url}/image", json={"image": "x"}):
        pass
    [outcome] = desk.outcomes
    assert isinstance(outcome, UnsupportedMediaType)


async def test_under_one_key_the_same_file_is_one_file(desk: Desk) -> None:
    first = await desk.send(samples.png(), key="k")
    again = await desk.send(samples.png(), key="k")
    assert (first.held, again.held) == (True, True)
    assert again.media_id == first.media_id
    assert await desk.rows() == 1
    assert (await desk.send(samples.png("other"), key="k")).media_id != first.media_id
    assert (await desk.send(samples.png(), key="l")).media_id != first.media_id
    assert (await desk.send(samples.png())).media_id != first.media_id


async def test_another_caller_with_the_same_key_gets_a_file_of_its_own(desk: Desk) -> None:
    first = await desk.send(samples.png(), key="k")
    tenant = await an_organization(desk.sql)
    desk.principal = _key_of(tenant, await an_instance(desk.sql, tenant))
    other = await desk.send(samples.png(), key="k")
    assert other.media_id != first.media_id
    assert other.held
    assert await stored(desk, other) == samples.png()


async def test_a_file_that_was_deleted_is_back_when_its_request_is_repeated(desk: Desk) -> None:
    first = await desk.send(samples.png(), key="k")
    await desk.uploads.discard(desk.principal, first)
    await desk.store.delete(desk.principal.tenant_id, first.sha256)
    await desk.sql.execute("UPDATE gateway.media SET erased_at = deleted_at")
    again = await desk.send(samples.png(), key="k")
    assert (again.media_id, again.held) == (first.media_id, True)
    assert await stored(desk, again) == samples.png()
    row = await desk.sql.fetchrow("SELECT deleted_at, erased_at FROM gateway.media")
    assert row is not None
    assert (row["deleted_at"], row["erased_at"]) == (None, None)


@pytest.mark.parametrize("first_goes_first", [True, False])
async def test_a_file_whose_message_was_refused_is_taken_back_with_the_last_of_its_requests(
    desk: Desk, first_goes_first: bool
) -> None:
    first = await desk.send(samples.png(), key="k")
    repeated = await desk.send(samples.png(), key="k")
    one, other = (first, repeated) if first_goes_first else (repeated, first)
    await desk.uploads.discard(desk.principal, one)
    assert await desk.rows() == 1
    await desk.uploads.discard(desk.principal, other)
    assert await desk.rows() == 0


async def _as_base64(desk: Desk, content: str, kind: MediaKind) -> StoredMedia:
    request = make_mocked_request("POST", "/api/messages/image")
    return await desk.uploads.from_base64(
        request, content, kind=kind, principal=desk.principal, filename="../a.png"
    )


async def test_base64_is_stored_like_a_form(desk: Desk) -> None:
    text = base64.b64encode(samples.png()).decode()
    media = await _as_base64(desk, text, "image")
    assert (media.mime_type, media.filename) == ("image/png", "a.png")
    assert await stored(desk, media) == samples.png()
    with pytest.raises(UnsupportedMediaType):
        await _as_base64(desk, text, "video")
    with pytest.raises(Rejected, match="base64"):
        await _as_base64(desk, "?", "image")
    with pytest.raises(PayloadTooLarge):
        await _as_base64(desk, base64.b64encode(bytes(1024 * 1024 + 1)).decode(), "image")


async def test_an_upload_is_named_by_whoever_may(desk: Desk) -> None:
    uploaded = await desk.send(samples.png())
    found = await desk.uploads.named(desk.principal, uploaded.media_id, "image")
    assert (found.media_id, found.sha256, found.held) == (
        uploaded.media_id,
        uploaded.sha256,
        False,
    )
    with pytest.raises(UnsupportedMediaType):
        await desk.uploads.named(desk.principal, uploaded.media_id, "voice")

    tenant = desk.principal.tenant_id
    neighbour = _key_of(tenant, await an_instance(desk.sql, tenant))
    stranger_tenant = await an_organization(desk.sql)
    stranger = _key_of(stranger_tenant, await an_instance(desk.sql, stranger_tenant))
    for other in (neighbour, stranger):
        with pytest.raises(Rejected, match="mediaId"):
            await desk.uploads.named(other, uploaded.media_id, "image")
    # What a person has uploaded is there for every instance of the organization.
    await desk.sql.execute("UPDATE gateway.media SET instance_id = NULL")
    await desk.uploads.named(neighbour, uploaded.media_id, "image")
    with pytest.raises(Rejected):
        await desk.uploads.named(stranger, uploaded.media_id, "image")

    # It has been named, so nobody's refusal takes it back.
    await desk.uploads.discard(desk.principal, uploaded)
    await desk.uploads.named(desk.principal, uploaded.media_id, "image")
    await desk.sql.execute("UPDATE gateway.media SET deleted_at = created_at")
    for id_ in (uploaded.media_id, new_id()):
        with pytest.raises(Rejected, match="mediaId"):
            await desk.uploads.named(desk.principal, id_, "image")


async def test_what_was_received_is_not_named_as_an_upload(desk: Desk) -> None:
    instance = desk.principal.instance_id
    assert instance is not None
    received = await an_inbound_file(desk.sql, desk.principal.tenant_id, instance)
    with pytest.raises(Rejected, match="mediaId") as told:
        await desk.uploads.named(desk.principal, UUID(received), "image")
    assert told.value.data == {
        "fields": {"mediaId": "was received, not uploaded; download it and upload it"}
    }


async def test_files_for_which_there_is_no_room_are_told_to_come_again(desk: Desk) -> None:
    large = samples.png() + bytes(512 * 1024)
    room = desk.uploads.staging.room
    with room.taken(ROOM // 2, new_id()), room.taken(ROOM // 2 - 400 * 1024, new_id()):
        with pytest.raises(Transient, match="try again"):
            await desk.send(large)
        with pytest.raises(Transient, match="try again"):
            await _as_base64(desk, base64.b64encode(large).decode(), "image")
        request = make_mocked_request(
            "POST", "/", headers={"Content-Length": str(len(large)), "Content-Type": "a/b"}
        )
        with pytest.raises(Transient, match="try again"):
            await desk.uploads.read_model(request, NewFile, desk.principal)
        assert (await desk.send(samples.png())).held
    assert (await desk.send(large)).held


async def test_a_body_that_is_packed_takes_room_for_what_it_may_unpack_to(desk: Desk) -> None:
    packed = make_mocked_request(
        "POST",
        "/",
        headers={"Content-Length": "100", "Content-Encoding": "gzip", "Content-Type": "a/b"},
    )
    with (
        desk.uploads.staging.room.taken(ROOM // 2, desk.principal.tenant_id),
        pytest.raises(Transient, match="try again"),
    ):
        await desk.uploads.read_model(packed, NewFile, desk.principal)


async def test_one_tenant_leaves_room_for_the_files_of_others(desk: Desk) -> None:
    room, tenant = desk.uploads.staging.room, new_id()
    with room.taken(ROOM // 2, tenant):
        with pytest.raises(Transient, match="try again"):
            room.take(ROOM // 2, tenant)
        assert (await desk.send(samples.png())).held
        room.take(ROOM // 4, tenant)
    room.leave(ROOM // 4, tenant)


async def test_a_file_that_is_erased_while_it_is_uploaded_again_is_put_again(desk: Desk) -> None:
    first = await desk.send(samples.png())
    tenant = desk.principal.tenant_id
    async with desk.database.tx() as tx:
        # Somebody erases it: the next upload has found it there, and waits to record itself.
        await alone(tx, tenant, first.sha256)
        uploading = asyncio.ensure_future(desk.send(samples.png()))

        async def waits() -> bool:
            waiting = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"
            assert await desk.sql.fetchval(waiting)
            return True

        await eventually(waits)
        await desk.store.delete(tenant, first.sha256)
    second = await uploading
    assert await stored(desk, second) == samples.png()
    assert second.sha256 == sha256(samples.png())
