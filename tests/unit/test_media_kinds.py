"""What a file is, and what WhatsApp takes it for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.media import kinds
from shared.media.kinds import KINDS, MediaTooLarge, WrongMediaType
from tests.support import samples

DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("head", "mime_type"),
    [
        (samples.JPEG, "image/jpeg"),
        (samples.JPEG_OF_A_PHONE, "image/jpeg"),
        (samples.png(), "image/png"),
        (samples.WEBP, "image/webp"),
        (samples.GIF, "image/gif"),
        (b"BM\x46\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0", "image/bmp"),
        (b"II*\0\x08\0\0\0", "image/tiff"),
        (samples.iso(b"heic"), "image/heic"),
        (samples.MP4, "video/mp4"),
        (samples.iso(b"mp42"), "video/mp4"),
        (samples.iso(b"avc1"), "video/mp4"),
        (samples.iso(b"M4A "), "audio/mp4"),
        (samples.iso(b"qt  "), "video/quicktime"),
        (samples.iso(b"3gp5"), "video/3gpp"),
        (samples.WEBM, "video/webm"),
        (samples.MATROSKA, "video/x-matroska"),
        (b"RIFF\x24\0\0\0AVI LIST" + bytes(20), "video/x-msvideo"),
        (samples.VOICE, "audio/ogg"),
        (samples.ogg(b"\x01vorbis"), "audio/ogg"),
        (samples.ogg(b"\x80theora"), "video/ogg"),
        (samples.WAV, "audio/wav"),
        (samples.MP3, "audio/mpeg"),
        (samples.MP3_BARE, "audio/mpeg"),
        (samples.MP3_OF_OLD, "audio/mpeg"),
        (samples.AAC, "audio/aac"),
        (samples.AMR, "audio/amr"),
        (b"fLaC\0\0\0\x22" + bytes(40), "audio/flac"),
        (samples.PDF, "application/pdf"),
        (samples.PDF_OF_LETTERS, "application/pdf"),
        (samples.ZIP, "application/zip"),
        (samples.OLE, "application/msword"),
        (b"BEGIN:VCARD\nVERSION:3.0\n", "text/vcard"),
        (b"Words, and nothing else.\n", "text/plain"),
        ("Grüße aus Köln".encode(), "text/plain"),
        (bytes(range(1, 200)), kinds.OCTETS),
        (b"", kinds.OCTETS),
    ],
)
def test_a_type_is_told_by_the_first_bytes(head: bytes, mime_type: str) -> None:
    assert kinds.type_of(head) == mime_type
    assert kinds.type_of(head, "video/x-none-of-these") == mime_type


@pytest.mark.parametrize("head", [samples.PROGRAM, samples.PROGRAM_OF_WINDOWS, samples.ZIP])
@pytest.mark.parametrize("declared", ["image/png", "image/jpeg", "audio/ogg", "application/pdf"])
def test_nothing_becomes_what_it_is_not_by_saying_so(head: bytes, declared: str) -> None:
    assert kinds.type_of(head, declared) != declared


@pytest.mark.parametrize(
    ("head", "declared", "mime_type"),
    [
        (samples.ZIP, DOCX, DOCX),
        (samples.ZIP, DOCX.upper() + "; version=1", DOCX),
        (samples.ZIP, "image/png", "application/zip"),
        (b"a,b\n1,2\n", "text/csv", "text/csv"),
        (b'{"a": 1}', "application/json", "application/json"),
        (b'{"a": 1}', "image/png", "text/plain"),
        (b"a,b\n1,2\n", "text/html", "text/plain"),
    ],
)
def test_where_the_bytes_leave_a_choice_the_declared_type_decides(
    head: bytes, declared: str, mime_type: str
) -> None:
    assert kinds.type_of(head, declared) == mime_type


@pytest.mark.parametrize("words", ["BM is a bank", "ID3 tags are what", "MZ hello", "CWS: done"])
def test_words_that_begin_like_a_file_are_words(words: str) -> None:
    assert kinds.type_of(words.encode()) == "text/plain"


def test_a_text_that_is_cut_within_a_character_is_still_a_text() -> None:
    assert kinds.type_of(("ü" * kinds.HEAD).encode()[: kinds.HEAD - 1]) == "text/plain"


@pytest.mark.parametrize(
    "tag", [b"<!DOCTYPE html><html>", b"<html><script>", b"<?xml version='1.0'?><svg "]
)
def test_pages_are_never_pictures(tag: bytes) -> None:
    assert not kinds.type_of(tag, "image/svg+xml").startswith("image/")


@given(st.binary(max_size=300), st.none() | st.text(max_size=40))
def test_whatever_comes_gets_one_plain_type(head: bytes, declared: str | None) -> None:
    family, slash, name = kinds.type_of(head, declared).partition("/")
    assert family
    assert slash
    assert name
    assert ";" not in name


@pytest.mark.parametrize(
    ("kind", "head", "converted"),
    [
        ("image", samples.JPEG, False),
        ("image", samples.png(), False),
        ("image", samples.WEBP, True),
        ("video", samples.MP4, False),
        ("video", samples.WEBM, True),
        ("audio", samples.MP3, False),
        ("audio", samples.WAV, True),
        ("voice", samples.VOICE, False),
        ("voice", samples.MP3, True),
        ("document", samples.PDF, False),
        ("document", samples.JPEG, False),
        ("document", samples.PROGRAM, False),
        ("sticker", samples.WEBP, False),
        ("sticker", samples.png(), True),
    ],
)
def test_each_kind_takes_its_own_and_what_can_be_made_so(
    kind: kinds.MediaKind, head: bytes, converted: bool
) -> None:
    assert kinds.needs_conversion(kind, kinds.check(kind, head)) is converted


@pytest.mark.parametrize(
    ("kind", "head"),
    [
        ("image", samples.PDF),
        ("image", samples.MP4),
        ("image", samples.PROGRAM),
        ("image", b""),
        ("video", samples.MP3),
        ("audio", samples.JPEG),
        ("voice", samples.MP4),
        ("sticker", samples.VOICE),
    ],
)
def test_what_is_of_another_kind_is_refused_with_what_would_do(
    kind: kinds.MediaKind, head: bytes
) -> None:
    with pytest.raises(WrongMediaType, match="send it as document") as told:
        kinds.check(kind, head, "image/png")
    assert told.value.code == "MEDIA_TYPE"
    assert told.value.data is not None
    assert told.value.data["accepted"]


@pytest.mark.parametrize(
    ("kind", "mime_type", "largest"),
    [
        ("image", "image/jpeg", 16 * MIB),
        ("video", "video/mp4", 16 * MIB),
        ("voice", "audio/ogg", 16 * MIB),
        ("document", "application/pdf", 100 * MIB),
        ("sticker", "image/webp", 500 * 1024),
        ("sticker", "image/png", 16 * MIB),
    ],
)
def test_a_kind_takes_no_more_bytes_than_whatsapp_does(
    kind: kinds.MediaKind, mime_type: str, largest: int
) -> None:
    kinds.require(kind, mime_type, largest)
    with pytest.raises(MediaTooLarge) as told:
        kinds.require(kind, mime_type, largest + 1)
    assert (told.value.code, told.value.data) == (
        "MEDIA_TOO_LARGE",
        {"size": largest + 1, "maxBytes": largest},
    )


def test_every_kind_has_a_rule() -> None:
    assert set(KINDS) == set(kinds.RULES)
