"""The first bytes of files, as cameras, phones and office programs write them."""

import struct
import zlib


def png(text: str = "") -> bytes:
    """A whole picture of one pixel; another ``text`` makes another file."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0))
        + (chunk(b"tEXt", b"Comment\0" + text.encode()) if text else b"")
        + chunk(b"IDAT", zlib.compress(b"\0\xff\0\0"))
        + chunk(b"IEND", b"")
    )


def iso(brand: bytes) -> bytes:
    """A file of the ISO base media family: MP4 and its relatives."""
    return b"\0\0\0\x20ftyp" + brand + b"\0\0\2\0isomiso2avc1mp41" + b"\0\0\0\x08free"


def ogg(codec: bytes) -> bytes:
    """The first page of an Ogg file."""
    return b"OggS\0\2" + bytes(20) + b"\1" + bytes([len(codec)]) + codec


JPEG = b"\xff\xd8\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0\xff\xdb\0C\0" + bytes(range(64))
JPEG_OF_A_PHONE = b"\xff\xd8\xff\xe1\x2f\xfeExif\0\0MM\0*" + bytes(64)
WEBP = b"RIFF\x24\0\0\0WEBPVP8 " + bytes(20)
GIF = b"GIF89a\1\0\1\0\x80\0\0" + bytes(20)
PDF = b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n"
PDF_OF_LETTERS = b"%PDF-1.4\n1 0 obj\n<< /Type /Catalog >>\nendobj\n"
MP4 = iso(b"isom")
VOICE = ogg(b"OpusHead\1\1\x38\1\x80\xbb\0\0\0\0\0")
WAV = b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0"
MP3 = b"ID3\4\0\0\0\0\0\x23TSSE\0\0\0\x0f" + bytes(40)
MP3_BARE = b"\xff\xfb\x90\x64" + bytes(200)
MP3_OF_OLD = b"\xff\xf3\x40\xc4" + bytes(200)
AAC = b"\xff\xf1\x50\x80\x02\x1f\xfc" + bytes(40)
AMR = b"#!AMR\n\x3c\x91\x17\x16\xbe\x66"
ZIP = b"PK\3\4\x14\0\0\0\x08\0" + bytes(40)
OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(200)
WEBM = b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\1\x42\xf7\x81\1\x42\xf2\x81\4\x42\x82\x84webm"
MATROSKA = b"\x1a\x45\xdf\xa3\xa3\x42\x82\x88matroska" + bytes(20)
PROGRAM = b"\x7fELF\2\1\1" + bytes(60)
PROGRAM_OF_WINDOWS = b"MZ\x90\0\3\0\0\0\4\0\0\0\xff\xff" + bytes(60)
