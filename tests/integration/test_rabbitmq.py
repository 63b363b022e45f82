"""What only the RabbitMQ adapter has to prove: frames, bookkeeping, and the broker's own ways."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from inspect import signature

import aio_pika
import aiormq
import pamqp.frame
import pytest
from aiormq.abc import AbstractConnection, ConfirmationFrameType
from pamqp import commands
from pamqp.body import ContentBody
from pamqp.header import ContentHeader
from typing_extensions import override

from shared.broker.port import Incoming, Outcome, Outgoing, Subscription
from shared.broker.rabbitmq import RabbitBroker
from shared.broker.rabbitmq_confirms import ConfirmChannel
from shared.broker.rabbitmq_frames import FRAME_OVERHEAD, encode
from shared.broker.rabbitmq_link import connected_driver, translated
from shared.broker.topology import DEAD, Binding, Exchange, Queue, Topology
from shared.errors import Transient, Unroutable
from shared.ids import new_id
from shared.log import tell_failure
from tests.support.broker import PATIENCE, Inbox, Names, remove_from_rabbitmq
from tests.support.eventually import eventually

RETRY_DELAY = timedelta(milliseconds=5)


@pytest.fixture
def names() -> Names:
    return Names()


@asynccontextmanager
async def opened(url: str, topology: Topology) -> AsyncIterator[RabbitBroker]:
    try:
        async with RabbitBroker.connect(
            url, name="integration", topology=topology, retry_delay=RETRY_DELAY
        ) as broker:
            yield broker
    finally:
        await remove_from_rabbitmq(url, topology)


@pytest.fixture
async def broker(amqp_url: str, names: Names) -> AsyncIterator[RabbitBroker]:
    async with opened(amqp_url, names.topology()) as broker:
        yield broker


@pytest.fixture
async def driver(amqp_url: str) -> AsyncIterator[AbstractConnection]:
    """A connection as the adapter has it, with nothing declared."""
    async with await aio_pika.connect(amqp_url) as connection:
        yield connected_driver(connection)


async def published(broker: RabbitBroker, message: Outgoing) -> bool:
    """Whether the broker takes a message now."""
    try:
        await broker.publish([message])
    except (Transient, Unroutable):
        return False
    return True


# Frames


def decoded(data: bytes, channel: int) -> list[object]:
    frames: list[object] = []
    while data:
        consumed, number, frame = pamqp.frame.unmarshal(data)
        assert number == channel
        frames.append(frame)
        data = data[consumed:]
    return frames


def test_frames_say_what_pamqp_understands() -> None:
    message = Outgoing(
        exchange="waypost.events",
        routing_key="ev.t.i.message.sent.v1",
        body="grüße".encode(),
        message_id="0190-ä",
        type="message.sent",
        content_type="application/cloudevents+json",
        headers={"ce-type": "message.sent", "ce-tenant": "ü" * 300, "empty": ""},
        mandatory=False,
    )

    publish, header, body = decoded(encode([message], channel=7, frame_max=4096), channel=7)

    assert isinstance(publish, commands.Basic.Publish)
    assert (publish.exchange, publish.routing_key) == (message.exchange, message.routing_key)
    assert not publish.mandatory
    assert isinstance(header, ContentHeader)
    assert header.body_size == len(message.body)
    properties = header.properties
    assert properties.message_id == message.message_id
    assert properties.message_type == message.type
    assert properties.content_type == message.content_type
    assert properties.headers == message.headers
    assert properties.delivery_mode == 2
    assert isinstance(body, ContentBody)
    assert body.value == message.body


def test_frames_are_byte_for_byte_those_of_pamqp(names: Names) -> None:
    message = replace(names.message("x" * 100), headers={"tenant": "t-1"})

    ours = encode([message], channel=1, frame_max=4096)

    properties = commands.Basic.Properties(
        content_type=message.content_type,
        headers=dict(message.headers),
        delivery_mode=2,
        message_id=message.message_id,
        message_type=message.type,
    )
    theirs = (
        commands.Basic.Publish(
            exchange=message.exchange, routing_key=message.routing_key, mandatory=True
        ),
        ContentHeader(body_size=len(message.body), properties=properties),
        ContentBody(message.body),
    )
    assert ours == b"".join(pamqp.frame.marshal(frame, 1) for frame in theirs)


@pytest.mark.parametrize("size", [0, 1, 4087, 4088, 4089, 8176, 10_000])
def test_no_frame_is_larger_than_agreed(names: Names, size: int) -> None:
    message = replace(names.message(), body=bytes(size))

    bodies = decoded(encode([message], channel=1, frame_max=4096), channel=1)[2:]

    sizes = [len(body.value) for body in bodies if isinstance(body, ContentBody)]
    assert sum(sizes) == size
    assert all(0 < each <= 4096 - FRAME_OVERHEAD for each in sizes)


def test_a_name_that_is_too_long_is_refused_before_anything_is_sent(names: Names) -> None:
    message, long = names.message(), "ä" * 128

    for wrong in (
        replace(message, routing_key=long),
        replace(message, message_id=long),
        replace(message, type=long),
        replace(message, content_type=long),
        replace(message, headers={long: ""}),
    ):
        with pytest.raises(ValueError, match="longer than 255 bytes"):
            encode([message, wrong], channel=1, frame_max=4096)


# Confirms, and what they rely on in aiormq


def test_aiormq_still_has_what_the_confirm_channel_replaces() -> None:
    """If this fails, read ``rabbitmq_confirms`` beside the new aiormq before anything else."""
    assert list(signature(aiormq.Channel._on_confirm_frame).parameters) == ["self", "frame"]
    assert list(signature(aiormq.Channel._on_return_frame).parameters) == ["self", "frame"]
    assert list(signature(aiormq.Channel._get_frame).parameters) == ["self"]
    assert list(signature(aiormq.Channel._read_content).parameters) == ["self", "frame", "header"]
    parameters = list(signature(aiormq.Channel.__init__).parameters)
    assert parameters[:4] == ["self", "connector", "number", "publisher_confirms"]


class _Recorded(ConfirmChannel):
    """Remembers what the broker has answered."""

    answers: list[tuple[int, bool]]

    @override
    async def _on_confirm_frame(self, frame: ConfirmationFrameType) -> None:
        assert isinstance(frame, commands.Basic.Ack)
        self.answers.append((frame.delivery_tag or 0, frame.multiple))
        await super()._on_confirm_frame(frame)


async def test_every_message_of_every_batch_is_confirmed_once(
    driver: AbstractConnection, broker: RabbitBroker, names: Names
) -> None:
    channel = await _Recorded.opened(driver)
    channel.answers = []

    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as tasks:
        for size in range(1, 60):
            tasks.create_task(channel.publish(names.messages(size)))

    assert max(tag for tag, _ in channel.answers) == sum(range(1, 60))
    assert not channel._batches


async def test_answers_may_come_in_any_order(driver: AbstractConnection, names: Names) -> None:
    """A broker may confirm one by one, up to a tag, and backwards; ours rarely does."""
    channel = await ConfirmChannel.opened(driver)
    written = channel.write_queue = asyncio.Queue()  # Nothing is sent.

    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as tasks:
        first = tasks.create_task(channel.publish(names.messages(3)))  # 1 to 3
        second = tasks.create_task(channel.publish(names.messages(4)))  # 4 to 7
        third = tasks.create_task(channel.publish(names.messages(2)))  # 8 and 9
        for _ in range(3):
            await written.get()
        await channel._on_confirm_frame(commands.Basic.Ack(9))
        await channel._on_confirm_frame(commands.Basic.Ack(2))
        await channel._on_confirm_frame(commands.Basic.Ack(5, multiple=True))
        await first
        assert not second.done()
        await channel._on_confirm_frame(commands.Basic.Ack(7))
        await channel._on_confirm_frame(commands.Basic.Ack(6))
        await second
        assert not third.done()
        await channel._on_confirm_frame(commands.Basic.Ack(9, multiple=True))

    assert await third == []


async def test_one_refusal_makes_the_batch_transient_and_no_other(
    driver: AbstractConnection, names: Names
) -> None:
    channel = await ConfirmChannel.opened(driver)
    written = channel.write_queue = asyncio.Queue()  # Nothing is sent.
    refused = asyncio.create_task(channel.publish(names.messages(3)))
    accepted = asyncio.create_task(channel.publish(names.messages(3)))
    for _ in range(2):
        await written.get()

    await channel._on_confirm_frame(commands.Basic.Nack(2))
    await channel._on_confirm_frame(commands.Basic.Ack(6, multiple=True))

    with pytest.raises(Transient, match="refused 1 of 3"):
        await refused
    assert await accepted == []


async def test_a_queue_that_refuses_makes_publishing_transient(
    amqp_url: str, broker: RabbitBroker, names: Names
) -> None:
    async with await aio_pika.connect(amqp_url) as connection:
        channel = await connection.channel()
        full = await channel.declare_queue(
            exclusive=True,
            arguments={"x-max-length": 1, "x-overflow": "reject-publish"},
        )
        await full.bind(names.direct, "full")

        with pytest.raises(Transient, match="refused"):
            await broker.publish([names.message(number, to="full") for number in range(20)])


async def test_what_the_broker_does_not_take_is_not_repeated_in_the_log(
    broker: RabbitBroker, driver: AbstractConnection, names: Names
) -> None:
    """Neither by what we raise, nor by what the driver raises, which holds the message."""
    body = b"Quetzalcoatl"
    errors: list[Exception] = []
    for exchange in (names.direct, "nowhere"):
        try:
            await broker.publish([Outgoing(exchange, "nobody", body, str(new_id()), "test")])
        except (Transient, Unroutable) as error:
            errors.append(error)
    channel = await driver.channel(on_return_raises=True)
    with pytest.raises(Transient) as told, translated("publishing"):
        await channel.basic_publish(
            body, exchange=names.direct, routing_key="nobody", mandatory=True
        )
    assert isinstance(told.value.__cause__, aiormq.exceptions.PublishError)
    errors.append(told.value)
    assert len(errors) == 3
    for one in errors:
        line = tell_failure(None, "error", {"exc_info": one})
        assert "Traceback" in line["exception"]
        assert "Quetzalcoatl" not in f"{line} {one}"


async def test_what_is_unroutable_is_told_to_whoever_published_it(
    broker: RabbitBroker, names: Names
) -> None:
    """Many batches share the channel, and a return says only what it returns."""

    async def publish(number: int) -> bool:
        stray = number % 3 == 0
        to = "nobody" if stray else names.queue
        try:
            await broker.publish([*names.messages(5), names.message(number, to=to)])
        except Unroutable:
            return stray
        return not stray

    async with asyncio.timeout(PATIENCE):
        assert all(await asyncio.gather(*(publish(number) for number in range(60))))


async def test_the_same_message_twice_in_a_batch_is_returned_twice(
    driver: AbstractConnection, broker: RabbitBroker, names: Names
) -> None:
    channel = await ConfirmChannel.opened(driver)
    stray = names.message(to="nobody", message_id="same")

    async with asyncio.timeout(PATIENCE):
        returned = await channel.publish([stray, names.message(), replace(stray)])

    assert len(returned) == 2


async def test_whoever_stops_waiting_for_confirms_leaves_the_count_right(
    driver: AbstractConnection, broker: RabbitBroker, names: Names
) -> None:
    channel = await ConfirmChannel.opened(driver)
    usual, channel.write_queue = channel.write_queue, asyncio.Queue()
    cancelled = asyncio.create_task(channel.publish(names.messages(3)))
    frames = await channel.write_queue.get()
    cancelled.cancel()
    await asyncio.gather(cancelled, return_exceptions=True)
    channel.write_queue = usual
    await channel.write_queue.put(frames)

    async with asyncio.timeout(PATIENCE):
        stray = names.message(to="nobody")
        assert await channel.publish([names.message(), stray, names.message()]) == [stray]


async def test_whoever_stops_waiting_to_write_has_written_nothing(
    driver: AbstractConnection, broker: RabbitBroker, names: Names
) -> None:
    channel = await ConfirmChannel.opened(driver)
    usual, channel.write_queue = channel.write_queue, asyncio.Queue(maxsize=1)
    await channel.write_queue.put("in the way")
    cancelled = asyncio.create_task(channel.publish(names.messages(3)))

    async def is_writing() -> bool:
        return channel._writing.locked()

    await eventually(is_writing)
    cancelled.cancel()
    await asyncio.gather(cancelled, return_exceptions=True)
    channel.write_queue = usual

    async with asyncio.timeout(PATIENCE):
        stray = names.message(to="nobody")
        assert await channel.publish([names.message(), stray, names.message()]) == [stray]


async def test_a_cancellation_that_aiormq_leaves_behind_is_a_lost_connection() -> None:
    """It puts one into everything that waits on a connection which it closes."""
    left_behind: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    left_behind.set_exception(asyncio.CancelledError())

    with pytest.raises(Transient), translated("waiting"):
        await left_behind


async def test_a_cancellation_of_our_own_stays_one() -> None:
    waiting = asyncio.Event()

    async def wait() -> None:
        with translated("waiting"):
            waiting.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await waiting.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert task.cancelled()


# Queues


async def test_what_a_death_leaves_behind_names_the_reason(
    amqp_url: str, broker: RabbitBroker, names: Names
) -> None:
    async def receive(batch: Sequence[Incoming]) -> Sequence[Outcome]:
        return [Outcome.DEAD] * len(batch)

    async with (
        broker.subscribe(Subscription(queue=names.queue, receive=receive)),
        await aio_pika.connect(amqp_url) as connection,
    ):
        await broker.publish([names.message("bad", message_id="id-1")])
        channel = await connection.channel()
        dead = await channel.get_queue(f"{names.queue}.dead", ensure=False)
        arrived: asyncio.Future[aio_pika.abc.AbstractIncomingMessage] = (
            asyncio.get_running_loop().create_future()
        )

        async def take(message: aio_pika.abc.AbstractIncomingMessage) -> None:
            arrived.set_result(message)

        await dead.consume(take, no_ack=True)
        async with asyncio.timeout(PATIENCE):
            message = await arrived

    assert message.body == b"bad"
    assert message.message_id == "id-1"
    assert message.headers["x-first-death-reason"] == "rejected"
    assert message.headers["x-first-death-queue"] == names.queue


async def test_a_subscription_survives_the_deletion_of_its_queue(
    amqp_url: str, broker: RabbitBroker, names: Names
) -> None:
    inbox = Inbox()

    async with broker.subscribe(Subscription(queue=names.queue, receive=inbox)):
        await broker.publish([names.message("before")])
        await inbox.received(1)
        async with await aio_pika.connect(amqp_url) as connection, connection.channel() as channel:
            await channel.queue_delete(names.queue, if_unused=False, if_empty=False)
        await eventually(lambda: published(broker, names.message("after")))
        await inbox.received(2)

    assert inbox.bodies == ["before", "after"]


async def test_an_exchange_that_was_deleted_comes_back(
    amqp_url: str, broker: RabbitBroker, names: Names
) -> None:
    async with await aio_pika.connect(amqp_url) as connection, connection.channel() as channel:
        await channel.exchange_delete(names.direct)

    # The broker closes the channel over it; the adapter connects and declares anew.
    with pytest.raises(Transient):
        await broker.publish([names.message()])
    await eventually(lambda: published(broker, names.message()))


async def test_all_shards_can_be_subscribed_to_and_left_at_once(
    amqp_url: str, names: Names
) -> None:
    inbox = Inbox()
    queues = [f"{names.prefix}.shard.{number:02d}" for number in range(64)]
    topology = Topology(
        exchanges=(Exchange(names.direct, "direct"), Exchange(DEAD, "direct")),
        queues=tuple(Queue(name, single_active_consumer=True) for name in queues),
        bindings=tuple(Binding(name, names.direct, name) for name in queues),
    )

    async with (
        opened(amqp_url, topology) as broker,
        asyncio.timeout(PATIENCE),
        AsyncExitStack() as stack,
    ):
        for name in queues:
            subscription = Subscription(queue=name, receive=inbox, batch=100)
            await stack.enter_async_context(broker.subscribe(subscription))
        await broker.publish([names.message(to=name) for name in queues])
        await inbox.received(64)

    assert {message.queue for message in inbox.messages} == set(queues)


async def test_an_url_that_is_none_is_told_at_once() -> None:
    with pytest.raises((ValueError, KeyError)):
        async with RabbitBroker.connect("nonsense", name="integration"):
            pass
