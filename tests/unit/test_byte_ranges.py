"""Parts of files."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.domain.byte_ranges import Outside, Part, wanted


@pytest.mark.parametrize(
    ("header", "part"),
    [
        ("bytes=0-0", Part(0, 1)),
        ("bytes=0-9", Part(0, 10)),
        ("bytes=3-", Part(3, 10)),
        ("bytes=3-99", Part(3, 10)),
        ("bytes=-4", Part(6, 10)),
        ("bytes=-99", Part(0, 10)),
        (" Bytes = 2 - 5 ", Part(2, 6)),
    ],
)
def test_one_part_is_understood(header: str, part: Part) -> None:
    assert wanted(header, 10) == part


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=5-2",
        "items=0-1",
        "bytes=0-1,3-4",
        "bytes=a-b",
    ],
)
def test_what_is_not_understood_asks_for_all(header: str | None) -> None:
    assert wanted(header, 10) is None


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=10-20", "bytes=-0"])
def test_a_part_behind_the_end_is_not_there(header: str) -> None:
    with pytest.raises(Outside):
        wanted(header, 10)


def test_an_empty_file_has_no_parts() -> None:
    for header in ("bytes=0-", "bytes=-1", "bytes=0-0"):
        with pytest.raises(Outside):
            wanted(header, 0)


def test_a_part_is_told_as_the_standard_has_it() -> None:
    assert Part(2, 6).of(10) == "bytes 2-5/10"


@given(st.text(alphabet="bytes=0123456789-, ", max_size=60), st.integers(0, 1000))
def test_a_part_lies_always_within_the_file(header: str, size: int) -> None:
    try:
        part = wanted(header, size)
    except Outside:
        return
    if part is not None:
        assert 0 <= part.start < part.end <= size
