"""Which part of a file a caller wants (RFC 9110, section 14)."""

import re
from dataclasses import dataclass
from typing import Final

_RANGE: Final = re.compile(r"bytes\s*=\s*(\d{0,18})\s*-\s*(\d{0,18})\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Part:
    """The bytes from ``start`` up to but not including ``end``."""

    start: int
    end: int

    def of(self, size: int) -> str:
        """As ``Content-Range`` says it."""
        return f"bytes {self.start}-{self.end - 1}/{size}"


class Outside(ValueError):
    """Nothing of the file lies in the range that is wanted."""


def wanted(header: str | None, size: int) -> Part | None:
    """The part that ``Range`` asks for; ``None`` for all of it.

    What cannot be understood, and several parts at once, are ignored, as the standard allows.
    Raises ``Outside`` for a part that begins behind the end.
    """
    asked = _RANGE.fullmatch(header.strip()) if header is not None else None
    if asked is None:
        return None
    first, last = asked[1], asked[2]
    if not first and not last:
        return None
    if not first:
        if int(last) == 0 or size == 0:
            raise Outside
        return Part(max(0, size - int(last)), size)
    if last and int(last) < int(first):
        return None
    if int(first) >= size:
        raise Outside
    return Part(int(first), min(int(last) + 1, size) if last else size)
