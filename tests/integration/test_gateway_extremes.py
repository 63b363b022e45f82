"""What lies at the ends of calendars and numbers is refused, and never breaks anything.

A crash is counted as ours: whoever could cause one with a query could have all others told that the
service is ill.
"""

import base64
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from shared.ids import new_id
from tests.support.gateway import Gateway

FIRST, LAST = "0001-01-01T00:00:01%2B23:59", "9999-12-31T23:59:59-23:59"
ID = str(new_id())


def a_cursor(name: str, position: Any) -> str:
    raw = orjson.dumps([1, name, position])
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def extremes() -> Iterator[str]:
    yield f"/api/messages?cursor={a_cursor('messages', 2**63)}"
    yield f"/api/events?after={a_cursor('events', 2**63)}"
    for when in (FIRST.replace("%2B", "+"), LAST):
        yield f"/api/audit-logs?cursor={a_cursor('audit', [when, ID])}"
        yield f"/api/media?cursor={a_cursor('media', [when, ID])}"
        yield f"/api/dead-letters?cursor={a_cursor('dead-letters', [when, ID])}"
    for when in (FIRST, LAST, "9999-12-31"):
        yield f"/api/messages?fromDate={when}"
        yield f"/api/messages?toDate={when}"
        yield f"/api/audit-logs?from={when}"
        yield f"/api/audit-logs?to={when}"
    for when in (FIRST, LAST):
        yield f"/api/dead-letters?since={when}"


async def test_what_no_database_takes_is_refused(gateway: Gateway) -> None:
    admin, _ = await gateway.register()
    wrong = [
        (path, answer.status)
        for path in extremes()
        if (answer := await admin.get(path)).status != 422
    ]
    assert wrong == []


@pytest.mark.parametrize("day", ["0001-01-01", "9999-12-30"])
async def test_days_at_the_ends_of_the_calendar_are_days(gateway: Gateway, day: str) -> None:
    admin, _ = await gateway.register()
    for path in (
        f"/api/messages?fromDate={day}&toDate={day}",
        f"/api/audit-logs?from={day}&to={day}",
        f"/api/stats?startDate={day}&endDate={day}",
    ):
        answer = await admin.get(path)
        assert answer.status == 200, (path, answer.body)
