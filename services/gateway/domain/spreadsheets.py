"""Lines of CSV (RFC 4180) that a spreadsheet does not take for formulas."""

from collections.abc import Iterable
from typing import Final

# What makes a cell a formula, also behind the white space that some programs skip.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


def line(cells: Iterable[object]) -> str:
    """One line. Nothing is an empty cell."""
    return ",".join(_cell("" if cell is None else str(cell)) for cell in cells) + "\r\n"


def _cell(text: str) -> str:
    if text.lstrip(" \n").startswith(_FORMULA):
        text = f"'{text}"
    elif not any(mark in text for mark in ',"\r\n'):
        return text
    quoted = text.replace('"', '""')
    return f'"{quoted}"'
