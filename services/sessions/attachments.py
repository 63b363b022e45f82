"""Attachments: the file of a message, brought to this machine and checked before it is sent."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Final
from uuid import UUID

from aiohttp import ClientError, ClientResponse
from yarl import URL

from services.sessions.engines.port import Attachment, Retryable
from services.sessions.scratch import Scratch
from services.sessions.shares import Shares
from services.sessions.store import files
from shared.contracts.content import Media
from shared.db.database import Database
from shared.media import kinds
from shared.media.kinds import HEAD, MediaTooLarge, WrongMediaType
from shared.media.store import MediaGone, MediaStore
from shared.security.egress import EgressClient, UrlRefused, was_refused

# Each is as carefully looked at as the first; servers of files often send one on to another.
MOST_REDIRECTS: Final = 3
PORTION: Final = 256 * 1024

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
# Not now, says the server; it may say otherwise next time. So says every status from 500 up.
_LATER: Final = frozenset({408, 425, 429})


class Attachments:
    """Brings files, a bounded number at a time, of which each tenant has its share.

    ``largest`` is in bytes.
    ``takes`` says whether files of a type are sent at all.
    """

    def __init__(
        self,
        *,
        database: Database,
        store: MediaStore,
        web: EgressClient,
        scratch: Scratch,
        largest: int,
        takes: Callable[[str], bool],
        most: int,
    ) -> None:
        self._database = database
        self._store = store
        self._web = web
        self._scratch = scratch
        self._largest = largest
        self._takes = takes
        self._shares = Shares(most)

    @asynccontextmanager
    async def brought(self, tenant_id: UUID, media: Media) -> AsyncIterator[Attachment]:
        """The file of a message, for as long as the context is open.

        Raises ``Rejected`` (``MEDIA_GONE``, ``MEDIA_TYPE``, ``MEDIA_TOO_LARGE``) if it cannot be
        sent, and ``Transient`` if it may be there another time.
        """
        async with self._shares.room(tenant_id), self._scratch.path() as path:
            if media.media_id is not None:
                yield await self._stored(tenant_id, media, path)
            elif media.url is not None:
                yield await self._downloaded(media, media.url, path)
            else:
                raise MediaGone("The message names no file; send it with mediaId or url.")

    async def _stored(self, tenant_id: UUID, media: Media, path: Path) -> Attachment:
        found = None
        if (media_id := _uuid(media.media_id)) is not None:
            async with self._database.hot() as connection:
                found = await files.stored(connection, tenant_id, media_id)
        if found is None:
            raise MediaGone("The file of the message was deleted; upload it and send it again.")
        kinds.require(media.kind, found.mime_type, found.size)
        try:
            await self._store.save(tenant_id, found.sha256, path)
        except OSError as error:
            raise Retryable("There was no room for the file.") from error
        return Attachment(
            path=path, mime_type=found.mime_type, size=found.size, sha256=found.sha256
        )

    async def _downloaded(self, media: Media, url: str, path: Path) -> Attachment:
        try:
            return await self._followed(media, url, path)
        except UrlRefused as error:
            raise MediaGone(f"The URL of the file may not be called. {error.message}") from error
        except (ClientError, TimeoutError, OSError, ValueError) as error:
            if was_refused(error):
                raise MediaGone("The URL of the file leads to a private address.") from error
            raise Retryable("The server of the file could not be reached.") from error

    async def _followed(self, media: Media, url: str, path: Path) -> Attachment:
        for _ in range(1 + MOST_REDIRECTS):
            async with self._web.request(
                "GET", url, headers={"Accept-Encoding": "identity"}
            ) as response:
                to = response.headers.get("Location")
                if response.status not in _REDIRECTS or to is None:
                    return await self._taken(media, response, path)
                url = str(response.url.join(URL(to)))
        raise MediaGone("The URL of the file leads from one address to the next; name the last.")

    async def _taken(self, media: Media, response: ClientResponse, path: Path) -> Attachment:
        status = response.status
        if status in _LATER or status >= 500:
            raise Retryable(f"The server of the file answered {status}.")
        if status != 200:
            raise MediaGone(f"The server of the file answered {status}; see that it is there.")
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise WrongMediaType("The server of the file sends it packed; let it send it plain.")
        self._bound(media, response.content_length or 0)
        with await asyncio.to_thread(path.open, "xb") as file:
            size, digest, head = await self._written(media, response, file)
        if not size:
            raise WrongMediaType("The file at the URL is empty.")
        declared = media.mime_type if media.mime_type != kinds.OCTETS else response.content_type
        mime_type = kinds.check(media.kind, head, declared)
        kinds.require(media.kind, mime_type, size)
        if not self._takes(mime_type):
            raise WrongMediaType(f"Files of type {mime_type} are not sent here.")
        return Attachment(path=path, mime_type=mime_type, size=size, sha256=digest)

    async def _written(
        self, media: Media, response: ClientResponse, file: IO[bytes]
    ) -> tuple[int, str, bytes]:
        digest = hashlib.sha256()
        head = b""
        size = 0

        def write(portion: bytes) -> None:
            file.write(portion)
            digest.update(portion)

        async for portion in response.content.iter_chunked(PORTION):
            size += len(portion)
            self._bound(media, size)
            head += portion[: HEAD - len(head)]
            await asyncio.to_thread(write, portion)
        return size, digest.hexdigest(), head

    def _bound(self, media: Media, size: int) -> None:
        most = min(self._largest, kinds.RULES[media.kind].largest)
        if size > most:
            raise MediaTooLarge(
                f"The file at the URL is larger than {most} bytes; send a smaller one.",
                data={"maxBytes": most},
            )


def _uuid(text: str | None) -> UUID | None:
    try:
        return None if text is None else UUID(text)
    except ValueError:
        return None
