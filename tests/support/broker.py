"""What tests of brokers share: a small topology, messages with defaults, and a receiver to ask."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from uuid import uuid4

import aio_pika

from shared.broker.port import Incoming, Outcome, Outgoing
from shared.broker.topology import DEAD, Binding, Exchange, Queue, Topology

PATIENCE = 20  # Seconds; for what should take milliseconds, on a machine that is busy.


@dataclass(frozen=True)
class Names:
    """A topology that no other test run has: every name starts with something new."""

    prefix: str = field(default_factory=lambda: f"test-{uuid4().hex[:12]}")

    @property
    def direct(self) -> str:
        return f"{self.prefix}.direct"

    @property
    def topic(self) -> str:
        return f"{self.prefix}.topic"

    @property
    def queue(self) -> str:
        """Bound to ``direct`` by its own name."""
        return f"{self.prefix}.queue"

    @property
    def other(self) -> str:
        """Bound to ``direct`` by its own name."""
        return f"{self.prefix}.other"

    @property
    def exclusive(self) -> str:
        """Bound to ``direct`` by its own name; has one active consumer at a time."""
        return f"{self.prefix}.exclusive"

    def topology(self, **patterns: Sequence[str]) -> Topology:
        """The queues above, or instead those named, bound to ``topic`` by patterns."""
        exchanges = (
            Exchange(self.direct, "direct"),
            Exchange(self.topic, "topic"),
            Exchange(DEAD, "direct"),
        )
        if patterns:
            return Topology(
                exchanges,
                tuple(Queue(f"{self.prefix}.{name}") for name in patterns),
                tuple(
                    Binding(f"{self.prefix}.{name}", self.topic, key)
                    for name, keys in patterns.items()
                    for key in keys
                ),
            )
        queues = (
            Queue(self.queue),
            Queue(self.other),
            Queue(self.exclusive, single_active_consumer=True),
        )
        return Topology(
            exchanges,
            queues,
            tuple(Binding(queue.name, self.direct, queue.name) for queue in queues),
        )

    def message(
        self, body: str | int = "hello", *, to: str | None = None, message_id: str | None = None
    ) -> Outgoing:
        return Outgoing(
            exchange=self.direct,
            routing_key=to or self.queue,
            body=str(body).encode(),
            message_id=message_id or str(uuid4()),
            type="test.message",
        )

    def messages(self, count: int, *, to: str | None = None) -> list[Outgoing]:
        """Messages whose bodies count from 0."""
        return [self.message(number, to=to) for number in range(count)]


class Inbox:
    """A receiver that remembers every batch, and answers what it is told to: ``DONE`` by default.

    While ``gate`` is cleared, it receives and does not answer.
    """

    def __init__(
        self, answer: Callable[[Incoming], Outcome] = lambda _: Outcome.DONE, *, open_: bool = True
    ) -> None:
        self.batches: list[list[Incoming]] = []
        self.at_once = 0
        self.most_at_once = 0
        self.gate = asyncio.Event()
        if open_:
            self.gate.set()
        self._answer = answer
        self._changed = asyncio.Condition()

    @property
    def messages(self) -> list[Incoming]:
        return [message for batch in self.batches for message in batch]

    @property
    def bodies(self) -> list[str]:
        return [message.body.decode() for message in self.messages]

    async def __call__(self, batch: Sequence[Incoming]) -> Sequence[Outcome]:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            async with self._changed:
                self.batches.append(list(batch))
                self._changed.notify_all()
            await self.gate.wait()
            return [self._answer(message) for message in batch]
        finally:
            self.at_once -= 1

    async def until(self, enough: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE), self._changed:
            await self._changed.wait_for(enough)

    async def received(self, count: int) -> list[Incoming]:
        """Wait until so many messages have been received in all."""
        await self.until(lambda: len(self.messages) >= count)
        return self.messages


async def within_patience(what: Awaitable[None]) -> None:
    async with asyncio.timeout(PATIENCE):
        await what


async def next_on_rabbitmq(url: str, queue: str) -> bytes:
    """Take the body of the next message from a queue, past the adapter, waiting for it to come."""
    arrived: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def take(message: aio_pika.abc.AbstractIncomingMessage) -> None:
        await message.ack()
        arrived.set_result(message.body)

    async with asyncio.timeout(PATIENCE), await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        await channel.set_qos(1)
        source = await channel.get_queue(queue, ensure=False)
        tag = await source.consume(take)
        body = await arrived
        await source.cancel(tag)
        return body


async def remove_from_rabbitmq(url: str, topology: Topology) -> None:
    """Delete what a test has declared. The dead-letter exchange has a fixed name and stays."""
    async with await aio_pika.connect(url) as connection, connection.channel() as channel:
        for queue in topology.queues:
            for name in (queue.name, queue.dead):
                # Both conditions are refused for quorum queues, and the connection closed.
                await channel.queue_delete(name, if_unused=False, if_empty=False)
        for exchange in topology.exchanges:
            if exchange.name != DEAD:
                await channel.exchange_delete(exchange.name)
