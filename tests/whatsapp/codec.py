"""Stanzas as bytes: WhatsApp's binary XML.

A frame is one byte of flags, of which bit 1 says that the rest is zlib, and one element. An element
is a list: its tag, its attributes' names and values in turn, and its content if there is one, so
that an even length means content. Every value starts with a byte that is either an index into a
dictionary of frequent words or says what follows: bytes of a length, digits packed two to a byte,
an address, a list. Source: whatsmeow ``binary/{encoder,decoder}.go``.
"""

import zlib
from typing import Final

from tests.whatsapp.jid import LIDS, PHONES, Jid
from tests.whatsapp.stanza import Attribute, Content, Stanza
from tests.whatsapp.words import RARER_WORDS, WORDS

COMPRESSED = 2

EMPTY = 0
DICTIONARIES = 236  # to 239: the byte after it is an index into one of four
AD_JID = 247  # an address with a device: domain, device, user
LIST_8 = 248
LIST_16 = 249
JID_PAIR = 250  # an address without a device: user, server
HEX_8 = 251
BINARY_8 = 252
BINARY_20 = 253
BINARY_32 = 254
NIBBLE_8 = 255

NIBBLES = "0123456789-."
HEX = "0123456789ABCDEF"
PACKED_AT_MOST = 127
FILLER = 15  # the second half of the last byte of an odd number of digits
ODD = 0x80

# The first byte of an AD_JID. Others are for accounts hosted by Meta, which nobody has here.
DOMAINS: Final = {PHONES: 0, LIDS: 1}
SERVERS: Final = {domain: server for server, domain in DOMAINS.items()}

CODES: Final[dict[str, bytes]] = {
    word: bytes([DICTIONARIES + number, index])
    for number, words in enumerate(RARER_WORDS)
    for index, word in enumerate(words)
} | {word: bytes([index]) for index, word in enumerate(WORDS) if word}


def encode(stanza: Stanza) -> bytes:
    """The bytes of a stanza, never compressed: nobody asks for it."""
    out = bytearray([0])
    _write_element(out, stanza)
    return bytes(out)


def decode(data: bytes) -> Stanza:
    """The stanza that the bytes spell; ``ValueError`` if they spell none."""
    body = zlib.decompress(data[1:]) if data[0] & COMPRESSED else data[1:]
    try:
        return _Reader(body).element()
    except (IndexError, UnicodeDecodeError) as error:
        raise ValueError(f"not a stanza: {data[:40].hex()}") from error


def _write_element(out: bytearray, stanza: Stanza) -> None:
    _write_list(out, 1 + 2 * len(stanza.attributes) + (stanza.content is not None))
    _write_text(out, stanza.tag)
    for name, value in stanza.attributes.items():
        _write_text(out, name)
        if isinstance(value, Jid):
            _write_jid(out, value)
        else:
            _write_text(out, value)
    if isinstance(stanza.content, bytes):
        _write_bytes(out, stanza.content)
    elif stanza.content is not None:
        _write_list(out, len(stanza.content))
        for child in stanza.content:
            _write_element(out, child)


def _write_list(out: bytearray, length: int) -> None:
    if length == 0:
        out.append(EMPTY)
    elif length < 1 << 8:
        out += bytes([LIST_8, length])
    else:
        out += bytes([LIST_16]) + length.to_bytes(2, "big")


def _write_text(out: bytearray, text: str) -> None:
    if code := CODES.get(text):
        out += code
    elif text and len(text) <= PACKED_AT_MOST and not text.strip(NIBBLES):
        _write_packed(out, NIBBLE_8, [NIBBLES.index(letter) for letter in text])
    elif text and len(text) <= PACKED_AT_MOST and not text.strip(HEX):
        _write_packed(out, HEX_8, [HEX.index(letter) for letter in text])
    else:
        _write_bytes(out, text.encode())


