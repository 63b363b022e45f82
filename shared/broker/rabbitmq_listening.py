"""Hearing what goes by on RabbitMQ, by a queue that lives as long as the connection."""

import asyncio
from contextlib import suppress

import structlog
from aiormq.abc import AbstractChannel, AbstractConnection, DeliveredMessage

from shared.broker.port import Hearer
from shared.broker.rabbitmq_consumer import SETTLE_TIMEOUT, SETUP_TIMEOUT, incoming
from shared.broker.rabbitmq_declare import declare
from shared.broker.rabbitmq_link import Link, delay_after, translated
from shared.broker.receiving import tell
from shared.broker.topology import Topology
from shared.errors import Transient

log = structlog.get_logger(__name__)


class Listening:
    """Listens whenever there is a connection, until cancelled.

    The broker names the queue: under a name of ours, the one that a lost connection has left would
    be in the way of the next until the broker notices the loss. ``tried`` is set once the first
    attempt has succeeded or failed, or cannot be made for want of a connection.
    """

    def __init__(
        self,
        exchange: str,
        key: str,
        receive: Hearer,
        *,
        link: Link[AbstractConnection],
        topology: Topology,
        delivery_limit: int,
    ) -> None:
        self.tried = asyncio.Event()
        self._exchange = exchange
        self._key = key
        self._receive = receive
        self._link = link
        self._topology = topology
        self._delivery_limit = delivery_limit

    async def run(self) -> None:
        """Listen whenever there is a connection."""
        failures = 0
        try:
            while True:
                connection = self._link.current
                if connection is None:
                    self.tried.set()
                    await self._link.up.wait()
                    continue
                try:
                    with translated("listening"):
                        await self._listen(connection)
                    failures = 0
                except Transient as error:
                    failures += 1
                    self.tried.set()
                    log.warning("listening_interrupted", exchange=self._exchange, error=str(error))
                    await asyncio.sleep(delay_after(failures).total_seconds())
        finally:
            self.tried.set()

    async def _listen(self, connection: AbstractConnection) -> None:
        """Listen by a channel and a queue of our own; return when either is lost."""
        async with asyncio.timeout(SETUP_TIMEOUT):
            channel = await connection.channel(publisher_confirms=False)
        lost = asyncio.Event()
        channel.closing.add_done_callback(lambda _: lost.set())
        channel.on_consumer_cancel_callbacks.add(lambda _: lost.set())
        queue = ""
        try:
            async with asyncio.timeout(SETUP_TIMEOUT):
                queue = await self._start(channel)
            self.tried.set()
            await lost.wait()
        finally:
            with suppress(Transient), translated("closing the channel"):
                async with asyncio.timeout(SETTLE_TIMEOUT):
                    # The broker would delete it too, but some time after we have left.
                    if queue and not lost.is_set():
                        await channel.queue_delete(queue)
                    await channel.close()

    async def _start(self, channel: AbstractChannel) -> str:
        await declare(channel, self._topology, delivery_limit=self._delivery_limit)
        declared = await channel.queue_declare(exclusive=True, auto_delete=True)
        if declared.queue is None:
            raise ConnectionError("a queue without a name")

        async def arrived(message: DeliveredMessage) -> None:
            tell(self._receive, incoming(message, self._key))

        await channel.queue_bind(declared.queue, self._exchange, self._key)
        await channel.basic_consume(declared.queue, arrived, no_ack=True)
        return declared.queue
