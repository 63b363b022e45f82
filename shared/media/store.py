"""Where the bytes are: a folder or an S3-compatible bucket, behind the same few promises.

An object is named by what it holds, ``<tenant>/<sha256[:2]>/<sha256>``, so the same file of a
tenant is kept once, a repeated ``put`` is harmless, and nothing that is there ever changes.
"""

import asyncio
import os
import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self
from uuid import UUID

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, S3Store

from shared.errors import Away, NotFound, Transient
from shared.media.settings import S3, MediaSettings

if TYPE_CHECKING:
    from obstore import ObjectMeta  # there for type checkers alone

# What one request fetches: long enough to be cheap, short enough that no reader, however slow,
# keeps a request to the store open.
CHUNK: Final = 1024 * 1024

# S3 takes no smaller parts but the last. Two at a time: a put holds no more than these in memory.
_PART: Final = 5 * 1024 * 1024
_PARTS_AT_ONCE: Final = 2

_CONNECT: Final = timedelta(seconds=5)
_ANSWER: Final = timedelta(seconds=30)
_RETRIES: Final = 3
_RETRY_FOR: Final = timedelta(seconds=10)

_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_NAME: Final = re.compile(r"([0-9a-f-]{36})/[0-9a-f]{2}/([0-9a-f]{64})")
# What an interrupted write to a folder leaves behind: the name, a hash sign and a number.
_UNFINISHED: Final = re.compile(r"[0-9a-f]{64}#\d+")
_NOWHERE: Final = "00000000-0000-0000-0000-000000000000"


class MediaGone(NotFound):
    """The bytes are not in the store, or not any more."""

    code = "MEDIA_GONE"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredObject:
    """One file in the store. ``size`` is in bytes; ``stored_at`` is when it was last put."""

    tenant_id: UUID
    sha256: str
    size: int
    stored_at: datetime


