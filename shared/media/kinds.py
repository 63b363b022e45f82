"""Which files WhatsApp takes as what: told by their first bytes, not by whoever brings them.

Sizes and native types are those that Meta publishes for the Cloud API ("Supported media types",
developers.facebook.com), except that a linked device may send an image of up to 16 MB, as the apps
do; an engine with a lower limit refuses by itself. What is not native to WhatsApp is taken all the
same where ffmpeg makes something native of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

import puremagic

from shared.errors import Rejected

MediaKind = Literal["image", "video", "audio", "voice", "document", "sticker"]
KINDS: Final[tuple[MediaKind, ...]] = get_args(MediaKind)

HEAD: Final = 8192
"""How many of the first bytes it takes to tell a type; fewer if the file has fewer."""

OCTETS: Final = "application/octet-stream"

_MIB: Final = 1024 * 1024
_KIB: Final = 1024

_AUDIO: Final = frozenset(
    {"audio/ogg", "audio/mpeg", "audio/mp4", "audio/aac", "audio/amr", "audio/opus"}
)
_OTHER_AUDIO: Final = frozenset({"audio/wav", "audio/flac", "audio/webm", "audio/aiff"})


class WrongMediaType(Rejected):
    """The file is not of a type that is taken, or not for this kind of message."""

    code = "MEDIA_TYPE"


class MediaTooLarge(Rejected):
    """The file is larger than WhatsApp takes for this kind of message."""

    code = "MEDIA_TOO_LARGE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What one kind of message takes.

    ``native`` types go as they are; ``convertible`` ones must be made native first. With neither,
    any type goes. Sizes are in bytes: ``largest`` for any file, ``largest_native`` for one that
    goes as it is, where that is less.
    """

    native: frozenset[str] = frozenset()
    convertible: frozenset[str] = frozenset()
    largest: int = 16 * _MIB
    largest_native: int | None = None

    @property
    def anything(self) -> bool:
        """Whether any type goes."""
        return not self.native and not self.convertible


RULES: Final[Mapping[MediaKind, Rule]] = {
    "image": Rule(
        native=frozenset({"image/jpeg", "image/png"}),
        convertible=frozenset({"image/webp", "image/gif", "image/bmp", "image/tiff"}),
    ),
    "video": Rule(
        native=frozenset({"video/mp4", "video/3gpp"}),
        convertible=frozenset(
            {
                "video/quicktime",
                "video/webm",
                "video/x-matroska",
                "video/x-msvideo",
                "video/mpeg",
                "video/ogg",
                "image/gif",
            }
        ),
    ),
    "audio": Rule(native=_AUDIO, convertible=_OTHER_AUDIO | {"video/webm"}),
    # A voice note is Opus in Ogg, or the phone shows a file instead of a waveform.
    "voice": Rule(
        native=frozenset({"audio/ogg"}),
        convertible=_AUDIO - {"audio/ogg"} | _OTHER_AUDIO | {"video/webm"},
    ),
    "document": Rule(largest=100 * _MIB),
    # 500 KB is for animated ones; those that stand still should have no more than 100 KB.
    "sticker": Rule(
        native=frozenset({"image/webp"}),
        convertible=frozenset({"image/png", "image/jpeg", "image/gif"}),
        largest_native=500 * _KIB,
    ),
}


def check(kind: MediaKind, head: bytes, declared: str | None = None) -> str:
    """The type of a file that begins with ``head``; raises ``WrongMediaType`` if it cannot go.

    ``declared`` is what its bringer says, heard only where the bytes leave a choice.
    """
    mime_type = type_of(head, declared)
    require(kind, mime_type)
    return mime_type


def require(kind: MediaKind, mime_type: str, size: int | None = None) -> None:
    """Raise ``WrongMediaType`` or ``MediaTooLarge`` unless WhatsApp takes such a file as that."""
    rule = RULES[kind]
    if not rule.anything and mime_type not in rule.native | rule.convertible:
        raise WrongMediaType(
            f"A file of type {mime_type} cannot be sent as {kind}: send one of"
            f" {', '.join(sorted(rule.native))}, or send it as document.",
            data={"mimeType": mime_type, "accepted": sorted(rule.native | rule.convertible)},
        )
    largest = largest_of(kind, mime_type)
    if size is not None and size > largest:
        raise MediaTooLarge(
            f"WhatsApp takes no {kind} of more than {largest} bytes; make it smaller.",
            data={"size": size, "maxBytes": largest},
        )


def largest_of(kind: MediaKind, mime_type: str) -> int:
    """The most bytes that WhatsApp takes for such a file."""
    rule = RULES[kind]
    if rule.largest_native is not None and mime_type in rule.native:
        return rule.largest_native
    return rule.largest


def needs_conversion(kind: MediaKind, mime_type: str) -> bool:
    """Whether the file must be converted before WhatsApp takes it as that."""
    rule = RULES[kind]
    return not rule.anything and mime_type not in rule.native


