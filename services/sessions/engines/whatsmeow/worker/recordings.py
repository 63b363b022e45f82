"""Recordings: what can be read from an Ogg Opus or an MP4 without any tool.

Both are read in small pieces, and whatever is not as it should be is 0 or ``False``: a recording
without its length is still a recording.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

# RFC 7845: an Opus stream counts samples of 48 kHz, whatever it was recorded at.
_OPUS_RATE: Final = 48_000
# A page is at most 65307 bytes long, so the last one begins within that of the end.
_TAIL: Final = 65_536
_HEAD: Final = 512
# More boxes than any player writes side by side.
_BOXES: Final = 64


@dataclass(frozen=True, slots=True)
class Film:
    """A video's size in pixels and its length in seconds; 0 if unknown."""

    width: int = 0
    height: int = 0
    seconds: int = 0


def is_opus(path: Path) -> bool:
    """Whether a file is an Ogg with nothing but Opus in front. Blocks."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    return head.startswith(b"OggS") and head[28:36] == b"OpusHead"


def opus_seconds(path: Path) -> int:
    """How long an Ogg Opus lasts, in whole seconds, at least 1 if that is known. Blocks.

    The last page tells the number of the last sample (RFC 3533, section 6).
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
        file.seek(max(0, path.stat().st_size - _TAIL))
        tail = file.read()
    last = tail.rfind(b"OggS")
    if last < 0 or len(tail) < last + 14 or len(head) < 40:
        return 0
    (samples,) = struct.unpack_from("<q", tail, last + 6)
    (skipped,) = struct.unpack_from("<H", head, 38)
    length = (samples - skipped) / _OPUS_RATE
    return max(1, round(length)) if 0 < length < 7 * 24 * 3600 else 0


def film(path: Path) -> Film:
    """What an MP4 or 3GP says of itself (ISO 14496-12, 8.2 and 8.3). Blocks."""
    try:
        with path.open("rb") as file:
            end = path.stat().st_size
            moov = _box(file, b"moov", 0, end)
            if moov is None:
                return Film()
            width, height = _size(file, *moov)
            return Film(width, height, _seconds(file, *moov))
    except (OSError, struct.error):
        return Film()


def _box(file: BinaryIO, wanted: bytes, begin: int, end: int) -> tuple[int, int] | None:
    found = _boxes(file, wanted, begin, end)
    return found[0] if found else None


def _boxes(file: BinaryIO, wanted: bytes, begin: int, end: int) -> list[tuple[int, int]]:
    """Where the contents of each box of this type begin and end."""
    found = []
    at = begin
    for _ in range(_BOXES):
        if at + 8 > end:
            break
        file.seek(at)
        size, kind = struct.unpack(">I4s", file.read(8))
        head = 8
        if size == 1:
            (size,) = struct.unpack(">Q", file.read(8))
            head = 16
        elif size == 0:
            size = end - at
        if size < head or at + size > end:
            break
        if kind == wanted:
            found.append((at + head, at + size))
        at += size
    return found


def _seconds(file: BinaryIO, begin: int, end: int) -> int:
    place = _box(file, b"mvhd", begin, end)
    if place is None:
        return 0
    file.seek(place[0])
    wide = file.read(1) == b"\x01"
    file.seek(place[0] + (20 if wide else 12))
    scale, length = struct.unpack(">IQ" if wide else ">II", file.read(12 if wide else 8))
    seconds = length / scale if scale else 0
    return max(1, round(seconds)) if 0 < seconds < 7 * 24 * 3600 else 0


def _size(file: BinaryIO, begin: int, end: int) -> tuple[int, int]:
    """Of the first track that has one: sound has none. Both are 16.16 fixed-point numbers."""
    for track in _boxes(file, b"trak", begin, end):
        place = _box(file, b"tkhd", *track)
        if place is None or place[1] - place[0] < 84:
            continue
        file.seek(place[1] - 8)
        width, height = (number >> 16 for number in struct.unpack(">II", file.read(8)))
        if 0 < width < 20_000 and 0 < height < 20_000:
            return width, height
    return 0, 0