class MediaStore:
    """Files of tenants, by their SHA-256.

    A file is there as a whole or not at all, whatever crashes while it is put; once ``put`` has
    returned it outlasts the machine's power. Every method raises ``Transient`` if the store cannot
    be reached; blips have been ridden out by then.
    """

    def __init__(self, store: LocalStore | S3Store, *, folder: Path | None = None) -> None:
        self._store = store
        self._folder = folder

    @classmethod
    def of(cls, settings: MediaSettings) -> Self:
        """The store that the settings name. Makes a folder; never a bucket."""
        place = settings.media_store
        if not place.startswith(S3):
            folder = Path(place).absolute()
            return cls(LocalStore(folder, mkdir=True), folder=folder)
        bucket, _, prefix = place.removeprefix(S3).partition("/")
        given: dict[str, str] = {}
        if settings.media_s3_endpoint is not None:
            given["endpoint"] = settings.media_s3_endpoint.rstrip("/")
        if settings.media_s3_access_key is not None and settings.media_s3_secret_key is not None:
            given["access_key_id"] = settings.media_s3_access_key.get_secret_value()
            given["secret_access_key"] = settings.media_s3_secret_key.get_secret_value()
        return cls(
            S3Store(
                bucket,
                prefix=prefix.strip("/") or None,
                region=settings.media_s3_region,
                # Not every server that speaks S3 can delete many at once, and we never need to.
                disable_bulk_delete=True,
                client_options={
                    "allow_http": (settings.media_s3_endpoint or "").startswith("http://"),
                    "connect_timeout": _CONNECT,
                    "timeout": _ANSWER,
                },
                retry_config={"max_retries": _RETRIES, "retry_timeout": _RETRY_FOR},
                **given,  # type: ignore[arg-type] # a TypedDict of its own
            )
        )

    async def put(self, tenant_id: UUID, source: Path, sha256: str) -> None:
        """Keep the file at ``source``, whose SHA-256 this is; return once it is safe.

        Read in parts, whatever its size. ``source`` stays where it is.
        """
        name = _name(tenant_id, sha256)
        await asyncio.to_thread(source.stat)
        with _translated(absent=_unreachable):
            await obstore.put_async(
                self._store, name, source, chunk_size=_PART, max_concurrency=_PARTS_AT_ONCE
            )
            if self._folder is not None:
                await asyncio.to_thread(_to_disk, self._folder / name)

    async def read(
        self, tenant_id: UUID, sha256: str, *, start: int = 0, end: int | None = None
    ) -> AsyncIterator[bytes]:
        """The bytes from ``start`` up to but not including ``end``, a chunk at a time.

        Raises ``MediaGone``, usually before the first chunk; a file that is deleted while it is
        read ends with it too, never with fewer bytes in silence.
        """
        name = _name(tenant_id, sha256)
        if end is None:
            found = await self.size(tenant_id, sha256)
            if found is None:
                raise _gone()
            end = found
        while start < end:
            upto = min(start + CHUNK, end)
            with _translated():
                chunk = await obstore.get_range_async(self._store, name, start=start, end=upto)
            if not len(chunk):
                raise _gone()
            yield bytes(chunk)
            start += len(chunk)

    async def save(self, tenant_id: UUID, sha256: str, into: Path) -> None:
        """Write the whole file to ``into``, which must not exist yet. Raises ``MediaGone``."""
        file = await asyncio.to_thread(into.open, "xb")
        try:
            async for chunk in self.read(tenant_id, sha256):
                await asyncio.to_thread(file.write, chunk)
        finally:
            await asyncio.to_thread(file.close)

    async def size(self, tenant_id: UUID, sha256: str) -> int | None:
        """How many bytes the file has; ``None`` if it is not there."""
        try:
            with _translated():
                found = await obstore.head_async(self._store, _name(tenant_id, sha256))
        except MediaGone:
            return None
        return found["size"]

    async def exists(self, tenant_id: UUID, sha256: str) -> bool:
        """Whether the file is there."""
        return await self.size(tenant_id, sha256) is not None

    async def delete(self, tenant_id: UUID, sha256: str) -> None:
        """Remove the file, for all of the tenant's that is made of it. Gone already: all right."""
        with suppress(MediaGone), _translated():
            await obstore.delete_async(self._store, _name(tenant_id, sha256))

    async def objects(self) -> AsyncIterator[list[StoredObject]]:
        """Everything that is kept, some hundred at a time and in no particular order."""
        # Not ``async for`` in ``_translated``: what the caller raises between pages is not ours.
        pages = aiter(obstore.list(self._store, chunk_size=500))
        while True:
            with _translated():
                page = await anext(pages, None)
            if page is None:
                return
            yield list(_objects(page))

    async def forget_unfinished(self, *, before: datetime) -> int:
        """Remove what writes that were interrupted before then have left; returns how many.

        Only a folder shows such remains. A bucket keeps parts of uploads that were never finished,
        which a rule of the bucket's own removes.
        """
        if self._folder is None:
            return 0
        return await asyncio.to_thread(_unfinished_removed, self._folder, before.timestamp())

    async def check(self) -> None:
        """Return if the store answers. Raises ``Transient``."""
        if self._folder is not None and not await asyncio.to_thread(_writable, self._folder):
            raise _unreachable()
        # Not a look at one file: to that, a bucket that is missing answers like a missing file.
        with _translated(absent=_unreachable):
            await anext(aiter(obstore.list(self._store, _NOWHERE)), None)


def _name(tenant_id: UUID, sha256: str) -> str:
    if not _SHA256.fullmatch(sha256):
        raise ValueError("a SHA-256 is written as 64 digits, 0-9 and a-f")
    return f"{tenant_id}/{sha256[:2]}/{sha256}"


def _objects(page: "Iterable[ObjectMeta]") -> Iterator[StoredObject]:
    for meta in page:
        named = _NAME.fullmatch(meta["path"])
        if named is not None:
            yield StoredObject(
                tenant_id=UUID(named[1]),
                sha256=named[2],
                size=meta["size"],
                stored_at=meta["last_modified"],
            )


@contextmanager
def _translated(absent: Callable[[], Exception] | None = None) -> Iterator[None]:
    """What the library raises, in our words; ``absent`` is what it means that nothing is found."""
    try:
        yield
    except FileNotFoundError as error:
        raise (absent or _gone)() from error
    except (BaseError, OSError) as error:
        raise _unreachable() from error


def _gone() -> MediaGone:
    return MediaGone("The file is no longer stored; upload it again.")


def _unreachable() -> Transient:
    return Away("The media store cannot be reached; try again shortly.")


def _writable(folder: Path) -> bool:
    return os.access(folder, os.W_OK | os.X_OK)


def _to_disk(path: Path) -> None:
    """Have the file and its name survive a loss of power: a rename alone promises neither."""
    for place in (path, path.parent, path.parent.parent, path.parent.parent.parent):
        descriptor = os.open(place, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _unfinished_removed(folder: Path, before: float) -> int:
    removed = 0
    for path in folder.glob("*/*/*#*"):
        if not _UNFINISHED.fullmatch(path.name):
            continue
        with suppress(FileNotFoundError):
            if path.stat().st_mtime < before:
                path.unlink()
                removed += 1
    return removed
