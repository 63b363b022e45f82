"""Files: uploaded, listed, looked at, downloaded, deleted."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Final
from uuid import UUID

from aiohttp import hdrs, web
from pydantic import TypeAdapter
from sqlalchemy.ext.asyncio import AsyncConnection

from services.gateway.api import trickle
from services.gateway.api.auditing import note
from services.gateway.api.gate import PRINCIPAL, id_in_path
from services.gateway.api.once import Once, keyed
from services.gateway.api.schemas.fields import Deleted
from services.gateway.api.schemas.media import (
    Arrived,
    MediaQuery,
    MediaView,
    NewFile,
    StorageView,
    UploadFields,
)
from services.gateway.api.seen import all_seen, seen, sight
from services.gateway.api.staging import MULTIPART, Staged
from services.gateway.api.uploads import Uploads, decode
from services.gateway.domain import byte_ranges
from services.gateway.domain.byte_ranges import Part
from services.gateway.domain.filenames import disposition
from services.gateway.domain.principal import Principal, scope_of
from services.gateway.store import media
from services.gateway.store.media import MediaFile
from shared.clock import Clock
from shared.db.database import Database
from shared.errors import Conflict, Forbidden, NotFound
from shared.ids import new_id
from shared.media.kinds import MediaKind
from shared.media.store import MediaGone, MediaStore
from shared.web.body import read_query, validated
from shared.web.edge import REQUEST_ID, RESPONSE_HEADERS
from shared.web.envelope import failed, json_response, respond, respond_page
from shared.web.pagination import Keyset
from shared.web.schemas import Moment

_POSITIONS: Keyset[tuple[datetime, UUID]] = Keyset("media", TypeAdapter(tuple[Moment, UUID]))

_PENDING_FOR: Final = "5"

# A file is somebody else's: it is saved, never shown as a page of ours, and none of it is run.
_HARMLESS: Final = {
    hdrs.CACHE_CONTROL: "private, no-cache",
    hdrs.ACCEPT_RANGES: "bytes",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "X-Content-Type-Options": "nosniff",
}


class Media:
    """``/api/media`` and ``/api/analytics/storage``."""

    def __init__(
        self,
        *,
        database: Database,
        store: MediaStore,
        uploads: Uploads,
        once: Once,
        quota: int,
        clock: Clock,
    ) -> None:
        self._database = database
        self._store = store
        self._uploads = uploads
        self._once = once
        self._quota = quota
        self._clock = clock

    async def create(self, request: web.Request) -> web.StreamResponse:
        principal = request[PRINCIPAL]
        if request.content_type == MULTIPART:
            async with self._uploads.staging.form(
                request, "file", tenant_id=principal.tenant_id
            ) as staged:
                kind = validated(staged.fields, UploadFields).kind
                return await self._create(request, principal, staged, kind, field="file")
        body = await self._uploads.read_model(request, NewFile, principal)
        content, said = await decode(body.base64, field="base64")
        async with self._uploads.staging.content(
            content,
            tenant_id=principal.tenant_id,
            declared=body.mime_type or said,
            filename=body.filename,
        ) as staged:
            return await self._create(request, principal, staged, body.kind, field="base64")

    async def page(self, request: web.Request) -> web.StreamResponse:
        query = read_query(request, MediaQuery)
        principal = request[PRINCIPAL]
        async with self._database.tx() as tx:
            rows = await media.page(
                tx,
                scope_of(principal),
                sources=("upload", "inbound") if query.source is None else (query.source,),
                after=_POSITIONS.decode(query.cursor) if query.cursor else None,
                limit=query.limit + 1,
            )
        shown, pagination = _POSITIONS.page(
            rows, limit=query.limit, position=lambda row: (row.created_at, row.id)
        )
        return respond_page(all_seen(request, [MediaView.of(row) for row in shown]), pagination)

    async def get(self, request: web.Request) -> web.StreamResponse:
        async with self._database.tx() as tx:
            return respond(seen(request, MediaView.of(await _file(tx, request))))

    async def download(self, request: web.Request) -> web.StreamResponse:
        how = sight(request)
        if not how.reads:
            raise Forbidden(
                "Your organization hides from viewers what is said, and so what files hold; ask an"
                " admin for the role agent."
            )
        async with self._database.tx() as tx:
            found = await _file(tx, request)
        sha256, size = _stored(request, found)
        etag = f'"{sha256}"'
        headers = {
            **_HARMLESS,
            hdrs.ETAG: etag,
            hdrs.CONTENT_DISPOSITION: disposition(how.file(found.filename)),
            hdrs.CONTENT_TYPE: found.mime_type,
        }
        if _has(request.headers.get(hdrs.IF_NONE_MATCH), etag):
            return web.Response(status=304, headers=headers)
        try:
            part = _part(request, etag, size)
        except byte_ranges.Outside:
            return _outside(request, size)
        if part is not None:
            headers[hdrs.CONTENT_RANGE] = part.of(size)
        wanted = part or Part(0, size)
        chunks = self._store.read(
            request[PRINCIPAL].tenant_id, sha256, start=wanted.start, end=wanted.end
        )
        return await _send(request, chunks, wanted, headers, status=200 if part is None else 206)

    async def delete(self, request: web.Request) -> web.StreamResponse:
        tenant_id = request[PRINCIPAL].tenant_id
        async with self._database.tx() as tx:
            found = await _file(tx, request)
            if found.status == "pending":
                _wait(request)
                raise Conflict("The file is still being fetched from WhatsApp; delete it then.")
            if await media.needed(tx, tenant_id, found.id):
                raise Conflict(
                    "A message that has not been sent yet carries this file; delete it when that is"
                    " sent or has failed."
                )
            await media.delete(tx, tenant_id, found, now=self._clock.now())
            await note(
                tx,
                request,
                "media",
                found.id,
                before={
                    "filename": found.filename,
                    "mimeType": found.mime_type,
                    "size": found.size,
                },
            )
        return respond(Deleted(id=found.id))

    async def storage(self, request: web.Request) -> web.StreamResponse:
        tenant_id = request[PRINCIPAL].tenant_id
        async with self._database.tx() as tx:
            used = await media.used(tx, tenant_id)
            received = await media.received(tx, tenant_id)
        share = 100 * used / self._quota if self._quota else 100.0
        return respond(
            StorageView(
                used=used, limit=self._quota, percent_used=round(share, 2), received=received
            )
        )

    async def _create(
        self,
        request: web.Request,
        principal: Principal,
        staged: Staged,
        kind: MediaKind | None,
        *,
        field: str,
    ) -> web.StreamResponse:
        mime_type = self._uploads.type_of(staged, kind, field=field)
        arrived = Arrived(
            sha256=staged.sha256, filename=staged.filename, mime_type=mime_type, kind=kind
        )
        named = keyed(request, arrived, principal)
        if named is not None and (first := await self._once.earlier_answer(named)) is not None:
            return first
        new = self._uploads.new(principal, staged, mime_type, id_=new_id())

        async def work(tx: AsyncConnection) -> MediaView:
            await self._uploads.add(tx, new)
            await note(
                tx,
                request,
                "media",
                new.id,
                after={"filename": new.filename, "mimeType": new.mime_type, "size": new.size},
            )
            return MediaView(
                id=new.id,
                source="upload",
                instance_id=new.instance_id,
                status="stored",
                mime_type=new.mime_type,
                size=new.size,
                sha256=new.sha256,
                filename=new.filename,
                error=None,
                created_at=new.created_at,
            )

        return await self._uploads.keep(
            new, staged, lambda: self._once.run(request, arrived, work, principal=principal)
        )


async def _file(tx: AsyncConnection, request: web.Request) -> MediaFile:
    principal = request[PRINCIPAL]
    found = await media.find(tx, scope_of(principal), id_in_path(request))
    if found is None:
        raise NotFound("There is no such file; check the id.")
    return found


def _stored(request: web.Request, found: MediaFile) -> tuple[str, int]:
    """Where the bytes are and how many; raises what to tell if there are none."""
    if found.status == "pending":
        _wait(request)
        raise Conflict("The file is still being fetched from WhatsApp; ask again shortly.")
    if found.status == "failed" or found.sha256 is None or found.size is None:
        raise NotFound(
            "The file could not be fetched from WhatsApp; ask its sender to send it again.",
            data={"reason": found.error},
        )
    return found.sha256, found.size


def _wait(request: web.Request) -> None:
    request.setdefault(RESPONSE_HEADERS, {})[hdrs.RETRY_AFTER] = _PENDING_FOR


def _part(request: web.Request, etag: str, size: int) -> Part | None:
    """What of the file is wanted; all of it if the caller's part is of another one."""
    condition = request.headers.get(hdrs.IF_RANGE)
    if condition is not None and condition.strip() != etag:
        return None
    return byte_ranges.wanted(request.headers.get(hdrs.RANGE), size)


