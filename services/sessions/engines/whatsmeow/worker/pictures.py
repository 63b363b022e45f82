"""Pictures: their size, a small one to show meanwhile, and stickers of WhatsApp's form.

Pillow comes with neonize. Whatever a stranger's picture does to it happens in a worker.
"""

import warnings
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Final

from PIL import Image, ImageOps, UnidentifiedImageError

from shared.errors import Rejected

THUMBNAIL: Final = (100, 100)
STICKER: Final = 512
# What Meta documents for static stickers; larger ones are shown by some clients only.
STICKER_BYTES: Final = 100_000
# A picture of more pixels is sent as it is, but not opened: it would take 4 bytes for each.
PIXELS: Final = 40_000_000


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture's size in pixels, 0 if unknown, and a JPEG of it that is small."""

    width: int = 0
    height: int = 0
    thumbnail: bytes = b""


def described(path: Path) -> Picture:
    """What can be told of a picture; nothing if it cannot be read. Blocks."""
    try:
        with _opened(path) as image:
            width, height = image.size
            if width * height > PIXELS:
                return Picture(width, height)
            image.draft("RGB", THUMBNAIL)
            upright = ImageOps.exif_transpose(image)
            upright.thumbnail(THUMBNAIL)
            thumbnail = _jpeg(upright)
            # Turning a picture upright may have changed which side is which.
            if (upright.width > upright.height) != (width > height):
                width, height = height, width
            return Picture(width, height, thumbnail)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Warning):
        return Picture()


def sticker(path: Path, mime_type: str) -> tuple[bytes, bool]:
    """A file as a WebP of 512 by 512 pixels, and whether it moves. Blocks.

    One that has that form already is taken as it is; another is scaled and centred on nothing.
    Raises ``Rejected`` if it cannot be made into one.
    """
    try:
        with _opened(path) as image:
            moves = bool(getattr(image, "is_animated", False))
            fits = mime_type == "image/webp" and image.size == (STICKER, STICKER)
            if fits:
                return path.read_bytes(), moves
            if moves:
                raise Rejected(
                    "An animated sticker must be a WebP of 512 by 512 pixels.", code="MEDIA_TYPE"
                )
            if image.width * image.height > PIXELS:
                raise Rejected("This picture is too large for a sticker.", code="MEDIA_TOO_LARGE")
            return _webp(image), False
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Warning) as error:
        raise Rejected("A sticker is made of a WebP, PNG or JPEG.", code="MEDIA_TYPE") from error


def _opened(path: Path) -> Image.Image:
    with warnings.catch_warnings():
        # Pillow warns of pictures that would take a gigabyte, and refuses twice that.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return Image.open(path, formats=("JPEG", "PNG", "WEBP", "GIF"))


def _jpeg(image: Image.Image) -> bytes:
    out = BytesIO()
    image.convert("RGB").save(out, "JPEG", quality=60, optimize=True)
    return out.getvalue()


def _webp(image: Image.Image) -> bytes:
    square = ImageOps.pad(
        ImageOps.exif_transpose(image).convert("RGBA"), (STICKER, STICKER), color=(0, 0, 0, 0)
    )
    out = BytesIO()
    for quality in (80, 60, 40, 20):
        out = BytesIO()
        square.save(out, "WEBP", quality=quality)
        if out.tell() <= STICKER_BYTES:
            break
    return out.getvalue()
