"""A file on its way in: streamed to this machine's disk, measured, and gone again afterwards.

However large it is, no more of it is in memory than one portion, and nothing is believed that its
bringer says about it.
"""

import asyncio
import hashlib
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import IO, Final
from uuid import UUID

from aiohttp import BodyPartReader, MultipartReader, web
from aiohttp.http_exceptions import HttpProcessingError, PayloadEncodingError

from services.gateway.domain import filenames
from shared.errors import BadRequest, PayloadTooLarge, Transient, UnsupportedMediaType
from shared.media.kinds import HEAD
from shared.web.body import invalid

MULTIPART: Final = "multipart/form-data"

_CHUNK: Final = 64 * 1024
_PORTION: Final = 256 * 1024

# What a form may hold besides its file: all of its other fields together, and how many.
_FIELDS: Final = 256 * 1024
_MOST_FIELDS: Final = 50

# Of all room, a quarter is out of any one tenant's reach.
_OTHERS: Final = 4

_PLAIN: Final = frozenset({"", "binary", "8bit", "7bit"})

# What aiohttp raises about a body that is not the multipart that it claims to be.
_BROKEN: Final = (
    ValueError,
    AssertionError,
    LookupError,
    HttpProcessingError,
    PayloadEncodingError,
    web.RequestPayloadError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """A file that has arrived whole. ``path`` lasts as long as the context that gave it.

    ``declared`` and ``filename`` are its bringer's words, the latter made harmless; ``fields`` are
    the other fields of the form.
    """

    path: Path
    size: int
    sha256: str
    head: bytes
    declared: str | None
    filename: str | None
    fields: Mapping[str, str]


class Room:
    """The bytes that may be on their way in at once; it is for the disk as for the memory.

    Whoever sends slowly keeps what they take, so one tenant leaves a part of it to all others.
    """

    def __init__(self, most: int) -> None:
        self._free = most
        self._each = most - most // _OTHERS
        self._taken: Counter[UUID] = Counter()

    def take(self, size: int, tenant_id: UUID) -> None:
        """Take up ``size`` bytes; raises ``Transient`` if there is no room for them."""
        if size > self._free or self._taken[tenant_id] + size > self._each:
            raise Transient("Too many files are arriving at once; try again shortly.")
        self._free -= size
        self._taken[tenant_id] += size

    def leave(self, size: int, tenant_id: UUID) -> None:
        """Give back what was taken."""
        self._free += size
        self._taken[tenant_id] -= size
        if not self._taken[tenant_id]:
            del self._taken[tenant_id]

    @contextmanager
    def taken(self, size: int, tenant_id: UUID) -> Iterator[None]:
        """Room for ``size`` bytes within the block. Raises ``Transient``."""
        self.take(size, tenant_id)
        try:
            yield
        finally:
            self.leave(size, tenant_id)


class Staging:
    """Takes files in. ``largest`` is in bytes; ``deadline`` is for all of one request."""

    def __init__(
        self, *, largest: int, room: Room, deadline: timedelta = timedelta(minutes=5)
    ) -> None:
        self.largest = largest
        self.room = room
        self._deadline = deadline

    @asynccontextmanager
    async def form(
        self, request: web.Request, field: str, *, tenant_id: UUID
    ) -> AsyncIterator[Staged]:
        """The file that a multipart request brings under ``field``, with its other fields.

        Raises ``PayloadTooLarge`` while it is still coming, ``BadRequest`` for a form that is
        broken, cut short or too slow, and ``Rejected`` if it holds another file, or none.
        """
        declared = request.content_length
        if declared is not None and declared > self.largest + _FIELDS:
            raise self._too_large()
        with (
            tempfile.TemporaryDirectory(prefix="waypost-upload-") as folder,
            self._taking(tenant_id) as take,
        ):
            try:
                async with asyncio.timeout(self._deadline.total_seconds()):
                    staged = await self._form(request, field, Path(folder) / "file", take)
            except TimeoutError:
                raise BadRequest(
                    "The file did not arrive in time; send it again, or a smaller one.",
                    code="REQUEST_TIMEOUT",
                ) from None
            except _BROKEN as error:
                raise BadRequest("The form is broken or was cut short; send it again.") from error
            yield staged

    @asynccontextmanager
    async def content(
        self, content: bytes, *, tenant_id: UUID, declared: str | None, filename: str | None
    ) -> AsyncIterator[Staged]:
        """A file that is in memory already. Raises ``PayloadTooLarge``."""
        if len(content) > self.largest:
            raise self._too_large()
        with (
            tempfile.TemporaryDirectory(prefix="waypost-upload-") as folder,
            self.room.taken(len(content), tenant_id),
        ):
            path = Path(folder) / "file"
            await asyncio.to_thread(path.write_bytes, content)
            digest = await asyncio.to_thread(hashlib.sha256, content)
            yield Staged(
                path=path,
                size=len(content),
                sha256=digest.hexdigest(),
                head=content[:HEAD],
                declared=declared,
                filename=filenames.safe(filename),
                fields={},
            )

    @contextmanager
    def _taking(self, tenant_id: UUID) -> Iterator[Callable[[int], None]]:
        """Take room as a file grows; all of it is given back at the end."""
        taken = 0

        def take(size: int) -> None:
            nonlocal taken
            self.room.take(size, tenant_id)
            taken += size

        try:
            yield take
        finally:
            self.room.leave(taken, tenant_id)

    async def _form(
        self, request: web.Request, field: str, path: Path, take: Callable[[int], None]
    ) -> Staged:
        form = await request.multipart()
        fields: dict[str, str] = {}
        staged: Staged | None = None
        room = _FIELDS
        async for part in _parts(form):
            name = part.name or ""
            if name == field:
                if staged is not None:
                    raise invalid({field: "is there twice; send one file at a time"})
                staged = await self._file(part, path, fields, take)
            elif part.filename is not None:
                raise invalid({name: f"is not where a file goes; send it as `{field}`"})
            elif name in fields:
                raise invalid({name: "is there twice; send it once"})
            else:
                fields[name] = await _text(part, room)
                room -= len(fields[name])
                if len(fields) > _MOST_FIELDS:
                    raise invalid({name: f"is one field too many; send at most {_MOST_FIELDS}"})
        if staged is None:
            raise invalid({field: "is missing; send the file under this name"})
        return staged

    async def _file(
        self,
        part: BodyPartReader,
        path: Path,
        fields: Mapping[str, str],
        take: Callable[[int], None],
    ) -> Staged:
        try:
            with await asyncio.to_thread(path.open, "xb") as file:
                size, digest, head = await self._measured(part, file, take)
        except OSError as error:
            raise Transient("The file cannot be taken in; try again shortly.") from error
        return Staged(
            path=path,
            size=size,
            sha256=digest,
            head=head,
            declared=part.headers.get("Content-Type"),
            filename=filenames.safe(part.filename),
            fields=fields,
        )

    async def _measured(
        self, part: BodyPartReader, file: IO[bytes], take: Callable[[int], None]
    ) -> tuple[int, str, bytes]:
        digest = hashlib.sha256()
        head = b""
        size = 0

        def write(portion: bytes) -> None:
            file.write(portion)
            digest.update(portion)

        async for portion in _portions(part):
            size += len(portion)
            if size > self.largest:
                raise self._too_large()
            take(len(portion))
            if len(head) < HEAD:
                head += portion[: HEAD - len(head)]
            await asyncio.to_thread(write, portion)
        await asyncio.to_thread(file.flush)
        return size, digest.hexdigest(), head

    def _too_large(self) -> PayloadTooLarge:
        return PayloadTooLarge(
            f"The file is larger than {self.largest} bytes; send a smaller one.",
            data={"maxBytes": self.largest},
        )


async def _parts(form: MultipartReader) -> AsyncIterator[BodyPartReader]:
    while (part := await form.next()) is not None:
        if not isinstance(part, BodyPartReader):
            raise BadRequest("A form within the form cannot be read; send its fields in one.")
        if part.headers.get("Content-Encoding") or (
            part.headers.get("Content-Transfer-Encoding", "").lower() not in _PLAIN
        ):
            raise UnsupportedMediaType("A part of the form is encoded; send its plain bytes.")
        yield part
        if not part.at_eof():
            raise BadRequest("The form was cut short; send it again.")


async def _portions(part: BodyPartReader) -> AsyncIterator[bytes]:
    gathered = bytearray()
    while chunk := await part.read_chunk(_CHUNK):
        gathered += chunk
        if len(gathered) >= _PORTION:
            yield bytes(gathered)
            gathered.clear()
    if gathered:
        yield bytes(gathered)


async def _text(part: BodyPartReader, room: int) -> str:
    text = bytearray()
    async for portion in _portions(part):
        text += portion
        if len(text) > room:
            raise PayloadTooLarge(
                f"The fields beside the file are larger than {_FIELDS} bytes; send less.",
                data={"maxBytes": _FIELDS},
            )
    try:
        return text.decode()
    except UnicodeDecodeError:
        raise invalid({part.name or "": "is not UTF-8; send it so"}) from None
