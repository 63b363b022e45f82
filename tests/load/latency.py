"""From POST to the engine's call and the webhook's arrival, at fifty messages a second."""

import asyncio
import statistics
import time
from pathlib import Path

import orjson

from tests.load import client, world
from tests.load.report import Row

# Where the time goes, by the times that each hop wrote down itself.
_HOPS = """
    SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY
               extract(epoch FROM t.created_at - m.created_at) * 1000) AS claimed,
           percentile_cont(0.5) WITHIN GROUP (ORDER BY
               extract(epoch FROM h.handed_over_at - t.created_at) * 1000) AS handed_over,
           percentile_cont(0.5) WITHIN GROUP (ORDER BY
               extract(epoch FROM w.at - h.handed_over_at) * 1000) AS on_the_wire,
           percentile_cont(0.5) WITHIN GROUP (ORDER BY
               extract(epoch FROM d.created_at - w.at) * 1000) AS addressed,
           percentile_cont(0.5) WITHIN GROUP (ORDER BY
               extract(epoch FROM a.at - d.created_at) * 1000) AS posted
    FROM dispatcher.messages m
    JOIN dispatcher.transmissions t ON t.message_id = m.id
    JOIN sessions.handovers h ON h.transmission_id = t.id
    JOIN sessions.sandbox_wire w
      ON w.instance_id = m.instance_id AND w.engine_message_id = m.engine_message_id
    JOIN webhooks.deliveries d ON d.message_id = m.id
    JOIN webhooks.attempts a ON a.delivery_id = d.id
"""

RATE = 50
SECONDS = 10


async def measure(folder: Path, database_url: str, amqp_url: str) -> list[Row]:
    """Medians and 99th percentiles, in milliseconds."""
    arrived: dict[str, float] = {}

    def got(body: bytes) -> None:
        now = time.time()
        payload = orjson.loads(body)
        arrived.setdefault(payload["data"]["messageId"], now)

    server, hook = await client.listen(got)
    async with server, world.running(folder, database_url, amqp_url) as made:
        senders = [made.customer.with_key(one["key"]) for one in made.instances]
        for instance in made.instances:
            await made.customer.webhook(instance["id"], hook, "message.sent")
        await asyncio.sleep(4)
        posted: dict[str, float] = {}

        async def send(number: int) -> None:
            at = time.time()
            answer = await senders[number % len(senders)].text(f"+1202557{number:04d}", "Hello")
            posted[answer.data["id"]] = at

        started = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in range(RATE * SECONDS):
                await asyncio.sleep(max(0.0, started + number / RATE - time.perf_counter()))
                group.create_task(send(number))
        async with asyncio.timeout(30):
            while len(arrived) < len(posted):  # noqa: ASYNC110 - other processes make it true
                await asyncio.sleep(0.05)
        rows = await made.sql.fetch(
            "SELECT m.id::text, extract(epoch FROM w.at)::float8 FROM sessions.sandbox_wire w"
            " JOIN dispatcher.messages m ON m.instance_id = w.instance_id"
            " AND m.engine_message_id = w.engine_message_id"
        )
        hops = await made.sql.fetchrow(_HOPS)
        assert hops is not None
    wire = {row[0]: row[1] for row in rows}
    to_engine = [(wire[id_] - at) * 1000 for id_, at in posted.items()]
    to_webhook = [(arrived[id_] - at) * 1000 for id_, at in posted.items()]
    return [
        Row("(c) POST to engine, median", statistics.median(to_engine), "ms", 30, "lower"),
        Row("(c) POST to engine, 99th", statistics.quantiles(to_engine, n=100)[98], "ms"),
        Row("(c) POST to webhook, median", statistics.median(to_webhook), "ms", 60, "lower"),
        Row("(c) POST to webhook, 99th", statistics.quantiles(to_webhook, n=100)[98], "ms"),
        *(
            Row(f"(c)   of that, until {name.replace('_', ' ')}", value, "ms")
            for name, value in hops.items()
        ),
    ]
