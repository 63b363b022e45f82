"""One subscription to a RabbitMQ queue, whatever happens to queue, channel or connection."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import assert_never

import structlog
from aiormq.abc import AbstractChannel, AbstractConnection, DeliveredMessage
from pamqp.common import FieldValue

from shared.backoff import exponential
from shared.broker.dead import AT, REASON, Reason
from shared.broker.port import Incoming, Outcome, Subscription
from shared.broker.rabbitmq_declare import declare
from shared.broker.rabbitmq_link import Link, delay_after, translated
from shared.broker.receiving import LATER_DELAYS, Arrivals, ask
from shared.broker.topology import Topology
from shared.errors import Transient

# The next batch arrives while this one is received. Not more: when a process dies, everything it
# had fetched counts as delivered once more, also what no receiver ever saw.
BATCHES_FETCHED = 2
SETUP_TIMEOUT = 15.0
SETTLE_TIMEOUT = 5.0
LONGEST_RETRY_DELAY = timedelta(seconds=5)

log = structlog.get_logger(__name__)


class Consumer:
    """Serves one subscription until stopped.

    It has a channel of its own. Sixty-four of them are cheap, and the channel is what an ack with
    ``multiple`` reaches, what the broker closes over one mistake, and what gives everything back
    when it is closed: none of that should touch a neighbour.
    """

    def __init__(
        self,
        subscription: Subscription,
        *,
        link: Link[AbstractConnection],
        topology: Topology,
        delivery_limit: int,
        retry_delay: timedelta,
    ) -> None:
        self._subscription = subscription
        self._link = link
        self._topology = topology
        self._delivery_limit = delivery_limit
        self._retry_delay = retry_delay
        self._stopping = asyncio.Event()
        self._arrivals: Arrivals[DeliveredMessage] = Arrivals()

    async def run(self) -> None:
        """Consume whenever there is a connection, until ``stop`` is called."""
        failures = 0
        while not self._stopping.is_set():
            try:
                await self._either_stopping_or(self._link.up)
                if self._link.current is not None:
                    with translated("consuming"):
                        await self._consume(self._link.current)
                    failures = 0
            except Transient as error:
                failures += 1
                log.warning(
                    "subscription_interrupted", queue=self._subscription.queue, error=str(error)
                )
                await _within(delay_after(failures), self._stopping)

    def stop(self) -> None:
        """Hand out nothing more, and give back what was not handed out.

        A receiver that is running goes on; ``run`` returns when it has been settled.
        """
        self._stopping.set()
        self._arrivals.close()

    async def _consume(self, connection: AbstractConnection) -> None:
        """Consume on a channel of its own; return when that is lost or we are stopped."""
        if self._stopping.is_set():
            return
        arrivals = self._arrivals = Arrivals()
        async with asyncio.timeout(SETUP_TIMEOUT):
            # Without the bound of ten frames, what came in one packet is there as one batch; the
            # prefetch count bounds it just as well.
            channel = await connection.channel(publisher_confirms=False, frame_buffer_size=0)
        try:
            channel.closing.add_done_callback(lambda _: arrivals.close())
            # The broker cancels a consumer whose queue is deleted; the next round declares it.
            channel.on_consumer_cancel_callbacks.add(lambda _: arrivals.close())
            async with asyncio.timeout(SETUP_TIMEOUT):
                tag = await self._start(channel, arrivals)
            async with asyncio.TaskGroup() as aside:
                aside.create_task(self._withdraw(channel, tag, arrivals), name="withdraw")
                await self._hand_out(channel, arrivals, aside)
        finally:
            with suppress(Transient), translated("closing the channel"):
                async with asyncio.timeout(SETTLE_TIMEOUT):
                    await channel.close()

    async def _start(self, channel: AbstractChannel, arrivals: Arrivals[DeliveredMessage]) -> str:
        await declare(channel, self._topology, delivery_limit=self._delivery_limit)
        await channel.basic_qos(prefetch_count=BATCHES_FETCHED * self._subscription.batch)

        async def arrived(message: DeliveredMessage) -> None:
            arrivals.add(message)

        started = await channel.basic_consume(self._subscription.queue, arrived)
        if started.consumer_tag is None:
            raise ConnectionError("a consumer without a tag")
        return started.consumer_tag

    async def _hand_out(
        self,
        channel: AbstractChannel,
        arrivals: Arrivals[DeliveredMessage],
        aside: asyncio.TaskGroup,
    ) -> None:
        settlement = _Settlement(channel, retry_delay=self._retry_delay, hurry=arrivals.closed)
        while batch := await arrivals.take(self._subscription):
            messages = [incoming(message, self._subscription.queue) for message in batch]
            answer = await ask(self._subscription, messages)
            try:
                with translated("settling"):
                    async with asyncio.timeout(SETTLE_TIMEOUT):
                        retries = await settlement.settle(batch, answer.outcomes)
            except Transient:
                # The channel is gone, and with it our hold on these: they come again.
                log.info("settlement_lost", queue=self._subscription.queue, messages=len(batch))
                continue
            for tag, attempt in retries:
                aside.create_task(settlement.give_back(tag, attempt), name="retry")
            later = [
                message
                for message, outcome in zip(batch, answer.outcomes, strict=True)
                if outcome is Outcome.LATER
            ]
            if later:
                aside.create_task(settlement.offer_again(later, arrivals), name="later")

    async def _withdraw(
        self, channel: AbstractChannel, tag: str, arrivals: Arrivals[DeliveredMessage]
    ) -> None:
        """When stopped, give back what was fetched, without waiting for the receiver to return."""
        await arrivals.closed.wait()
        with suppress(Transient), translated("unsubscribing"):
            async with asyncio.timeout(SETTLE_TIMEOUT):
                await channel.basic_cancel(tag)
                for message in arrivals.rest():
                    await channel.basic_nack(_tag(message), requeue=True, wait=False)

    async def _either_stopping_or(self, event: asyncio.Event) -> None:
        waits = [asyncio.create_task(each.wait()) for each in (event, self._stopping)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)


class _Settlement:
    """Tells the broker what became of the messages of one channel, in as few frames as possible."""

    def __init__(
        self, channel: AbstractChannel, *, retry_delay: timedelta, hurry: asyncio.Event
    ) -> None:
        self._channel = channel
        self._retry_delay = retry_delay
        self._hurry = hurry
        self._held: set[int] = set()

    async def settle(
        self, batch: Sequence[DeliveredMessage], outcomes: Sequence[Outcome]
    ) -> list[tuple[int, int]]:
        """Settle a batch; return tag and attempt of those to be given back after a while."""
        done: list[int] = []
        retries: list[tuple[int, int]] = []
        for message, outcome in zip(batch, outcomes, strict=True):
            tag = _tag(message)
            self._held.discard(tag)
            match outcome:
                case Outcome.DONE:
                    done.append(tag)
                case Outcome.RETRY:
                    self._held.add(tag)
                    retries.append((tag, _attempt(message)))
                case Outcome.LATER:
                    self._held.add(tag)
                case Outcome.DEAD:
                    await self._channel.basic_reject(tag, requeue=False, wait=False)
                case _:
                    assert_never(outcome)
        await self._acknowledge(done)
        return retries

    async def _acknowledge(self, done: Sequence[int]) -> None:
        """Ack with ``multiple`` as far as nothing below is held back: that would be acked too."""
        lowest_held = min(self._held, default=None)
        # In order: what was kept for later is handed out before or after what came meanwhile.
        done = sorted(done)
        together = [tag for tag in done if lowest_held is None or tag < lowest_held]
        if together:
            await self._channel.basic_ack(together[-1], multiple=len(together) > 1, wait=False)
        for tag in done[len(together) :]:
            await self._channel.basic_ack(tag, wait=False)

    async def give_back(self, tag: int, attempt: int) -> None:
        """Return a message to its queue after a delay that grows by attempt.

        Meanwhile the others go on: one message that cannot be handled must not hold up the queue.
        ``reject`` and not ``nack``: from RabbitMQ 4.3 only that counts towards the limit.
        """
        delay = exponential(attempt, base=self._retry_delay, cap=LONGEST_RETRY_DELAY, jitter=0)
        await _within(delay, self._hurry)
        with suppress(Transient), translated("returning a message"):
            async with asyncio.timeout(SETTLE_TIMEOUT):
                await self._channel.basic_reject(tag, requeue=True, wait=False)
        self._held.discard(tag)

    async def offer_again(
        self, messages: Sequence[DeliveredMessage], arrivals: Arrivals[DeliveredMessage]
    ) -> None:
        """Hand messages out again after a while. They stay ours, so the broker counts nothing."""
        await _within(LATER_DELAYS * self._retry_delay, self._hurry)
        if not arrivals.closed.is_set():
            for message in reversed(messages):
                arrivals.add_first(message)
            return
        with suppress(Transient), translated("returning messages"):
            async with asyncio.timeout(SETTLE_TIMEOUT):
                for message in messages:
                    await self._channel.basic_nack(_tag(message), requeue=True, wait=False)


async def _within(delay: timedelta, event: asyncio.Event) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(delay.total_seconds()):
            await event.wait()


def _tag(message: DeliveredMessage) -> int:
    tag = message.delivery_tag
    if tag is None:
        raise ValueError("a delivery without a tag")
    return tag


def _attempt(message: DeliveredMessage) -> int:
    count = (message.header.properties.headers or {}).get("x-delivery-count")
    return count + 1 if isinstance(count, int) else 1


def incoming(message: DeliveredMessage, queue: str) -> Incoming:
    """A delivery as a receiver sees it."""
    properties = message.header.properties
    headers = properties.headers or {}
    return Incoming(
        queue=queue,
        body=message.body,
        message_id=properties.message_id or "",
        type=properties.message_type or "",
        content_type=properties.content_type or "",
        headers=_died(headers)
        | {name: value for name, value in headers.items() if isinstance(value, str)},
        attempt=_attempt(message),
    )


def _died(headers: Mapping[str, FieldValue]) -> dict[str, str]:
    """What RabbitMQ tells of a dead letter's end, in our words; the latest end stands first.

    https://www.rabbitmq.com/docs/dlx#effects
    """
    deaths = headers.get("x-death")
    if not isinstance(deaths, list) or not deaths or not isinstance(deaths[0], dict):
        return {}
    told, at = deaths[0].get("reason"), deaths[0].get("time")
    reason = Reason.REFUSED if told == "rejected" else Reason.IN_VAIN
    return {REASON: reason} | ({AT: at.isoformat()} if isinstance(at, datetime) else {})
