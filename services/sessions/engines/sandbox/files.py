"""Files in the sandbox: what was sent is kept in the media store, for whoever fetches it."""

import asyncio
from base64 import b64decode
from pathlib import Path
from typing import Final
from uuid import UUID

from services.sessions.engines.port import Attachment, MediaHandle
from services.sessions.store import files
from shared.contracts.content import Media
from shared.db.database import Database
from shared.media.store import MediaGone, MediaStore

# One white pixel, as PNG.
PIXEL: Final = b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR42mP4DwABAQEAHLCMmQAAAABJRU5ErkJggg=="
)
PIXEL_HANDLE: Final[MediaHandle] = {"picture": "pixel"}
# What a number that answers with an image sends.
IMAGE: Final = Media(
    kind="image", mime_type="image/png", caption="A picture from the sandbox", size=len(PIXEL)
)


class Files:
    """Keeps what is sent, and finds it again by a handle."""

    def __init__(self, *, store: MediaStore, database: Database) -> None:
        self._store = store
        self._database = database

    async def keep(self, tenant_id: UUID, attachment: Attachment) -> MediaHandle:
        """Take a file; raises ``Transient`` if that may be tried again."""
        await self._store.put(tenant_id, attachment.path, attachment.sha256)
        return _handle(tenant_id, attachment.sha256)

    async def of_contact(self, tenant_id: UUID, content: Media) -> tuple[Media, MediaHandle | None]:
        """What a contact sends who is told to send ``content``, and by which handle it is fetched.

        ``media_id`` names a file of the tenant's. A contact without one has a picture to send, and
        nothing else.
        """
        bare = content.model_copy(update={"media_id": None, "url": None})
        if content.media_id is not None:
            try:
                media_id = UUID(content.media_id)
            except ValueError:
                return bare, None
            async with self._database.hot() as connection:
                found = await files.stored(connection, tenant_id, media_id)
            if found is None:
                return bare, None
            facts = {"mime_type": found.mime_type, "size": found.size, "sha256": found.sha256}
            return bare.model_copy(update=facts), _handle(tenant_id, found.sha256)
        if content.kind not in {"image", "sticker"}:
            return bare, None
        pixel = {"mime_type": IMAGE.mime_type, "size": IMAGE.size}
        return bare.model_copy(update=pixel), PIXEL_HANDLE

    async def fetch(self, handle: MediaHandle, into: Path) -> None:
        """Write a file to ``into``, which does not exist yet. Raises ``MediaGone``."""
        if handle == PIXEL_HANDLE:
            await asyncio.to_thread(into.write_bytes, PIXEL)
            return
        try:
            tenant_id, sha256 = UUID(handle["tenant"]), handle["sha256"]
        except (KeyError, ValueError):
            raise MediaGone("The sandbox has no such file.") from None
        await self._store.save(tenant_id, sha256, into)


def _handle(tenant_id: UUID, sha256: str) -> MediaHandle:
    return {"tenant": str(tenant_id), "sha256": sha256}
