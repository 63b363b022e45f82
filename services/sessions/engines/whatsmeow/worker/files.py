"""Files that are sent: made to be what WhatsApp takes, and what is told beside them.

What may be sent as what, and how large, ``shared.media.kinds`` says. That also bounds the memory of
a worker: whatsmeow takes a file whole, and holds it about four times while it encrypts.
"""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from services.sessions.engines.whatsmeow.worker import conversion, pictures, recordings
from shared.contracts.content import Media
from shared.errors import Rejected
from shared.media import kinds

VOICE: Final = "audio/ogg; codecs=opus"
_OGG: Final = frozenset({"audio/ogg", "audio/opus"})


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
    plain = kinds.plain(mime_type) or kinds.OCTETS
    try:
        size = (await asyncio.to_thread(path.stat)).st_size
        if size == 0:
            raise Rejected("The file to send is empty.", code="MEDIA_TYPE")
        kinds.require(media.kind, plain, size)
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
                name = media.filename or "file"
                fields: dict[str, object] = {"fileName": name, "title": name}
                return Prepared(await asyncio.to_thread(path.read_bytes), mime_type, fields)
            case "sticker":
                return await _sticker(path, plain)
    except FileNotFoundError as error:
        raise Rejected("The file to send is not there.", code="MEDIA_GONE") from error


async def _image(path: Path, mime_type: str) -> Prepared:
    if kinds.needs_conversion("image", mime_type):
        data = await asyncio.to_thread(pictures.photo, path)
        mime_type = "image/jpeg"
    else:
        data = await asyncio.to_thread(path.read_bytes)
    shown = await asyncio.to_thread(pictures.described, path)
    return _bounded(
        "image", Prepared(data, mime_type, _sized(shown) | _known(JPEGThumbnail=shown.thumbnail))
    )


async def _video(media: Media, path: Path, mime_type: str) -> Prepared:
    async with AsyncExitStack() as stack:
        fields = _known(gifPlayback=mime_type == "image/gif")
        if kinds.needs_conversion("video", mime_type):
            path = await stack.enter_async_context(
                conversion.converted(path, mime_type, conversion.VIDEO)
            )
            mime_type = "video/mp4"
        film = await asyncio.to_thread(recordings.film, path)
        fields |= _sized(film) | _known(seconds=media.seconds or film.seconds)
        if conversion.possible():
            fields |= _known(JPEGThumbnail=await _still(path, mime_type))
        data = await asyncio.to_thread(path.read_bytes)
        return _bounded("video", Prepared(data, mime_type, fields))


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
        if mime_type in _OGG and await asyncio.to_thread(recordings.is_opus, path):
            mime_type = VOICE
            seconds = seconds or await asyncio.to_thread(recordings.opus_seconds, path)
        elif kinds.needs_conversion("audio", mime_type) or (
            # Not every phone plays what else comes in an Ogg; some do.
            mime_type in _OGG and conversion.possible()
        ):
            path = await stack.enter_async_context(
                conversion.converted(path, mime_type, conversion.AUDIO)
            )
            mime_type = "audio/mp4"
        if not seconds and mime_type == "audio/mp4":
            seconds = (await asyncio.to_thread(recordings.film, path)).seconds
        data = await asyncio.to_thread(path.read_bytes)
        return _bounded("audio", Prepared(data, mime_type, _known(seconds=seconds)))


async def _voice(media: Media, path: Path, mime_type: str) -> Prepared:
    async with AsyncExitStack() as stack:
        if not await asyncio.to_thread(recordings.is_opus, path):
            path = await stack.enter_async_context(
                conversion.converted(path, mime_type, conversion.VOICE)
            )
        seconds = media.seconds or await asyncio.to_thread(recordings.opus_seconds, path)
        data = await asyncio.to_thread(path.read_bytes)
        return _bounded("voice", Prepared(data, VOICE, {"PTT": True} | _known(seconds=seconds)))


async def _sticker(path: Path, mime_type: str) -> Prepared:
    data, moves = await asyncio.to_thread(pictures.sticker, path, mime_type)
    side = pictures.STICKER
    fields = {"width": side, "height": side} | _known(isAnimated=moves)
    return _bounded("sticker", Prepared(data, "image/webp", fields))


def _bounded(kind: kinds.MediaKind, file: Prepared) -> Prepared:
    """The same, if it is not too large: what was converted may have grown."""
    kinds.require(kind, kinds.plain(file.mime_type) or kinds.OCTETS, len(file.data))
    return file


def _sized(shown: pictures.Picture | recordings.Film) -> dict[str, object]:
    return _known(width=shown.width, height=shown.height)


def _known(**fields: object) -> dict[str, object]:
    """Without what is 0, empty or false."""
    return {name: value for name, value in fields.items() if value}