def _has(header: str | None, etag: str) -> bool:
    if header is None:
        return False
    given = {tag.strip().removeprefix("W/") for tag in header.split(",")}
    return etag in given or "*" in given


def _outside(request: web.Request, size: int) -> web.StreamResponse:
    body = failed(
        "BAD_REQUEST",
        f"The file has only {size} bytes; ask for a part of those.",
        request_id=request[REQUEST_ID],
    )
    return json_response(body, status=416, headers={hdrs.CONTENT_RANGE: f"bytes */{size}"})


async def _send(
    request: web.Request,
    chunks: AsyncIterator[bytes],
    wanted: Part,
    headers: dict[str, str],
    *,
    status: int,
) -> web.StreamResponse:
    """Send the file as fast as it is read; what is gone is said before the first byte."""
    response = web.StreamResponse(status=status, headers=headers)
    response.content_length = wanted.end - wanted.start
    if request.method == hdrs.METH_HEAD:
        await response.prepare(request)
        return response
    try:
        first = await anext(chunks, b"")
    except MediaGone as error:
        raise NotFound("The file is not stored any more; it was deleted just now.") from error
    await trickle.prepare(request, response)
    await trickle.write(request, response, first)
    async for chunk in chunks:
        await trickle.write(request, response, chunk)
    await response.write_eof()
    return response
