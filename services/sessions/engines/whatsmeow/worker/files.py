"""Files that are sent: how large and of which type they may be, and what is told beside them.

WhatsApp publishes limits for its Cloud API alone ("Supported media types": image 5 MB, audio and
video 16 MB, document 100 MB, static sticker 100 KB and animated 500 KB). Its own clients, which a
linked device is one of, have higher ones that no page promises. Those of ``LIMITS`` are Waypost's:
Meta's, but for images, which linked devices are seen to send far larger. They also bound the
memory of a worker: whatsmeow takes a file whole, and holds it about four times while it encrypts.
"""

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from services.sessions.engines.whatsmeow.worker import conversion, pictures, recordings
from shared.contracts.content import Media
from shared.errors import Rejected

MB: Final = 1_000_000
LIMITS: Final[Mapping[str, int]] = {
    "image": 16 * MB,
    "video": 16 * MB,
    "audio": 16 * MB,
    "voice": 16 * MB,
    "document": 100 * MB,
    "sticker": 500_000,
}
IMAGES: Final = frozenset({"image/jpeg", "image/png", "image/webp"})
AUDIO: Final = frozenset({"audio/aac", "audio/amr", "audio/mp4", "audio/mpeg", "audio/x-m4a"})
VIDEO: Final = frozenset({"video/mp4", "video/3gpp"})
VOICE: Final = "audio/ogg; codecs=opus"
OGG: Final = frozenset({"audio/ogg", "application/ogg", "audio/opus"})


@dataclass(frozen=True, slots=True)
class Prepared:
    """A file's bytes as they are uploaded, its type, and what else its message tells of it."""

    data: bytes
    mime_type: str
    fields: dict[str, object] = field(default_factory=dict)


async def prepared(media: Media, path: Path, mime_type: str) -> Prepared:
    """The file of a message, in the form in which WhatsApp takes it.

    Raises ``Rejected``: ``MEDIA_TYPE``, ``MEDIA_TOO_LARGE``, ``MEDIA_GONE`` if it is not there,
    ``CONVERSION_UNAVAILABLE`` if it would have to be converted and cannot be here.
    """
    plain = mime_type.partition(";")[0].strip().lower()
    try:
        match media.kind:
            case "image":
                return await _image(path, plain)
            case "video":
                return await _video(media, path, plain)
            case "audio":
                return await _audio(media, path, plain)
            case "voice":
                return await _voice(media, path, plain)
            case "document":
                return await _document(media, path, mime_type)
            case "sticker":
                return await _sticker(path, plain)
    except FileNotFoundError as error:
        raise Rejected("The file to send is not there.", code="MEDIA_GONE") from error


async def _image(path: Path, mime_type: str) -> Prepared:
    if mime_type not in IMAGES:
        raise Rejected(
            f"WhatsApp shows no images of type {mime_type}: send a JPEG or PNG, or a document.",
            code="MEDIA_TYPE",
        )
    data = await _read("image", path)
    shown = await asyncio.to_thread(pictures.described, path)
    return Prepared(data, mime_type, _known(_sized(shown), JPEGThumbnail=shown.thumbnail))


async def _video(media: Media, path: Path, mime_type: str) -> Prepared:
    async with AsyncExitStack() as stack:
        if mime_type not in VIDEO:
            path = await stack.enter_async_context(
                conversion.converted(path, mime_type, conversion.VIDEO)
            )
            mime_type = "video/mp4"
        data = await _read("video", path)
        film = await asyncio.to_thread(recordings.film, path)
        fields = _known(_sized(film), seconds=media.seconds or film.seconds)
        if conversion.possible():
            fields |= _known(JPEGThumbnail=await _still(path, mime_type))
        return Prepared(data, mime_type, fields)


async def _still(path: Path, mime_type: str) -> bytes:
    """The first picture of a video; empty if there is none to be had."""
    try:
        async with conversion.converted(path, mime_type, conversion.STILL) as still:
            return await asyncio.to_thread(still.read_bytes)
    except Rejected:
        return b""


async def _audio(media: Media, path: Path, mime_type: str) -> Prepared:
    async with AsyncExitStack() as stack:
        seconds = media.seconds or 0
        if mime_type in OGG and await asyncio.to_thread(recordings.is_opus, path):
            mime_type = VOICE
            seconds = seconds or await asyncio.to_thread(recordings.opus_seconds, path)
        elif mime_type not in AUDIO:
            path = await stack.enter_async_context(
                conversion.converted(path, mime_type, conversion.AUDIO)
            )
            mime_type = "audio/mp4"
        if not seconds and mime_type in {"audio/mp4", "audio/x-m4a"}:
            seconds = (await asyncio.to_thread(recordings.film, path)).seconds
        return Prepared(await _read("audio", path), mime_type, _known(seconds=seconds))


async def _voice(media: Media, path: Path, mime_type: str) -> Prepared:
    async with AsyncExitStack() as stack:
        if not await asyncio.to_thread(recordings.is_opus, path):
            path = await stack.enter_async_context(
                conversion.converted(path, mime_type, conversion.VOICE)
            )
        seconds = media.seconds or await asyncio.to_thread(recordings.opus_seconds, path)
        fields = {"PTT": True} | _known(seconds=seconds)
        return Prepared(await _read("voice", path), VOICE, fields)


async def _document(media: Media, path: Path, mime_type: str) -> Prepared:
    name = media.filename or "file"
    return Prepared(await _read("document", path), mime_type, {"fileName": name, "title": name})


async def _sticker(path: Path, mime_type: str) -> Prepared:
    # A sticker may be made of a large picture, but not of a huge one.
    _bounded("image", (await asyncio.to_thread(path.stat)).st_size)
    data, moves = await asyncio.to_thread(pictures.sticker, path, mime_type)
    _bounded("sticker", len(data))
    side = pictures.STICKER
    return Prepared(data, "image/webp", {"width": side, "height": side} | _known(isAnimated=moves))


async def _read(kind: str, path: Path) -> bytes:
    _bounded(kind, (await asyncio.to_thread(path.stat)).st_size)
    return await asyncio.to_thread(path.read_bytes)


def _bounded(kind: str, size: int) -> None:
    if size == 0:
        raise Rejected("The file to send is empty.", code="MEDIA_TYPE")
    if size > LIMITS[kind]:
        raise Rejected(
            f"A file of kind {kind} may have {LIMITS[kind]:,} bytes, and this one has {size:,}.",
            code="MEDIA_TOO_LARGE",
        )


def _sized(shown: pictures.Picture | recordings.Film) -> dict[str, object]:
    return _known(width=shown.width, height=shown.height)


def _known(fields: Mapping[str, object] | None = None, **more: object) -> dict[str, object]:
    """Without what is 0, empty or false."""
    return {name: value for name, value in {**(fields or {}), **more}.items() if value}
