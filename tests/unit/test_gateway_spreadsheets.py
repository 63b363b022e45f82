"""Lines of CSV: whole, and harmless in a spreadsheet."""

import csv
import io

import pytest

from services.gateway.domain.spreadsheets import line


@pytest.mark.parametrize("text", ["", "plain", 'a "word"', "a, b", "two\nlines", "ä", "a=b", "1-2"])
def test_what_is_harmless_is_read_as_it_was(text: str) -> None:
    assert list(csv.reader(io.StringIO(line([text, "x"]), newline=""))) == [[text, "x"]]


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "  =1", "\n=1"])
def test_what_a_spreadsheet_would_run_is_quoted(text: str) -> None:
    assert line([text]).startswith("\"'")
    assert list(csv.reader(io.StringIO(line([text]), newline=""))) == [[f"'{text}"]]


def test_nothing_is_an_empty_cell_and_lines_end_as_the_standard_says() -> None:
    assert line(["a", None, 3]) == "a,,3\r\n"
