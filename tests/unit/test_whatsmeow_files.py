"""Files as WhatsApp takes them; ffmpeg is the real one where it is needed."""

import asyncio
import struct
from io import BytesIO
from pathlib import Path

import imageio_ffmpeg
import pytest
from PIL import Image

from services.sessions.engines.whatsmeow.worker import (
    conversion,
    files,
    pictures,
    recordings,
)
from services.sessions.engines.whatsmeow.worker.files import Prepared
from shared.contracts.content import Media
from shared.errors import Rejected
from shared.media import kinds
from tests.support.whatsapp_files import AUDIO, DOCUMENT, IMAGE, STICKER, VIDEO, VOICE, Sample

FFMPEG = Path(imageio_ffmpeg.get_ffmpeg_exe())


@pytest.fixture
def no_ffmpeg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))


@pytest.fixture
def ffmpeg(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("bin")
    (folder / "ffmpeg").symlink_to(FFMPEG)
    monkeypatch.setenv("PATH", str(folder))


async def prepared(sample: Sample, folder: Path, *, kind: str | None = None) -> Prepared:
    media = Media.model_validate({"kind": kind or sample.kind, "mime_type": sample.mime_type})
    return await files.prepared(media, sample.written(folder), sample.mime_type)


async def made(folder: Path, name: str, *options: str) -> Path:
    """A second of something, made by ffmpeg."""
    path = folder / name
    process = await asyncio.create_subprocess_exec(
        str(FFMPEG), "-loglevel", "error", "-f", "lavfi", *options, "-t", "1", "-y", str(path)
    )
    assert await process.wait() == 0
    return path


async def refusal(kind: str, path: Path, mime_type: str) -> str:
    with pytest.raises(Rejected) as refused:
        await files.prepared(
            Media.model_validate({"kind": kind, "mime_type": mime_type}), path, mime_type
        )
    return refused.value.code


@pytest.mark.usefixtures("no_ffmpeg")
@pytest.mark.parametrize("sample", [IMAGE, VIDEO, AUDIO, VOICE, DOCUMENT, STICKER])
async def test_what_whatsapp_plays_is_sent_as_it_is(sample: Sample, tmp_path: Path) -> None:
    file = await prepared(sample, tmp_path)
    assert (file.data, file.mime_type) == (sample.data, sample.mime_type)


@pytest.mark.usefixtures("no_ffmpeg")
async def test_what_is_told_beside_a_file(tmp_path: Path) -> None:
    image = (await prepared(IMAGE, tmp_path)).fields
    assert (image["width"], image["height"]) == (64, 64)
    thumbnail = image["JPEGThumbnail"]
    assert isinstance(thumbnail, bytes)
    assert Image.open(BytesIO(thumbnail)).format == "JPEG"
    assert (await prepared(VIDEO, tmp_path)).fields == {"seconds": 1}
    assert (await prepared(VOICE, tmp_path)).fields == {"PTT": True, "seconds": 1}
    assert (await prepared(VOICE, tmp_path, kind="audio")).fields == {"seconds": 1}
    assert (await prepared(DOCUMENT, tmp_path)).fields == {"fileName": "file", "title": "file"}


@pytest.mark.parametrize("kind", ["voice", "audio", "video"])
@pytest.mark.usefixtures("no_ffmpeg")
async def test_without_ffmpeg_what_must_be_converted_is_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.webm"
    path.write_bytes(b"\x1a\x45\xdf\xa3")
    assert await refusal(kind, path, "video/webm") == "CONVERSION_UNAVAILABLE"


@pytest.mark.usefixtures("ffmpeg")
async def test_a_recording_becomes_a_voice_note(tmp_path: Path) -> None:
    path = await made(tmp_path, "a.wav", "-i", "sine=frequency=440")
    media = Media(kind="voice", mime_type="audio/wav")
    file = await files.prepared(media, path, "audio/wav")
    again = tmp_path / "again.ogg"
    again.write_bytes(file.data)
    assert file.mime_type == "audio/ogg; codecs=opus"
    assert recordings.is_opus(again)
    assert file.fields == {"PTT": True, "seconds": 1}


@pytest.mark.usefixtures("ffmpeg")
async def test_audio_becomes_what_every_phone_plays(tmp_path: Path) -> None:
    path = await made(tmp_path, "a.flac", "-i", "sine=frequency=440")
    file = await files.prepared(Media(kind="audio", mime_type="audio/flac"), path, "audio/flac")
    assert (file.mime_type, file.data[4:8], file.fields) == ("audio/mp4", b"ftyp", {"seconds": 1})


@pytest.mark.usefixtures("ffmpeg")
async def test_a_film_becomes_an_mp4_with_a_picture(tmp_path: Path) -> None:
    path = await made(tmp_path, "a.webm", "-i", "testsrc=size=321x241:rate=5")
    file = await files.prepared(Media(kind="video", mime_type="video/webm"), path, "video/webm")
    assert (file.mime_type, file.data[4:8]) == ("video/mp4", b"ftyp")
    assert (file.fields["width"], file.fields["height"], file.fields["seconds"]) == (320, 240, 1)
    thumbnail = file.fields["JPEGThumbnail"]
    assert isinstance(thumbnail, bytes)
    assert Image.open(BytesIO(thumbnail)).width == 100


@pytest.mark.usefixtures("ffmpeg")
async def test_a_film_without_a_picture_is_sent_without_one(tmp_path: Path) -> None:
    assert "JPEGThumbnail" not in (await prepared(VIDEO, tmp_path)).fields


@pytest.mark.usefixtures("ffmpeg")
@pytest.mark.parametrize("mime_type", ["audio/wav", "video/webm"])
async def test_a_playlist_in_disguise_reads_no_other_file(mime_type: str, tmp_path: Path) -> None:
    secret = await made(tmp_path, "secret.wav", "-i", "sine=frequency=440")
    path = tmp_path / "list"
    path.write_text(f"#EXTM3U\n#EXTINF:1,\nfile://{secret}\n#EXT-X-ENDLIST\n")
    assert await refusal("voice", path, mime_type) == "MEDIA_TYPE"
    path.write_text(f"ffconcat version 1.0\nfile '{secret}'\n")
    assert await refusal("voice", path, mime_type) == "MEDIA_TYPE"


@pytest.mark.usefixtures("ffmpeg")
async def test_what_grows_when_it_is_converted_is_bounded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = await made(tmp_path, "a.wav", "-i", "sine=frequency=440")
    monkeypatch.setattr(conversion, "OUTPUT", kinds.RULES["voice"].largest)
    monkeypatch.setattr(
        conversion, "VOICE", ("-af", "aloop=loop=-1:size=48000", "-c:a", "pcm_s16le", "-f", "wav")
    )
    assert await refusal("voice", path, "audio/wav") == "MEDIA_TOO_LARGE"


@pytest.mark.parametrize(
    ("kind", "mime_type"),
    [("image", "image/heic"), ("image", "application/pdf"), ("sticker", "application/pdf")],
)
async def test_a_wrong_type_is_refused(kind: str, mime_type: str, tmp_path: Path) -> None:
    assert await refusal(kind, DOCUMENT.written(tmp_path), mime_type) == "MEDIA_TYPE"


@pytest.mark.usefixtures("ffmpeg")
async def test_a_type_that_cannot_be_converted_is_refused(tmp_path: Path) -> None:
    path = DOCUMENT.written(tmp_path)
    assert await refusal("voice", path, "application/pdf") == "MEDIA_TYPE"
    assert await refusal("voice", path, "audio/wav") == "MEDIA_TYPE"


@pytest.mark.parametrize("kind", ["image", "document"])
async def test_a_file_over_the_limit_is_refused(kind: kinds.MediaKind, tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(kinds.RULES[kind].largest + 1)
    assert await refusal(kind, path, "image/png") == "MEDIA_TOO_LARGE"


async def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    assert await refusal("document", tmp_path / "a", "text/plain") == "MEDIA_TYPE"


def picture(folder: Path, size: tuple[int, int], form: str = "PNG") -> Path:
    path = folder / f"a.{form.lower()}"
    Image.new("RGBA" if form == "PNG" else "RGB", size, "red").save(path, form)
    return path


@pytest.mark.parametrize("size", [(10, 10), (512, 512), (900, 300)])
def test_a_picture_is_fitted_into_a_sticker(tmp_path: Path, size: tuple[int, int]) -> None:
    data, moves = pictures.sticker(picture(tmp_path, size), "image/png")
    sticker = Image.open(BytesIO(data))
    assert (sticker.format, sticker.size, moves) == ("WEBP", (512, 512), False)
    assert len(data) <= pictures.STILL_BYTES


def test_what_is_a_sticker_already_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "a.webp"
    frames = [Image.new("RGB", (512, 512), colour) for colour in ("red", "blue")]
    frames[0].save(path, "WEBP", save_all=True, append_images=frames[1:])
    assert pictures.sticker(path, "image/webp") == (path.read_bytes(), True)


@pytest.mark.parametrize("form", ["WEBP", "GIF"])
def test_an_animation_is_fitted_into_a_sticker_and_still_moves(tmp_path: Path, form: str) -> None:
    path = tmp_path / "a"
    frames = [Image.new("RGB", (64, 32), colour) for colour in ("red", "blue", "green")]
    frames[0].save(path, form, save_all=True, append_images=frames[1:], duration=80)
    data, moves = pictures.sticker(path, f"image/{form.lower()}")
    sticker = Image.open(BytesIO(data))
    assert (sticker.format, sticker.size, moves) == ("WEBP", (512, 512), True)
    assert getattr(sticker, "n_frames", 1) == 3
    assert len(data) <= pictures.MOVING_BYTES


@pytest.mark.parametrize("form", ["WEBP", "GIF", "BMP", "TIFF"])
async def test_a_picture_that_phones_do_not_show_becomes_one_that_they_do(
    tmp_path: Path, form: str
) -> None:
    mime_type = f"image/{form.lower()}"
    path = picture(tmp_path, (40, 20), form)
    file = await files.prepared(Media(kind="image", mime_type=mime_type), path, mime_type)
    assert (file.mime_type, file.fields["width"], file.fields["height"]) == ("image/jpeg", 40, 20)
    assert Image.open(BytesIO(file.data)).format == "JPEG"


@pytest.mark.usefixtures("ffmpeg")
async def test_a_gif_becomes_a_film_that_repeats_itself(tmp_path: Path) -> None:
    path = await made(tmp_path, "a.gif", "-i", "testsrc=size=64x64:rate=5")
    file = await files.prepared(Media(kind="video", mime_type="image/gif"), path, "image/gif")
    assert (file.mime_type, file.fields["gifPlayback"]) == ("video/mp4", True)


@pytest.mark.usefixtures("ffmpeg")
@pytest.mark.parametrize(
    "mime_type", sorted(kinds.RULES["voice"].convertible | kinds.RULES["video"].convertible)
)
def test_every_type_that_is_taken_can_be_converted(mime_type: str) -> None:
    assert mime_type in conversion.FORMATS


def test_a_picture_that_would_fill_the_memory_is_not_opened(tmp_path: Path) -> None:
    path = picture(tmp_path, (16, 16))
    header = bytearray(path.read_bytes())
    header[16:24] = struct.pack(">II", 60_000, 60_000)
    path.write_bytes(header)
    assert pictures.described(path) == pictures.Picture()
    with pytest.raises(Rejected):
        pictures.sticker(path, "image/png")


def test_a_picture_that_lies_is_sent_without_a_small_one(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for data in (b"", b"\x89PNG\r\n\x1a\n", IMAGE.data[:200], b"GIF89a" + bytes(50)):
        path.write_bytes(data)
        assert pictures.described(path).thumbnail == b""


def test_a_picture_on_its_side_is_turned(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    image = Image.new("RGB", (400, 200), "red")
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(path, "JPEG", exif=exif)
    shown = pictures.described(path)
    assert (shown.width, shown.height) == (200, 400)
    assert Image.open(BytesIO(shown.thumbnail)).size == (50, 100)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"OggS",
        b"OggS" + bytes(24) + b"OpusHead",
        b"\0\0\0\x08moov",
        b"\0\0\0\x01moov" + b"\xff" * 8,
        b"\0\0\0\x10moov\0\0\0\x08mvhd",
        b"\0\0\0\0moov" + b"\0\0\0\x0cmvhd\0\0\0\0",
        VIDEO.data[:60],
        VOICE.data[:90],
    ],
)
def test_a_recording_that_lies_has_no_length(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(data)
    assert recordings.film(path) == recordings.Film()
    assert recordings.opus_seconds(path) in {0, 1}
    recordings.is_opus(path)
