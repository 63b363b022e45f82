"""Files that somebody sent: the handle that fetches one, and fetching it."""

import asyncio
import base64
import binascii
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from services.sessions.engines.whatsmeow.worker import errors, library
from services.sessions.engines.whatsmeow.worker.shapes import Client, File
from services.sessions.engines.whatsmeow.worker.words import clean
from shared.errors import Rejected

# whatsmeow takes a file whole. What is told of its length may be a lie, and no call of neonize's
# can bound what comes, so this keeps out honest giants; the rest ends a worker, not the service.
LARGEST: Final = 100 * 1024 * 1024
_KINDS: Final = frozenset({"Image", "Video", "Audio", "Document"})
# A file is in memory about three times while it is fetched and decrypted.
_downloads: Final = asyncio.Semaphore(2)


def handle(file: File, keys: str) -> Mapping[str, str]:
    """What is needed to fetch a file; ``keys`` says whose keys decrypt it. Secret.

    Bytes are in base64.
    """
    return {
        "direct_path": clean(file.directPath),
        "media_key": _base64(file.mediaKey),
        "sha256": _base64(file.fileSHA256),
        "enc_sha256": _base64(file.fileEncSHA256),
        "length": str(file.fileLength),
        "kind": keys,
    }


async def fetch(client: Client, media: Mapping[str, str], into: Path) -> None:
    """Write a file that somebody sent to ``into``, which does not exist yet, decrypted.

    Raises as ``Engine.fetch`` does: ``Rejected`` with ``MEDIA_GONE`` if it is gone or damaged for
    good, with ``MEDIA_TOO_LARGE`` if it is larger than a worker takes, else ``Transient``.
    """
    try:
        path, kind, length = media["direct_path"], media["kind"], int(media["length"])
        keys = {
            name: base64.b64decode(media[name], validate=True)
            for name in ("media_key", "sha256", "enc_sha256")
        }
    except (KeyError, ValueError, binascii.Error) as error:
        raise Rejected("This message came without its file.", code="MEDIA_GONE") from error
    if kind not in _KINDS or not path.startswith("/"):
        raise Rejected("This message came without its file.", code="MEDIA_GONE")
    if length > LARGEST:
        raise Rejected(
            f"This file has {length:,} bytes; {LARGEST:,} are fetched.", code="MEDIA_TOO_LARGE"
        )
    async with _downloads:
        try:
            data = await client.download_media_with_path(
                path,
                keys["enc_sha256"],
                keys["sha256"],
                keys["media_key"],
                length,
                library.media_type(kind),
                library.mms_type(kind),
            )
        except library.errors() as error:
            raise errors.of_fetching(error) from error
        await asyncio.to_thread(into.write_bytes, data)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
