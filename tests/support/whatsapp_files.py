"""One small file of each kind that people send, made here, so that none has to be kept.

They are what they say: decoders and checks of the first bytes agree. Those that play last for about
a second and hold silence or nothing.
"""

import io
import struct
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from PIL import Image


@dataclass(frozen=True)
class Sample:
    """A file of a kind."""

    kind: str
    name: str
    mime_type: str
    data: bytes

    @property
    def sha256(self) -> str:
        """Of its bytes, in hex."""
        return sha256(self.data).hexdigest()

    def written(self, folder: Path) -> Path:
        """The file, in ``folder``."""
        path = folder / self.name
        path.write_bytes(self.data)
        return path


def _picture(form: str, size: int, colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), colour).save(buffer, form)
    return buffer.getvalue()


def _box(kind: bytes, *content: bytes) -> bytes:
    body = b"".join(content)
    return struct.pack(">I4s", len(body) + 8, kind) + body


def _film() -> bytes:
    """A film without a picture: a header of one second and no track (ISO 14496-12)."""
    matrix = struct.pack(">9i", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
    header = struct.pack(">IIIIIIH10x", 0, 0, 0, 1000, 1000, 0x10000, 0x100) + matrix
    return (
        _box(b"ftyp", b"isom", struct.pack(">I", 512), b"isomiso2mp41")
        + _box(b"moov", _box(b"mvhd", header + bytes(24) + struct.pack(">I", 1)))
        + _box(b"mdat", bytes(1024))
    )


def _song() -> bytes:
    """MPEG-1 layer III, 128 kbit/s, 44.1 kHz: 38 silent frames of 417 bytes."""
    tag = b"ID3\x03\x00\x00\x00\x00\x00\x00"
    return tag + (b"\xff\xfb\x90\x64" + bytes(413)) * 38


def _page(number: int, granule: int, flags: int, *packets: bytes) -> bytes:
    """A page of an Ogg stream (RFC 3533); each packet is shorter than 255 bytes."""
    head = struct.pack("<4sBBqIII", b"OggS", 0, flags, granule, 1, number, 0)
    head += bytes([len(packets), *map(len, packets)])
    page = head + b"".join(packets)
    return page[:22] + struct.pack("<I", _ogg_checksum(page)) + page[26:]


def _ogg_checksum(page: bytes) -> int:
    """CRC-32 with zlib's polynomial, but neither reflected nor inverted."""
    value = 0
    for byte in page:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1 ^ (0x04C11DB7 if value & 0x80000000 else 0)) & 0xFFFFFFFF
    return value


def _voice() -> bytes:
    """Opus in Ogg (RFC 7845): 50 packets of 20 ms that say nothing."""
    head = struct.pack("<8sBBHIhB", b"OpusHead", 1, 1, 312, 16000, 0, 0)
    tags = struct.pack("<8sI", b"OpusTags", 7) + b"waypost" + struct.pack("<I", 0)
    silence = [b"\xf8\xff\xfe"] * 50
    return _page(0, 0, 2, head) + _page(1, 0, 0, tags) + _page(2, 48000, 4, *silence)


def _paper() -> bytes:
    return (
        b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n"
        b"2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
        b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 72 72]>>endobj\n"
        b"xref\n0 4\n0000000000 65535 f \n0000000009 00000 n \n0000000054 00000 n \n"
        b"0000000104 00000 n \ntrailer<</Size 4/Root 1 0 R>>\nstartxref\n165\n%%EOF\n"
    )


IMAGE = Sample("image", "picture.jpg", "image/jpeg", _picture("JPEG", 64, "teal"))
VIDEO = Sample("video", "film.mp4", "video/mp4", _film())
AUDIO = Sample("audio", "song.mp3", "audio/mpeg", _song())
VOICE = Sample("voice", "note.ogg", "audio/ogg; codecs=opus", _voice())
DOCUMENT = Sample("document", "paper.pdf", "application/pdf", _paper())
STICKER = Sample("sticker", "sticker.webp", "image/webp", _picture("WEBP", 512, "gold"))
SAMPLES = (IMAGE, VIDEO, AUDIO, VOICE, DOCUMENT, STICKER)
