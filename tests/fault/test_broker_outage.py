"""RabbitMQ killed for twenty seconds under load: the API goes on, and then all is delivered."""

import asyncio
from datetime import timedelta
from pathlib import Path

from tests.support import broker_node
from tests.support import system as systems
from tests.support.customer import Customer, Sink
from tests.support.quiet import all_guarantees_hold, quiet

OUTAGE = 20.0


async def test_while_the_broker_is_down_everything_is_accepted_and_then_delivered(
    tmp_path: Path, database_url: str
) -> None:
    async with (
        broker_node.running(tmp_path / "broker") as broker,
        systems.distributed(tmp_path, database_url, broker.url) as system,
        Customer.of(system.url) as customer,
        Sink.listening() as sink,
    ):
        instances = [await customer.instance() for _ in range(3)]
        for instance in instances:
            await customer.webhook(instance["id"], sink.url, "message.sent")
        statuses: list[int] = []
        stop = asyncio.Event()

        async def load(instance: dict[str, str]) -> None:
            sender = customer.with_key(instance["key"])
            number = 0
            while not stop.is_set():
                answer = await sender.text(f"+1202557{number % 89:04d}", "x")
                statuses.append(answer.status)
                number += 1
                # A steady customer: the wait ends the moment the load is to stop.
                await asyncio.wait([asyncio.ensure_future(stop.wait())], timeout=0.02)

        async with asyncio.TaskGroup() as group:
            for instance in instances:
                group.create_task(load(instance))
            broker.kill()
            before = len(statuses)
            await asyncio.wait([asyncio.ensure_future(stop.wait())], timeout=OUTAGE)
            during = len(statuses) - before
            await broker.start()
            stop.set()
        assert set(statuses) == {202}
        assert during > 300
        await quiet(database_url, within=timedelta(seconds=90))
        await all_guarantees_hold(database_url)
        sent = {payload["data"]["messageId"] for _, payload in sink.got}
        assert len(sent) == len(statuses)
