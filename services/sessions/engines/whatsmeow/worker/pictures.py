"""Pictures: their size, a small one to show meanwhile, and stickers of WhatsApp's form.

Pillow comes with neonize. Whatever a stranger's picture does to it happens in a worker.
"""

import warnings
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Final

from PIL import Image, ImageOps, ImageSequence, UnidentifiedImageError

from shared.errors import Rejected

THUMBNAIL: Final = (100, 100)
STICKER: Final = 512
# What Meta documents for stickers; larger ones are shown by some clients only.
STILL_BYTES: Final = 100 * 1024
MOVING_BYTES: Final = 500 * 1024
# Of an animation: a few seconds, and at most 60 MB of memory.
FRAMES: Final = 60
# A picture of more pixels is sent as it is, but not opened: it would take 4 bytes for each.
PIXELS: Final = 40_000_000
# What Pillow raises of files that are broken, or made to break it.
_UNREADABLE: Final = (
    UnidentifiedImageError,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
)


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
            thumbnail = _jpeg(upright, quality=60)
            # Turning a picture upright may have changed which side is which.
            if (upright.width > upright.height) != (width > height):
                width, height = height, width
            return Picture(width, height, thumbnail)
    except _UNREADABLE:
        return Picture()


def photo(path: Path) -> bytes:
    """A picture as a JPEG; of one that moves, the first. Blocks.

    Raises ``Rejected`` if it cannot be read.
    """
    try:
        with _opened(path) as image:
            _small_enough(image)
            return _jpeg(ImageOps.exif_transpose(image), quality=90)
    except _UNREADABLE as error:
        raise Rejected("This picture cannot be read.", code="MEDIA_TYPE") from error


def sticker(path: Path, mime_type: str) -> tuple[bytes, bool]:
    """A file as a WebP of 512 by 512 pixels, and whether it moves. Blocks.

    One that has that form already is taken as it is; another is scaled and centred on nothing.
    Raises ``Rejected`` if it cannot be made into one.
    """
    try:
        with _opened(path) as image:
            moves = getattr(image, "n_frames", 1) > 1
            if mime_type == "image/webp" and image.size == (STICKER, STICKER):
                return path.read_bytes(), moves
            _small_enough(image)
            return _webp(image, moves=moves), moves
    except _UNREADABLE as error:
        raise Rejected("This picture cannot be read.", code="MEDIA_TYPE") from error


def _opened(path: Path) -> Image.Image:
    with warnings.catch_warnings():
        # Pillow warns of pictures that would take a gigabyte, and refuses twice that.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return Image.open(path, formats=("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"))


def _small_enough(image: Image.Image) -> None:
    if image.width * image.height > PIXELS:
        raise Rejected(
            f"This picture has more than {PIXELS // 1_000_000} million pixels.",
            code="MEDIA_TOO_LARGE",
        )


def _jpeg(image: Image.Image, *, quality: int) -> bytes:
    """What is transparent becomes white, as on a phone's bright background."""
    out = BytesIO()
    if image.has_transparency_data:
        solid = image.convert("RGBA")
        image = Image.new("RGBA", solid.size, "white")
        image.alpha_composite(solid)
    image.convert("RGB").save(out, "JPEG", quality=quality, optimize=True)
    return out.getvalue()


def _webp(image: Image.Image, *, moves: bool) -> bytes:
    """As good as its size allows; at the worst, it is too large all the same."""
    frames, times = [], []
    for frame in ImageSequence.Iterator(image):
        frames.append(_square(frame))
        times.append(int(frame.info.get("duration", 0)) or 100)
        if not moves or len(frames) == FRAMES:
            break
    out = BytesIO()
    for quality in (80, 60, 40, 20):
        out = BytesIO()
        more = {"save_all": True, "append_images": frames[1:], "duration": times, "loop": 0}
        frames[0].save(out, "WEBP", quality=quality, **(more if moves else {}))
        if out.tell() <= (MOVING_BYTES if moves else STILL_BYTES):
            break
    return out.getvalue()


def _square(image: Image.Image) -> Image.Image:
    upright = ImageOps.exif_transpose(image).convert("RGBA")
    return ImageOps.pad(upright, (STICKER, STICKER), color=(0, 0, 0, 0))
