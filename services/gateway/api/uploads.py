"""Files that callers bring, with or without a message around them.

For the routes that send media: ``take_file`` for a form, ``from_base64`` for JSON, ``named`` for a
``mediaId``. Each answers with a ``StoredMedia`` whose bytes are safe in the media store and whose
row is committed, so that a message may name its ``media_id`` from then on::

    media = await uploads.take_file(request, "image", "image", principal)
    body = validated(media.fields, NewImageForm)     # to, caption, …: the form's other fields

Under an ``Idempotency-Key`` the same file of the same caller gets the same ``media_id`` each time,
so a request that is repeated has the same fingerprint and leaves no second file behind. If the
message is refused after all, ``discard`` takes back a file that came with it, unless another
request has brought the same under the same key and counts on it.
"""

import asyncio
import base64
import binascii
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar
from uuid import UUID, uuid5

from aiohttp import hdrs, web
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncConnection

from services.gateway.api.once import IDEMPOTENCY_KEY
from services.gateway.api.staging import MULTIPART, Room, Staged, Staging
from services.gateway.domain.plans import QuotaExceeded
from services.gateway.domain.principal import Principal, scope_of
from services.gateway.metrics import GatewayMetrics
from services.gateway.store import media
from services.gateway.store.media import NewMedia
from shared.clock import Clock
from shared.db.database import Database
from shared.errors import PayloadTooLarge, Transient, UnsupportedMediaType
from shared.ids import new_id
from shared.media import kinds
from shared.media.keeping import keep
from shared.media.kinds import MediaKind, MediaTooLarge, WrongMediaType
from shared.media.settings import MediaSettings
from shared.media.store import MediaStore
from shared.web.body import BodyLimits, invalid, read_model

# Below which a file's id is made of its request's key; any fixed one would do.
_KEYED: Final = UUID("5b4f3d0a-7f43-4c58-9e0c-0f6c8f0d6a52")

# How often a file is put again because the last other row that spoke of it was just erased.
_ATTEMPTS: Final = 3

# What a JSON body may hold beside a file; it is also what needs no room of its own.
_BESIDE: Final = 256 * 1024

ModelT = TypeVar("ModelT", bound=BaseModel)
ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredMedia:
    """A file that a message may carry. ``fields`` are the other fields of its form, as they came.

    ``held`` says that this request has brought it, and lets it go if its message is refused.
    """

    media_id: UUID
    mime_type: str
    size: int
    sha256: str
    filename: str | None
    fields: Mapping[str, str] = field(default_factory=dict)
    held: bool = False


class _Erased(Exception):
    """The file was erased between its being found and its being recorded."""


