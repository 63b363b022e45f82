"""Making recordings into what WhatsApp plays, by the program ``ffmpeg`` if it is there.

A stranger's file must not make it read other files or fetch anything, as playlists do, so it is
told what the file is (its type was checked by its first bytes), may use files alone, and may use
neither threads nor time without end.
"""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from shared.errors import Rejected, Transient

# By type, what ffmpeg calls the format.
FORMATS: Final = {
    "audio/aac": "aac",
    "audio/aiff": "aiff",
    "audio/amr": "amr",
    "audio/flac": "flac",
    "audio/mp4": "mov",
    "audio/mpeg": "mp3",
    "audio/ogg": "ogg",
    "audio/opus": "ogg",
    "audio/wav": "wav",
    "audio/webm": "matroska",
    "image/gif": "gif",
    "video/3gpp": "mov",
    "video/mp4": "mov",
    "video/mpeg": "mpeg",
    "video/ogg": "ogg",
    "video/quicktime": "mov",
    "video/webm": "matroska",
    "video/x-matroska": "matroska",
    "video/x-msvideo": "avi",
}
# WhatsApp records voice notes like this; others play as a mere file, or not at all.
VOICE: Final = ("-vn", "-ac", "1", "-ar", "48000", "-c:a", "libopus", "-b:a", "32k", "-f", "ogg")
AUDIO: Final = ("-vn", "-c:a", "aac", "-b:a", "128k", "-f", "ipod")
VIDEO: Final = (
    *("-c:v", "libx264", "-pix_fmt", "yuv420p", "-preset", "veryfast", "-crf", "26"),
    *("-vf", "scale=trunc(iw/2)*2:trunc(ih/2)*2,setsar=1", "-c:a", "aac", "-b:a", "128k"),
    *("-movflags", "+faststart", "-f", "mp4"),
)
STILL: Final = ("-frames:v", "1", "-an", "-vf", "scale=100:-2", "-c:v", "mjpeg", "-f", "mjpeg")

# Seconds; and bytes, a little more than what may be sent: a minute of silence is a small file that
# makes a large one, and what stops here is refused for its size.
PATIENCE: Final = 120.0
OUTPUT: Final = 17_000_000


def possible() -> bool:
    """Whether there is a program to convert with."""
    return shutil.which("ffmpeg") is not None


@asynccontextmanager
async def converted(path: Path, mime_type: str, options: Sequence[str]) -> AsyncIterator[Path]:
    """The file as ``options`` would have it; it is deleted on exit.

    Raises ``Rejected`` if there is no ffmpeg, if it does not know the type, or cannot read the
    file, and ``Transient`` if it took too long.
    """
    program = shutil.which("ffmpeg")
    if program is None:
        raise Rejected(
            f"WhatsApp does not play {mime_type} here, and without ffmpeg it cannot be converted: "
            "install ffmpeg, or send another type.",
            code="CONVERSION_UNAVAILABLE",
        )
    known = FORMATS.get(mime_type)
    if known is None:
        raise Rejected(
            f"{mime_type} cannot be converted: send it as a document.", code="MEDIA_TYPE"
        )
    with tempfile.TemporaryDirectory(prefix="waypost-") as folder:
        into = Path(folder) / "converted"
        await _run(
            program,
            *("-nostdin", "-hide_banner", "-loglevel", "error", "-threads", "1"),
            *("-protocol_whitelist", "file", "-f", known, "-i", f"file:{path}"),
            *("-map_metadata", "-1", "-fs", str(OUTPUT), *options, f"file:{into}"),
        )
        if not into.exists() or not into.stat().st_size:
            raise Rejected("This recording holds nothing that can be played.", code="MEDIA_TYPE")
        yield into


async def _run(program: str, *arguments: str) -> None:
    process = await asyncio.create_subprocess_exec(
        program,
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(PATIENCE):
            status = await process.wait()
    except TimeoutError as error:
        raise Transient("Converting the recording took too long.") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if status != 0:
        raise Rejected("This recording cannot be read.", code="MEDIA_TYPE")
