"""Binary XML: what is written is read again, and what clients write is understood."""

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as some

from tests.whatsapp import codec
from tests.whatsapp.jid import GROUPS, LIDS, PHONES, SERVER, Jid
from tests.whatsapp.stanza import Attribute, Stanza
from tests.whatsapp.words import RARER_WORDS, WORDS

jids = some.builds(
    Jid,
    some.from_regex(r"[0-9]{5,15}", fullmatch=True),
    some.sampled_from([PHONES, LIDS]),
    some.integers(0, 255),
)
texts = some.text(min_size=1, max_size=300) | some.sampled_from(WORDS[1:])
attributes = some.dictionaries(some.sampled_from(["id", "to", "x-new"]), texts | jids, max_size=3)
leaves = some.builds(Stanza, texts, attributes, some.none() | some.binary(max_size=400))
stanzas = some.recursive(
    leaves,
    lambda inner: some.builds(Stanza, texts, attributes, some.lists(inner, min_size=1, max_size=4)),
    max_leaves=8,
)


def shape(stanza: Stanza) -> tuple[str, dict[str, Attribute], object]:
    inside = stanza.content
    return (
        stanza.tag,
        stanza.attributes,
        [shape(child) for child in inside] if isinstance(inside, list) else inside,
    )


@given(stanzas)
def test_what_is_written_is_read_again(stanza: Stanza) -> None:
    assert shape(codec.decode(codec.encode(stanza))) == shape(stanza)


def test_compressed_frames_are_understood() -> None:
    plain = codec.encode(Stanza("presence", {"type": "available"}))
    compressed = bytes([codec.COMPRESSED]) + zlib.compress(plain[1:])
    assert codec.decode(compressed).text("type") == "available"


def test_a_word_of_the_dictionary_is_content_too() -> None:
    """whatsmeow writes content that is text like any other text, so a frequent word as its code."""
    word = bytes([WORDS.index("receipt")])
    element = bytes([0, codec.LIST_8, 2]) + codec.CODES["type"] + word
    assert codec.decode(element).data == b"receipt"


def test_the_server_is_an_address_without_a_user() -> None:
    stanza = codec.decode(codec.encode(Stanza("iq", {"to": SERVER})))
    assert stanza.jid("to") == SERVER
    assert str(stanza.jid("to")) == "s.whatsapp.net"


@pytest.mark.parametrize(
    "damaged", [b"\0", b"\0\xf8", b"\0\xf8\x01", b"\0\xf8\x02\xfc\x05ab", b"\0\0"]
)
def test_bytes_that_are_no_stanza_are_refused(damaged: bytes) -> None:
    with pytest.raises(ValueError, match=r"stanza|element"):
        codec.decode(damaged)


@pytest.mark.parametrize(
    ("text", "jid"),
    [
        ("491510000001@s.whatsapp.net", Jid("491510000001", PHONES)),
        ("491510000001:7@s.whatsapp.net", Jid("491510000001", PHONES, 7)),
        ("123:4@lid", Jid("123", LIDS, 4)),
        ("120363@g.us", Jid("120363", GROUPS)),
        ("s.whatsapp.net", SERVER),
    ],
)
def test_an_address_is_spelled_as_it_is_read(text: str, jid: Jid) -> None:
    assert Jid.parse(text) == jid
    assert str(jid) == text


def test_the_dictionaries_are_whole() -> None:
    assert len(WORDS) == codec.DICTIONARIES
    assert [len(words) for words in RARER_WORDS] == [256] * 4
    assert len(codec.CODES) == len(WORDS) - 1 + 4 * 256
