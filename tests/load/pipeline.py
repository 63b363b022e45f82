"""The whole pipeline: five processes, RabbitMQ, PostgreSQL and this generator on the same cores."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import orjson

from tests.load import client, world
from tests.load.report import Row
from tests.load.world import World

ACCEPT_SECONDS = 8.0
RECEIPTED = 6000
CONNECTIONS = 64


def to_contacts(made: World) -> Iterator[bytes]:
    """Texts from all instances in turn to ever other contacts."""
    number = 0
    while True:
        for instance in made.instances:
            number += 1
            body = orjson.dumps({"to": f"+1303{number % 1_000_000:07d}", "message": "Hello there"})
            yield client.request("/api/messages/text", {"X-API-Key": instance["key"]}, body)


def to_one_another(made: World, count: int) -> Iterator[bytes]:
    """Texts from every instance to every other, so that each is received as well as sent."""
    size = len(made.instances)
    for number in range(count):
        sender = made.instances[number % size]
        receiver = made.instances[(number + 1 + number // size % (size - 1)) % size]
        body = orjson.dumps({"to": receiver["phoneNumber"], "message": "Hello there"})
        yield client.request("/api/messages/text", {"X-API-Key": sender["key"]}, body)


async def sent(folder: Path, database_url: str, amqp_url: str) -> list[Row]:
    """From POST to ``sent`` in the database, contacts that send no receipts, no webhook."""
    settings = {"receipts": False}
    async with world.running(folder, database_url, amqp_url, settings=settings) as made:
        started = time.time()
        accepted = await client.closed_loop(
            made.port, to_contacts(made), connections=CONNECTIONS, seconds=ACCEPT_SECONDS
        )
        assert accepted.refused == 0, f"{accepted.refused} were refused"
        meanwhile = await _count(made, "sent_at <= to_timestamp($1)", time.time())
        async with asyncio.timeout(120):
            while await _count(made, "sent_at IS NOT NULL") < accepted.accepted:  # noqa: ASYNC110 - other processes make it true
                await asyncio.sleep(0.1)
        last = await made.sql.fetchval(
            "SELECT extract(epoch FROM max(sent_at))::float8 FROM dispatcher.messages"
        )
    return [
        Row("(d) accepted at full rate, pipeline running", accepted.rate, "accepts/s"),
        Row("(d) POST to sent, sustained", accepted.accepted / (last - started), "msg/s", 1000),
        Row("(d) sent while accepting at full rate", meanwhile / accepted.accepted, "x", 0.5),
    ]


async def receipted(folder: Path, database_url: str, amqp_url: str) -> list[Row]:
    """From POST through every receipt to every webhook: four events a message."""
    count = 0
    last = 0.0

    def got(_body: bytes) -> None:
        nonlocal count, last
        count += 1
        last = time.time()

    server, hook = await client.listen(got)
    async with server, world.running(folder, database_url, amqp_url) as made:
        for instance in made.instances:
            await made.customer.webhook(instance["id"], hook, "message.*")
        await asyncio.sleep(4)
        started = time.time()
        accepted = await client.closed_loop(
            made.port, to_one_another(made, RECEIPTED), connections=16
        )
        assert accepted.refused == 0, f"{accepted.refused} were refused"
        async with asyncio.timeout(120):
            while count < 4 * RECEIPTED:  # noqa: ASYNC110 - other processes make it true
                await asyncio.sleep(0.05)
        read = await _count(made, "status = 'read'")
        assert read == RECEIPTED, f"only {read} were read"
    rate = RECEIPTED / (last - started)
    return [Row("(d) POST to every receipt and webhook", rate, "msg/s", 400)]


async def _count(made: World, condition: str, *arguments: object) -> int:
    return int(
        await made.sql.fetchval(
            "SELECT count(*) FROM dispatcher.messages WHERE direction = 'outbound' AND "
            + condition,
            *arguments,
        )
    )