def type_of(head: bytes, declared: str | None = None) -> str:
    """The type of a file that begins with ``head``, always a plain ``family/name`` in lower case.

    Containers that hold sound or pictures are told apart by what is in them. Where the bytes fit
    several types, such as all that are a ZIP inside, ``declared`` decides if it is one of them.
    What has no mark is text if it reads as text, else ``application/octet-stream``.
    """
    said = plain(declared)
    head = head[:HEAD]
    known = _container(head)
    if known is not None:
        return known
    fits = _candidates(head)
    if head and _reads_as_text(head) and (not fits or max(fits.values()) < _SURE):
        return said if said in _TEXTS else "text/plain"
    if not fits:
        return OCTETS
    best = max(fits.values())
    if said is not None and fits.get(said) == best:
        return said
    if fits.keys() & _ZIPPED:
        return "application/zip"
    return next(name for name, confidence in fits.items() if confidence == best)


def plain(mime_type: str | None) -> str | None:
    """A type without its parameters, in lower case and under its usual name."""
    name = (mime_type or "").partition(";")[0].strip().lower()
    return _USUAL.get(name, name) or None


# puremagic's confidence is the length of the mark it found, in tenths of a byte: words of a text
# can begin with a mark of three, such as ID3.
_SURE: Final = 0.4

_USUAL: Final[Mapping[str, str]] = {
    "image/jpg": "image/jpeg",
    "image/pjpeg": "image/jpeg",
    "image/x-png": "image/png",
    "image/x-ms-bmp": "image/bmp",
    "image/x-bmp": "image/bmp",
    "audio/wave": "audio/wav",
    "audio/x-wav": "audio/wav",
    "audio/vnd.wave": "audio/wav",
    "audio/x-flac": "audio/flac",
    "audio/x-aiff": "audio/aiff",
    "audio/mp3": "audio/mpeg",
    "audio/x-m4a": "audio/mp4",
    "audio/m4a": "audio/mp4",
    "video/avi": "video/x-msvideo",
    "video/3gp": "video/3gpp",
    "application/x-gzip": "application/gzip",
    "application/x-zip-compressed": "application/zip",
    "text/x-vcard": "text/vcard",
    "text/directory": "text/vcard",
}
_TEXTS: Final = frozenset(
    {
        "text/plain",
        "text/csv",
        "text/tab-separated-values",
        "text/markdown",
        "text/vcard",
        "text/calendar",
        "application/json",
    }
)
_ZIPPED: Final = frozenset(
    {
        "application/zip",
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    }
)

# The major brand of an ISO base media file; any other is a video.
_BRANDS: Final[Mapping[bytes, str]] = {
    b"M4A ": "audio/mp4",
    b"M4B ": "audio/mp4",
    b"qt  ": "video/quicktime",
    b"heic": "image/heic",
    b"heix": "image/heic",
    b"hevc": "image/heic",
    b"mif1": "image/heif",
    b"msf1": "image/heif",
    b"avif": "image/avif",
    b"avis": "image/avif",
}
_MARKS: Final[tuple[tuple[bytes, str], ...]] = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"#!AMR", "audio/amr"),
    (b"ID3", "audio/mpeg"),
)


def _container(head: bytes) -> str | None:
    """The type where a mark of puremagic's says too little, or says it too softly."""
    if head[4:8] == b"ftyp":
        brand = head[8:12]
        return (
            "video/3gpp" if brand.startswith((b"3gp", b"3gg")) else _BRANDS.get(brand, "video/mp4")
        )
    if head.startswith(b"OggS"):
        return "video/ogg" if b"\x80theora" in head[:512] else "audio/ogg"
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "video/webm" if b"webm" in head[:64] else "video/x-matroska"
    if head.startswith(b"ID3") and _reads_as_text(head):
        return None
    for mark, mime_type in _MARKS:
        if head.startswith(mark):
            return mime_type
    return _bare_audio(head)


def _bare_audio(head: bytes) -> str | None:
    """Audio without a container: it begins with the eleven or twelve set bits of a frame."""
    if len(head) < 4 or head[0] != 0xFF:
        return None
    # ADTS: twelve bits, layer 0. MPEG audio: eleven bits, a version, layer III and a bit rate.
    if head[1] & 0xF6 == 0xF0:
        return "audio/aac"
    layer_three = head[1] & 0xE6 == 0xE2 and head[1] & 0x18 != 0x08
    if layer_three and head[2] & 0xF0 != 0xF0 and head[2] & 0x0C != 0x0C:
        return "audio/mpeg"
    return None


def _candidates(head: bytes) -> dict[str, float]:
    """The types that the bytes fit, with how sure that is, the likeliest first."""
    try:
        found = puremagic.magic_string(head)
    except (puremagic.PureError, ValueError):
        return {}
    fits: dict[str, float] = {}
    for match in found:
        name = plain(match.mime_type)
        if name is not None and "/" in name:
            fits[name] = max(match.confidence, fits.get(name, 0.0))
    return fits


def _reads_as_text(head: bytes) -> bool:
    """Whether this is UTF-8 without control characters, cut off wherever it may be."""
    for cut in range(4):
        try:
            text = head[: len(head) - cut].decode()
        except UnicodeDecodeError:
            continue
        return all(character.isprintable() or character in "\t\n\r\f" for character in text)
    return False
