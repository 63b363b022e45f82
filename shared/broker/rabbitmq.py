"""The broker port over RabbitMQ 3.10 and later."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Self

import structlog
from aiormq.abc import AbstractConnection

from shared.broker.port import Broker, Hearer, Outgoing, Subscription
from shared.broker.rabbitmq_confirms import ConfirmChannel
from shared.broker.rabbitmq_consumer import Consumer
from shared.broker.rabbitmq_declare import declare, only
from shared.broker.rabbitmq_link import Link, translated
from shared.broker.rabbitmq_listening import Listening
from shared.broker.receiving import finished, owned
from shared.broker.topology import DELIVERY_LIMIT, TOPOLOGY, Topology
from shared.errors import Transient, Unroutable

log = structlog.get_logger(__name__)


class RabbitBroker:
    """Two connections, because RabbitMQ stops reading from those that publish when it is short of
    memory or disk, and acks must go on then.

    ``publish`` does not wait for a connection: whoever publishes has the message in an outbox and
    repeats it, and nobody's request should take five seconds because the broker is down.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str,
        topology: Topology,
        publish_timeout: timedelta,
        retry_delay: timedelta,
        delivery_limit: int,
    ) -> None:
        self._topology = topology
        self._publish_timeout = publish_timeout
        self._retry_delay = retry_delay
        self._delivery_limit = delivery_limit
        self._exchanges = frozenset(exchange.name for exchange in topology.exchanges)
        self._serving: set[asyncio.Task[None]] = set()
        self._publishing = Link(url, name=f"{name} publish", prepare=self._prepare_publishing)
        self._consuming = Link(url, name=f"{name} consume", prepare=_as_it_is)

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        url: str,
        *,
        name: str,
        topology: Topology = TOPOLOGY,
        publish_timeout: timedelta = timedelta(seconds=5),
        retry_delay: timedelta = timedelta(milliseconds=200),
        delivery_limit: int = DELIVERY_LIMIT,
    ) -> AsyncIterator[Self]:
        """Stay connected for as long as the context is open.

        Enters once the first attempt has succeeded or failed: a broker that is down does not keep
        a service from starting. ``name`` is what the operator sees in the list of connections.
        ``retry_delay`` is the wait after the first ``RETRY``; it doubles up to five seconds.
        """
        broker = cls(
            url,
            name=name,
            topology=topology,
            publish_timeout=publish_timeout,
            retry_delay=retry_delay,
            delivery_limit=delivery_limit,
        )
        keeping = [
            owned(link.keep(), name=link.name) for link in (broker._publishing, broker._consuming)
        ]
        try:
            await broker._tried(keeping)
            yield broker
        finally:
            for task in keeping:
                task.cancel()
            await asyncio.gather(*keeping, return_exceptions=True)

    async def publish(self, messages: Sequence[Outgoing]) -> None:
        # The broker closes the channel over an exchange that does not exist, and everybody else's
        # batches with it. So that is found out here.
        known = [message for message in messages if message.exchange in self._exchanges]
        returned: Sequence[Outgoing] = ()
        if known:
            returned = await self._publish(known)
        unknown = [message for message in messages if message.exchange not in self._exchanges]
        for message in (*unknown, *returned):
            raise Unroutable(f"no queue for {message.exchange}/{message.routing_key}")

    @asynccontextmanager
    async def subscribe(self, subscription: Subscription) -> AsyncIterator[None]:
        queue = self._topology.kept_by(subscription.queue)
        if queue is None:
            raise ValueError(f"no queue {subscription.queue!r} in the topology")
        consumer = Consumer(
            subscription,
            link=self._consuming,
            topology=only(self._topology, queue.name),
            delivery_limit=self._delivery_limit,
            retry_delay=self._retry_delay,
        )
        serving = owned(consumer.run(), name=f"subscription {subscription.queue}")
        self._serving.add(serving)
        try:
            yield
        finally:
            consumer.stop()
            self._serving.discard(serving)
            await finished(serving)

    @asynccontextmanager
    async def listen(self, exchange: str, key: str, receive: Hearer) -> AsyncIterator[None]:
        if exchange not in self._exchanges:
            raise ValueError(f"no exchange {exchange!r} in the topology")
        listening = Listening(
            exchange,
            key,
            receive,
            link=self._consuming,
            topology=Topology(self._topology.exchanges, queues=(), bindings=()),
            delivery_limit=self._delivery_limit,
        )
        task = owned(listening.run(), name=f"listening {exchange}/{key}")
        self._serving.add(task)
        try:
            await listening.tried.wait()
            yield
        finally:
            self._serving.discard(task)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def connected(self) -> bool:
        """Also false if a subscription has died of a defect of ours: better restarted than deaf."""
        return (
            self._publishing.current is not None
            and self._consuming.current is not None
            and not any(task.done() for task in self._serving)
        )

    async def _publish(self, messages: Sequence[Outgoing]) -> Sequence[Outgoing]:
        channel = self._publishing.current
        if channel is None:
            raise Transient("there is no connection to the broker")
        with translated("publishing"):
            try:
                async with asyncio.timeout(self._publish_timeout.total_seconds()):
                    return await channel.publish(messages)
            except TimeoutError:
                self._publishing.condemn(channel)
                raise

    async def _prepare_publishing(self, connection: AbstractConnection) -> ConfirmChannel:
        channel = await ConfirmChannel.opened(connection)
        await declare(channel, self._topology, delivery_limit=self._delivery_limit)
        await channel.basic_qos(prefetch_count=1)  # For its answer only: see ``declare``.
        channel.closing.add_done_callback(lambda _: self._publishing.condemn(channel))
        return channel

    async def _tried(self, keeping: Sequence[asyncio.Task[None]]) -> None:
        async def both() -> None:
            await self._publishing.tried.wait()
            await self._consuming.tried.wait()

        tried = asyncio.create_task(both(), name="first attempt")
        try:
            await asyncio.wait([tried, *keeping], return_when=asyncio.FIRST_COMPLETED)
        finally:
            tried.cancel()
            await asyncio.gather(tried, return_exceptions=True)
        for task in keeping:
            if task.done():
                task.result()  # Over a defect, such as a URL that is none.


async def _as_it_is(connection: AbstractConnection) -> AbstractConnection:
    return connection


_: type[Broker] = RabbitBroker