class Uploads:
    """Takes files in, for one of the kinds of messages or for whatever may come."""

    def __init__(
        self,
        *,
        database: Database,
        store: MediaStore,
        settings: MediaSettings,
        quota: int,
        arriving: int,
        metrics: GatewayMetrics,
        clock: Clock,
    ) -> None:
        self._database = database
        self._store = store
        self._takes = settings.takes
        self._quota = quota
        self._metrics = metrics
        self._clock = clock
        self.staging = Staging(largest=settings.max_file_size, room=Room(arriving))

    @property
    def body_limits(self) -> BodyLimits:
        """How large a JSON body may be that holds a file as base64."""
        return BodyLimits(largest=self.staging.largest * 4 // 3 + _BESIDE)

    async def read_model(
        self, request: web.Request, model: type[ModelT], principal: Principal
    ) -> ModelT:
        """A JSON body that may hold a file, as a model.

        Like ``shared.web.body.read_model`` up to ``body_limits``, but only as many large ones at a
        time as there is room for: else raises ``Transient``.
        """
        limits = self.body_limits
        size = request.content_length
        packed = hdrs.CONTENT_ENCODING in request.headers  # its length says nothing
        if size is None or packed or size > limits.largest:
            size = limits.largest
        if size <= _BESIDE:
            return await read_model(request, model, limits)
        with self.staging.room.taken(size, principal.tenant_id):
            return await read_model(request, model, limits)

    async def take_file(
        self, request: web.Request, field: str, kind: MediaKind, principal: Principal
    ) -> StoredMedia:
        """Store the file that a multipart request brings under ``field``, to be sent as ``kind``.

        The other fields come back as ``fields``; validate them with ``shared.web.body.validated``.
        Raises ``UnsupportedMediaType`` if the request is no form, or WhatsApp does not take such a
        file as ``kind``; ``PayloadTooLarge``, ``BadRequest`` and ``QuotaExceeded``; ``Rejected``
        about the field; and ``Transient`` if the store is away. Then nothing was stored.
        """
        require_form(request)
        async with self.staging.form(request, field, tenant_id=principal.tenant_id) as staged:
            mime_type = self.type_of(staged, kind, field=field)
            return await self._stored(request, principal, staged, mime_type)

    async def from_base64(
        self,
        request: web.Request,
        content: str,
        *,
        kind: MediaKind,
        principal: Principal,
        declared: str | None = None,
        filename: str | None = None,
        field: str = "base64",
    ) -> StoredMedia:
        """Store a file that came as base64, plain or as a ``data:`` URL. Raises as ``take_file``.

        Read the body with ``read_model`` of this class, or none of a fair size gets this far.
        """
        decoded, said = await decode(content, field=field)
        async with self.staging.content(
            decoded,
            tenant_id=principal.tenant_id,
            declared=declared or said,
            filename=filename,
        ) as staged:
            mime_type = self.type_of(staged, kind, field=field)
            return await self._stored(request, principal, staged, mime_type)

    async def named(
        self, principal: Principal, media_id: UUID, kind: MediaKind, *, field: str = "mediaId"
    ) -> StoredMedia:
        """A file that was uploaded before, to be sent as ``kind``; raises about ``field``.

        People may name what they see. An instance key may name what its own instance or a person
        of its organization has uploaded.
        """
        by_key = principal.instance_id is not None
        async with self._database.tx() as tx:
            found = await media.find(tx, scope_of(principal), media_id, unowned=by_key)
            if found is not None and found.source == "upload":
                there = await media.name(tx, principal.tenant_id, found.id)
                found = found if there else None
        if found is None:
            raise invalid({field: "is not a file of yours, or was deleted; upload it first"})
        if found.source == "inbound" or found.size is None or found.sha256 is None:
            raise invalid({field: "was received, not uploaded; download it and upload it"})
        require(kind, found.mime_type, found.size)
        return StoredMedia(
            media_id=found.id,
            mime_type=found.mime_type,
            size=found.size,
            sha256=found.sha256,
            filename=found.filename,
        )

    async def discard(self, principal: Principal, stored: StoredMedia) -> None:
        """Let go of a file whose message was refused; it is forgotten if nobody else holds it.

        Should this process die before, it goes a day later.
        """
        if not stored.held:
            return
        async with self._database.tx() as tx:
            await media.let_go(tx, principal.tenant_id, stored.media_id, now=self._clock.now())

    def type_of(self, staged: Staged, kind: MediaKind | None, *, field: str) -> str:
        """The type of what has arrived, if it may be kept and sent as ``kind``."""
        if staged.size == 0:
            raise invalid({field: "is empty; send a file that holds something"})
        mime_type = kinds.type_of(staged.head, staged.declared)
        if not self._takes(mime_type):
            raise UnsupportedMediaType(
                f"Files of type {mime_type} are not taken; send it in another format.",
                data={"mimeType": mime_type},
            )
        if kind is not None:
            require(kind, mime_type, staged.size)
        return mime_type

    def new(
        self,
        principal: Principal,
        staged: Staged,
        mime_type: str,
        *,
        id_: UUID,
        held: bool = False,
    ) -> NewMedia:
        """The row of what has arrived; ``held`` by the request whose message it came with."""
        return NewMedia(
            id=id_,
            tenant_id=principal.tenant_id,
            instance_id=principal.instance_id,
            uploaded_by=principal.user_id,
            sha256=staged.sha256,
            size=staged.size,
            mime_type=mime_type,
            filename=staged.filename,
            created_at=self._clock.now(),
            held=held,
        )

    async def keep(
        self, new: NewMedia, staged: Staged, record: Callable[[], Awaitable[ResultT]]
    ) -> ResultT:
        """Put the file into the store, then ``record`` it, which calls ``add`` in a transaction.

        Puts it again if it was erased in between; so ``record`` may be called more than once.
        """
        async with self._database.tx() as tx:
            await self._require_room(tx, new)
        for _ in range(_ATTEMPTS):
            if not await self._store.exists(new.tenant_id, new.sha256):
                await self._store.put(new.tenant_id, staged.path, new.sha256)
            try:
                result = await record()
            except _Erased:
                continue
            return result
        raise Transient("The file was being erased at the same time; send it again.")

    async def add(self, tx: AsyncConnection, new: NewMedia) -> bool:
        """Record a file that is in the store, unless it is over the quota; false if it was there.

        Once this transaction is committed the file stays until the row is deleted.
        """
        if not await keep(tx, self._store, new.tenant_id, new.sha256):
            raise _Erased
        await media.lock_quota(tx, new.tenant_id)
        await self._require_room(tx, new)
        added = await media.add(tx, new)
        self._metrics.media_uploads.inc(added)
        return added

    async def _stored(
        self, request: web.Request, principal: Principal, staged: Staged, mime_type: str
    ) -> StoredMedia:
        id_ = _id(request, principal, staged.sha256)
        # With a message; what is uploaded for itself does not come by here.
        new = replace(self.new(principal, staged, mime_type, id_=id_, held=True), passing=True)

        async def record() -> bool:
            async with self._database.tx() as tx:
                return await self.add(tx, new)

        await self.keep(new, staged, record)
        return StoredMedia(
            media_id=new.id,
            mime_type=mime_type,
            size=staged.size,
            sha256=staged.sha256,
            filename=staged.filename,
            fields=staged.fields,
            held=True,
        )

    async def _require_room(self, tx: AsyncConnection, new: NewMedia) -> None:
        used = await media.used(tx, new.tenant_id, beside=new.sha256)
        if used + new.size > self._quota:
            raise QuotaExceeded(
                f"Your files would take more than {self._quota} bytes; delete some first.",
                data={"limit": self._quota, "used": used, "size": new.size},
            )


def require_form(request: web.Request) -> None:
    """Raise ``UnsupportedMediaType`` unless the body is a form that can hold a file."""
    if request.content_type != MULTIPART:
        raise UnsupportedMediaType(f"Send the file as {MULTIPART}, or as JSON with base64.")


def require(kind: MediaKind, mime_type: str, size: int) -> None:
    """What ``kinds.require`` asks, in the words of HTTP."""
    try:
        kinds.require(kind, mime_type, size)
    except WrongMediaType as error:
        raise UnsupportedMediaType(error.message, data=error.data) from None
    except MediaTooLarge as error:
        raise PayloadTooLarge(error.message, data=error.data) from None


async def decode(content: str, *, field: str) -> tuple[bytes, str | None]:
    """The bytes behind base64 or a ``data:`` URL, and the type that the latter declares."""
    declared = None
    if content.startswith("data:"):
        start, comma, content = content.partition(",")
        if not comma or not start.endswith(";base64"):
            raise invalid({field: "is not a data URL with base64; send plain base64"})
        declared = start.removeprefix("data:").removesuffix(";base64") or None
    try:
        return await asyncio.to_thread(base64.b64decode, content, validate=True), declared
    except (binascii.Error, ValueError):
        raise invalid({field: "is not base64; encode the file by RFC 4648"}) from None


def _id(request: web.Request, principal: Principal, sha256: str) -> UUID:
    key = request.headers.get(IDEMPOTENCY_KEY)
    if key is None:
        return new_id()
    caller = f"{principal.tenant_id}\n{principal.instance_id}\n{principal.user_id}"
    return uuid5(_KEYED, f"{caller}\n{request.path}\n{key}\n{sha256}")
