"""What lies at the ends of calendars and numbers is refused, and never breaks anything.

A crash is counted as ours: whoever could cause one with a query could have all others told that the
service is ill.
"""

import base64
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import orjson
import pytest

from shared.ids import new_id
from tests.support.builders import an_instance
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
    for day in ("0001-01-01", "0001-01-05", "1969-12-31", "9999-01-01", "9999-12-31"):
        yield f"/api/stats?startDate={day}&endDate={day}"


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
    ):
        answer = await admin.get(path)
        assert answer.status == 200, (path, answer.body)


@pytest.mark.parametrize("day", ["0001-01-01", "0001-01-05", "9999-12-31"])
async def test_days_of_which_there_are_no_figures_are_refused(gateway: Gateway, day: str) -> None:
    operator = await gateway.operator()
    admin, account = await gateway.register()
    tenant = UUID(account["organization"]["id"])
    instance = await an_instance(gateway.sql, tenant)
    span = f"startDate={day}&endDate={day}"
    for zone in ("UTC", "Asia/Tokyo", "America/New_York"):
        await gateway.sql.execute(
            "UPDATE gateway.organizations SET timezone = $2 WHERE id = $1", tenant, zone
        )
        answer = await admin.get(f"/api/instances/{instance}/analytics?{span}")
        assert answer.status == 422, (zone, answer.body)
    for query in (span, f"endDate={day}", f"startDate={day}"):
        answer = await operator.get(f"/api/admin/analytics?{query}")
        assert answer.status == 422, (query, answer.body)


@pytest.mark.parametrize("day", ["1970-01-01", "9998-12-31"])
async def test_the_first_and_the_last_day_of_figures_are_days(gateway: Gateway, day: str) -> None:
    operator = await gateway.operator()
    admin, account = await gateway.register()
    tenant = UUID(account["organization"]["id"])
    instance = await an_instance(gateway.sql, tenant)
    span = f"startDate={day}&endDate={day}"
    for path in ("/api/stats", f"/api/instances/{instance}/analytics"):
        answer = await admin.get(f"{path}?{span}")
        assert answer.status == 200, (path, answer.body)
    assert (await operator.get(f"/api/admin/analytics?endDate={day}")).status == 200
