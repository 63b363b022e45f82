"""Cursors lead back to where they came from, and nowhere else."""

import base64
from datetime import UTC, datetime
from uuid import UUID

import orjson
import pytest
from pydantic import TypeAdapter, ValidationError

from shared.errors import Rejected
from shared.web.pagination import Keyset, PageQuery

Position = tuple[datetime, UUID]
MESSAGES = Keyset("messages", TypeAdapter(Position))
HERE: Position = (datetime(2026, 1, 15, 10, 30, 0, 123_456, UTC), UUID(int=7))


def encoded(value: object) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(value)).decode().rstrip("=")


def test_a_cursor_leads_back_to_its_position_to_the_microsecond() -> None:
    cursor = MESSAGES.encode(HERE)

    assert MESSAGES.decode(cursor) == HERE
    assert cursor.replace("-", "").replace("_", "").isalnum()


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "x",
        "é",
        "****",
        "AAAA",
        encoded({"v": 1}),
        encoded([1, "messages"]),
        encoded([2, "messages", ["2026-01-15T10:30:00Z", str(UUID(int=7))]]),
        encoded([1, "webhooks", ["2026-01-15T10:30:00Z", str(UUID(int=7))]]),
        encoded([1, "messages", ["2026-01-15T10:30:00Z"]]),
        encoded([1, "messages", ["soon", str(UUID(int=7))]]),
        encoded([1, "messages", None]),
        MESSAGES.encode(HERE)[:-4],
        MESSAGES.encode(HERE) + "====",
    ],
)
def test_anything_else_is_refused_with_what_to_do(cursor: str) -> None:
    with pytest.raises(Rejected) as raised:
        MESSAGES.decode(cursor)

    assert raised.value.data is not None
    assert "nextCursor" in str(raised.value.data["fields"])


def test_one_row_too_many_says_that_there_is_more() -> None:
    rows = [(datetime(2026, 1, day, tzinfo=UTC), UUID(int=day)) for day in (3, 2, 1)]

    shown, page = MESSAGES.page(rows, limit=2, position=lambda row: row)

    assert shown == rows[:2]
    assert (page.limit, page.has_more) == (2, True)
    assert page.next_cursor is not None
    assert MESSAGES.decode(page.next_cursor) == rows[1]


@pytest.mark.parametrize("rows", [[], [HERE], [HERE, HERE]])
def test_the_last_page_has_no_cursor(rows: list[Position]) -> None:
    shown, page = MESSAGES.page(rows, limit=2, position=lambda row: row)

    assert shown == rows
    assert (page.next_cursor, page.has_more) == (None, False)


@pytest.mark.parametrize("limit", [0, 101, -1])
def test_a_page_has_between_1_and_100_items(limit: int) -> None:
    assert PageQuery().limit == 50
    with pytest.raises(ValidationError):
        PageQuery(limit=limit)
