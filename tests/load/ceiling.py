"""The ceilings: the least that a handler could do and still keep what it was given.

usage: python -m tests.load.ceiling PORT DATABASE_URL AMQP_URL
"""

import asyncio
import sys
from collections.abc import Sequence
from uuid import UUID

import aio_pika
import asyncpg
import uvloop
from aiohttp import web
from pydantic import BaseModel

from shared.ids import new_id

ACCEPTED = b'{"success":true,"data":{"status":"queued"}}'


class Text(BaseModel):
    """What the real route takes at least."""

    to: str
    message: str


class Batcher:
    """The smallest group commit: one row, one statement for all that came meanwhile."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._waiting: list[tuple[UUID, str, str, asyncio.Future[None]]] = []
        self._wake = asyncio.Event()

    async def add(self, to: str, text: str) -> None:
        """Return once the row is committed."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((new_id(), to, text, future))
        self._wake.set()
        await future

    async def run(self) -> None:
        """Flush for ever."""
        async with self._pool.acquire() as connection:
            while True:
                await self._wake.wait()
                self._wake.clear()
                batch, self._waiting = self._waiting, []
                await self._flush(connection, batch)

    async def _flush(
        self,
        connection: asyncpg.pool.PoolConnectionProxy,
        batch: Sequence[tuple[UUID, str, str, asyncio.Future[None]]],
    ) -> None:
        ids, tos, texts, futures = zip(*batch, strict=True)
        await connection.execute(
            "INSERT INTO ceiling SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[])",
            ids,
            tos,
            texts,
        )
        for future in futures:
            future.set_result(None)


async def main(port: int, database_url: str, amqp_url: str) -> None:
    """Serve both until ended."""
    pool = await asyncpg.create_pool(database_url, min_size=1, max_size=2)
    await pool.execute("CREATE TABLE IF NOT EXISTS ceiling (id uuid PRIMARY KEY, a text, b text)")
    batcher = Batcher(pool)
    broker = await aio_pika.connect(amqp_url)
    channel = await broker.channel()
    queue = await channel.declare_queue(
        "ceiling", durable=True, arguments={"x-queue-type": "quorum"}
    )

    async def commit(request: web.Request) -> web.Response:
        text = Text.model_validate_json(await request.read())
        await batcher.add(text.to, text.message)
        return web.Response(status=202, body=ACCEPTED, content_type="application/json")

    async def publish(request: web.Request) -> web.Response:
        body = await request.read()
        Text.model_validate_json(body)
        message = aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        await channel.default_exchange.publish(message, routing_key=queue.name)
        return web.Response(status=202, body=ACCEPTED, content_type="application/json")

    app = web.Application()
    app.router.add_post("/commit", commit)
    app.router.add_post("/publish", publish)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await batcher.run()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), sys.argv[2], sys.argv[3]))
