"""Names of files."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.domain.filenames import disposition, safe


@pytest.mark.parametrize(
    ("given_name", "kept"),
    [
        ("offer.pdf", "offer.pdf"),
        ("Angebot für Jürgen.pdf", "Angebot für Jürgen.pdf"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\ada\\offer.pdf", "offer.pdf"),
        ("a\r\nSet-Cookie: x=1.txt", "aSet-Cookie x=1.txt"),
        ('of"fer.txt', "offer.txt"),
        ("exe\u202egpj.scr", "exegpj.scr"),
        ("nul\0.txt", "nul.txt"),
        ("  .hidden. ", "hidden"),
        ("..", None),
        ("/", None),
        ("", None),
        (None, None),
    ],
)
def test_a_name_is_kept_without_what_could_do_harm(
    given_name: str | None, kept: str | None
) -> None:
    assert safe(given_name) == kept


def test_a_name_that_is_too_long_keeps_its_ending() -> None:
    kept = safe("x" * 500 + ".pdf")
    assert kept == "x" * 196 + ".pdf"
    assert safe("." + "y" * 500) == "y" * 200


@given(st.text(max_size=400))
def test_whatever_the_name_its_header_is_one_line_of_ascii(name: str) -> None:
    header = disposition(safe(name))
    assert header.isascii()
    assert header.isprintable()
    assert header.startswith("attachment")


def test_old_clients_get_a_plain_name_and_new_ones_the_real_one() -> None:
    assert disposition("für 100%.pdf") == (
        "attachment; filename=\"f_r 100_.pdf\"; filename*=UTF-8''f%C3%BCr%20100%25.pdf"
    )
    assert disposition(None) == "attachment"
