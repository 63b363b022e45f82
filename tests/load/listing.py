"""Lists and searches among a million messages of one tenant, page after page."""

import statistics
import time
from pathlib import Path

from tests.load import world
from tests.load.report import Row
from tests.support.many import seed

MANY = 1_000_000
ROUNDS = 200
GOAL = 50.0

# What is asked for, by what it is called in the table. What is in braces changes each time.
ASKED = {
    "the newest": "limit=50",
    "status=read": "limit=50&status=read",
    "status=failed": "limit=50&status=failed",
    "type=poll": "limit=50&type=poll",
    "one contact": "limit=50&contact=%2B12025600{contact}",
    "one day": "limit=50&fromDate=2026-01-{day}&toDate=2026-01-{day}",
    "search, a common word": "limit=50&search=hello",
    "search, two words": "limit=50&search=hello+order",
    "search, a rare word": "limit=50&search=anaconda",
    "search, words that never meet": "limit=50&search=order+refund+anaconda",
}


async def measure(folder: Path, database_url: str, amqp_url: str) -> list[Row]:
    """99th percentiles in milliseconds, by the API."""
    async with world.running(folder, database_url, amqp_url, many=1) as made:
        tenant = await made.sql.fetchval("SELECT tenant_id FROM gateway.instances")
        instance = await made.sql.fetchval("SELECT id FROM gateway.instances")
        began = time.perf_counter()
        await seed(made.sql, tenant, instance, many=MANY)
        rows = [Row("seeding a million messages", time.perf_counter() - began, "s", 120, "lower")]
        for what, query in ASKED.items():
            times = [
                await _asked(made, query.format(contact=f"{n % 1000:03d}", day=f"{16 + n % 14}"))
                for n in range(ROUNDS)
            ]
            rows.append(_row(what, times))
        rows.append(_row("a deep cursor", await _deep(made)))
    return rows


async def _asked(made: world.World, query: str) -> float:
    began = time.perf_counter()
    answer = await made.customer.get(f"/api/messages?{query}")
    assert answer.status == 200, answer.body
    return (time.perf_counter() - began) * 1000


async def _deep(made: world.World) -> list[float]:
    """Pages that begin somewhere among the million, as those find them who have walked there."""
    times = []
    cursor = (await made.customer.get("/api/messages?limit=100")).body["pagination"]["nextCursor"]
    for _ in range(ROUNDS):
        began = time.perf_counter()
        answer = await made.customer.get(f"/api/messages?limit=100&cursor={cursor}")
        times.append((time.perf_counter() - began) * 1000)
        cursor = answer.body["pagination"]["nextCursor"]
    return times


def _row(what: str, times: list[float]) -> Row:
    p99 = statistics.quantiles(times, n=100)[98]
    return Row(f"GET /api/messages, {what}: p99", p99, "ms", GOAL, "lower")
