"""Every answer has one shape, and every time one form."""

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

import orjson
import pytest

from shared.web.envelope import Pagination, dumps, failed, instant, listed, respond, succeeded
from shared.web.schemas import ApiView, Instant

MOMENT = datetime(2026, 1, 15, 10, 30, 0, 123_987, UTC)


class Status(StrEnum):
    SENT = "sent"


class Shown(ApiView):
    message_id: UUID
    created_at: Instant
    status: Status = Status.SENT


def test_a_success_is_an_envelope_around_the_data() -> None:
    shown = Shown(message_id=UUID(int=1), created_at=MOMENT)

    assert orjson.loads(succeeded(shown)) == {
        "success": True,
        "data": {
            "messageId": "00000000-0000-0000-0000-000000000001",
            "createdAt": "2026-01-15T10:30:00.123Z",
            "status": "sent",
        },
    }


def test_models_may_be_anywhere_in_plain_data() -> None:
    shown = Shown(message_id=UUID(int=1), created_at=MOMENT)

    assert orjson.loads(dumps({"all": [shown], "at": MOMENT}))["all"][0]["status"] == "sent"


def test_a_page_adds_where_it_lies() -> None:
    page = Pagination(limit=2, next_cursor="abc", has_more=True)

    assert orjson.loads(listed([1, 2], page)) == {
        "success": True,
        "data": [1, 2],
        "pagination": {"limit": 2, "nextCursor": "abc", "hasMore": True},
    }


def test_a_page_that_was_asked_for_by_number_says_its_number_and_the_total() -> None:
    page = Pagination(limit=2, next_cursor=None, has_more=False, page=3, total=6)

    assert orjson.loads(listed([], page))["pagination"] == {
        "limit": 2,
        "nextCursor": None,
        "hasMore": False,
        "page": 3,
        "total": 6,
    }


def test_a_failure_says_what_and_which_request() -> None:
    body = orjson.loads(failed("CONFLICT", "Wait.", request_id="r", data={"a": 1}))

    assert body == {
        "success": False,
        "error": {"code": "CONFLICT", "message": "Wait.", "data": {"a": 1}, "requestId": "r"},
    }
    assert "data" not in orjson.loads(failed("CONFLICT", "Wait.", request_id="r"))["error"]


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (MOMENT, "2026-01-15T10:30:00.123Z"),
        (MOMENT.replace(microsecond=0), "2026-01-15T10:30:00.000Z"),
        (MOMENT.astimezone(timezone(timedelta(hours=5, minutes=30))), "2026-01-15T10:30:00.123Z"),
    ],
)
def test_times_are_utc_with_milliseconds(moment: datetime, text: str) -> None:
    assert instant(moment) == text
    assert orjson.loads(dumps(moment)) == text


def test_a_time_without_a_zone_is_a_bug_and_not_a_guess() -> None:
    with pytest.raises(ValueError, match="zone"):
        instant(MOMENT.replace(tzinfo=None))
    with pytest.raises(TypeError):
        dumps({"at": MOMENT.replace(tzinfo=None)})


def test_what_has_no_json_form_is_a_bug() -> None:
    with pytest.raises(TypeError):
        dumps(object())


def test_dates_decimals_and_sets_have_a_form() -> None:
    value = {"day": date(2026, 1, 15), "sum": Decimal("1.10"), "tags": {"b", "a"}}

    assert orjson.loads(dumps(value)) == {"day": "2026-01-15", "sum": "1.10", "tags": ["a", "b"]}


def test_an_answer_is_json_without_a_charset() -> None:
    response = respond({"a": "ü"}, status=202, headers={"Idempotency-Replayed": "true"})

    assert response.status == 202
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["Idempotency-Replayed"] == "true"
    assert response.body == '{"success":true,"data":{"a":"ü"}}'.encode()
