"""Which file is meant by a ``mediaId``: one that was uploaded, or one that was received."""

from dataclasses import dataclass
from uuid import UUID

from shared.db.database import HotConnection


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file in the media store. ``size`` is in bytes; the type is what its bytes say."""

    sha256: str
    size: int
    mime_type: str


async def stored(connection: HotConnection, tenant_id: UUID, media_id: UUID) -> StoredFile | None:
    """A tenant's file, unless it was deleted or has not been fetched."""
    row = await connection.fetchrow(
        """
        SELECT sha256, size, mime_type FROM gateway.media
        WHERE tenant_id = $1 AND id = $2 AND deleted_at IS NULL
        UNION ALL
        SELECT sha256, size, mime_type FROM sessions.inbound_media
        WHERE tenant_id = $1 AND id = $2 AND status = 'stored'
        """,
        tenant_id,
        media_id,
    )
    return None if row is None else StoredFile(row[0], row[1], row[2])