def _write_packed(out: bytearray, kind: int, halves: list[int]) -> None:
    odd = len(halves) % 2
    padded = [*halves, FILLER] if odd else halves
    out += bytes([kind, len(padded) // 2 | (ODD if odd else 0)])
    out += bytes(high << 4 | low for high, low in zip(padded[::2], padded[1::2], strict=True))


def _write_bytes(out: bytearray, data: bytes) -> None:
    length = len(data)
    if length < 1 << 8:
        out += bytes([BINARY_8, length])
    elif length < 1 << 20:
        out += bytes([BINARY_20]) + length.to_bytes(3, "big")
    else:
        out += bytes([BINARY_32]) + length.to_bytes(4, "big")
    out += data


def _write_jid(out: bytearray, jid: Jid) -> None:
    if jid.device:
        out += bytes([AD_JID, DOMAINS[jid.server], jid.device])
        _write_text(out, jid.user)
        return
    out.append(JID_PAIR)
    if jid.user:
        _write_text(out, jid.user)
    else:
        out.append(EMPTY)
    _write_text(out, jid.server)


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def element(self) -> Stanza:
        length = self._length(self._byte())
        tag = self._text()
        if length == 0 or not tag:
            raise ValueError("an element without a tag")
        attributes: dict[str, Attribute] = {}
        for _ in range((length - 1) // 2):
            name = self._text()
            attributes[name] = self._attribute()
        return Stanza(tag, attributes, None if length % 2 else self._content())

    def _content(self) -> Content:
        kind = self._byte()
        if kind in {LIST_8, LIST_16}:
            return [self.element() for _ in range(self._length(kind))]
        if kind == EMPTY:
            return None
        if (size := self._size(kind)) is not None:
            return self._take(size)
        return self._word(kind).encode()

    def _attribute(self) -> Attribute:
        kind = self._byte()
        if kind == JID_PAIR:
            user = self._text()
            return Jid(user, self._text())
        if kind == AD_JID:
            domain, device = self._byte(), self._byte()
            return Jid(self._text(), SERVERS[domain], device)
        return self._text_of(kind)

    def _text(self) -> str:
        return self._text_of(self._byte())

    def _text_of(self, kind: int) -> str:
        if (size := self._size(kind)) is not None:
            return self._take(size).decode()
        return self._word(kind)

    def _word(self, kind: int) -> str:
        if kind == EMPTY:
            return ""
        if kind in {NIBBLE_8, HEX_8}:
            return self._packed(NIBBLES if kind == NIBBLE_8 else HEX)
        if DICTIONARIES <= kind < DICTIONARIES + len(RARER_WORDS):
            return RARER_WORDS[kind - DICTIONARIES][self._byte()]
        return WORDS[kind]

    def _packed(self, alphabet: str) -> str:
        head = self._byte()
        halves = [half for byte in self._take(head & ~ODD) for half in (byte >> 4, byte & 15)]
        if head & ODD:
            halves.pop()
        return "".join(alphabet[half] for half in halves)

    def _size(self, kind: int) -> int | None:
        """The length of the bytes that follow, if ``kind`` says that bytes follow."""
        if kind == BINARY_8:
            return self._byte()
        if kind == BINARY_20:
            return int.from_bytes(self._take(3), "big") & 0xFFFFF
        if kind == BINARY_32:
            return int.from_bytes(self._take(4), "big")
        return None

    def _length(self, kind: int) -> int:
        if kind == LIST_8:
            return self._byte()
        if kind == LIST_16:
            return int.from_bytes(self._take(2), "big")
        if kind == EMPTY:
            return 0
        raise ValueError(f"no list starts with {kind}")

    def _byte(self) -> int:
        value = self._data[self._at]
        self._at += 1
        return value

    def _take(self, length: int) -> bytes:
        end = self._at + length
        if end > len(self._data):
            raise IndexError("past the end")
        taken = self._data[self._at : end]
        self._at = end
        return taken
