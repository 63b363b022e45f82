"""Words that messages are found by, in the languages that people write."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.messaging.words import MOST_WORDS, hashes, of_content, of_query


def found(text: str, query: str) -> bool:
    return set(of_query(query)) <= set(of_content({"kind": "text", "text": text}))


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("Your INVOICE for March", "march invoice"),
        ("Straße", "STRASSE"),
        ("ﬁne \uff21\uff4c\uff4c", "fine all"),
        ("Größe: 42cm!", "größe"),
        ("l\u2019homme et l'eau", "homme eau"),
        ("don't", "don't"),
        ("Привет, мир", "ПРИВЕТ"),
        ("नमस्ते दुनिया", "नमस्ते"),
        ("مرحبا بالعالم", "بالعالم"),
        ("我们明天见面吧", "明天"),
        ("我们明天见面吧", "见"),
        ("東京タワーで会う", "タワー"),
        ("สวัสดีครับ", "สวัสดี"),
        ("Bestellung 2024-117", "117"),
        ("see https://example.com/a-b", "example.com"),
        ("İstanbul", "i̇stanbul"),
    ],
)
def test_what_somebody_would_look_for_is_found(text: str, query: str) -> None:
    assert found(text, query)


@pytest.mark.parametrize(
    ("text", "query"), [("invoice", "voice"), ("我们明天见面", "明见"), ("one two", "one three")]
)
def test_what_is_not_there_is_not_found(text: str, query: str) -> None:
    assert not found(text, query)


def test_all_that_a_content_says_is_indexed_and_nothing_else() -> None:
    content = {"kind": "poll", "question": "Lunch?", "options": ("Soup", "Salad"), "url": "http"}
    assert set(of_content(content)) == {"lunch", "soup", "salad"}
    assert of_content({"kind": "image", "caption": "A cat", "filename": "cat.png"}) == [
        "a",
        "cat",
        "png",
    ]


@given(st.text(max_size=200))
def test_any_text_is_found_by_itself(text: str) -> None:
    assert found(text, text)


def test_the_words_of_a_text_are_bounded() -> None:
    endless = " ".join(f"word{number}" for number in range(2000)) + " " + "x" * 1000
    assert len(of_content({"text": endless})) == MOST_WORDS
    assert found("x" * 1000, "x" * 1000)


def test_hashes_say_nothing_without_the_key() -> None:
    [one], [other] = hashes(b"a key", ["word"]), hashes(b"another", ["word"])
    assert one != other
    assert hashes(b"a key", ["word"]) == [one]
    assert -(2**63) <= one < 2**63
