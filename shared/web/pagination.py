"""Lists by keyset: a cursor says after which row the next page begins, so rows that come or go in
between neither repeat nor hide others.
"""

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Annotated, Generic, TypeVar

import orjson
from pydantic import Field, TypeAdapter, ValidationError

from shared.errors import Rejected
from shared.web.body import invalid
from shared.web.envelope import Pagination
from shared.web.schemas import ApiModel

DEFAULT_LIMIT = 50
LARGEST_LIMIT = 100

_VERSION = 1
_LONGEST_CURSOR = 512
_PARTS = 3

# What the database takes for a number, whoever has made up the cursor that it stands in.
Number = Annotated[int, Field(strict=True, ge=-(2**63), lt=2**63)]

PositionT = TypeVar("PositionT")
RowT = TypeVar("RowT")


class PageQuery(ApiModel):
    """The query of every list; a route's own filters derive from it."""

    limit: int = Field(
        default=DEFAULT_LIMIT,
        ge=1,
        le=LARGEST_LIMIT,
        description="How many to give at most.",
        examples=[DEFAULT_LIMIT],
    )
    cursor: str | None = Field(
        default=None,
        max_length=_LONGEST_CURSOR,
        description="`nextCursor` of the page before; leave it out for the first page.",
    )


class Keyset(Generic[PositionT]):
    """The cursors of one list: what they hold, and for which list they are good.

    ``name`` goes into the cursor, so that a cursor of one list is not taken by another whose
    position happens to have the same form. Opaque is not secret: callers can decode it, so a
    position holds nothing but what the rows show anyway, and nothing is concluded from it.
    """

    def __init__(self, name: str, position: TypeAdapter[PositionT]) -> None:
        self._name = name
        self._position = position

    def encode(self, position: PositionT) -> str:
        """The cursor that leads to what comes after ``position``."""
        inner = self._position.dump_json(position)
        raw = orjson.dumps([_VERSION, self._name, orjson.Fragment(inner)])
        return base64.urlsafe_b64encode(raw).decode().rstrip("=")

    def decode(self, cursor: str, *, field: str = "cursor") -> PositionT:
        """The position; raises ``Rejected`` about ``field`` for what is no cursor of this list."""
        try:
            padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
            raw = base64.b64decode(padded, altchars=b"-_", validate=True)
            parts = orjson.loads(raw)
            if not isinstance(parts, list) or len(parts) != _PARTS:
                raise _not_a_cursor(field)
            if parts[0] != _VERSION or parts[1] != self._name:
                raise _not_a_cursor(field)
            return self._position.validate_json(orjson.dumps(parts[2]))
        except (UnicodeEncodeError, binascii.Error, orjson.JSONDecodeError, ValidationError):
            raise _not_a_cursor(field) from None

    def page(
        self, rows: Sequence[RowT], *, limit: int, position: Callable[[RowT], PositionT]
    ) -> tuple[Sequence[RowT], Pagination]:
        """What of ``rows`` to show, and how to go on.

        ``rows`` were asked for with ``limit + 1``: the one too many says that there is more.
        """
        shown = rows[:limit]
        has_more = len(rows) > limit
        cursor = self.encode(position(shown[-1])) if has_more and shown else None
        return shown, Pagination(limit=limit, next_cursor=cursor, has_more=has_more)


def _not_a_cursor(field: str) -> Rejected:
    return invalid(
        {field: "is not a cursor of this list; take `nextCursor` of a page, or leave it out"}
    )
