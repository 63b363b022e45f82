"""What becomes of messages when the way to the broker breaks, through a proxy that breaks it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import timedelta
from urllib.parse import urlsplit

import pytest

from shared.broker.port import Incoming, Outgoing, Subscription
from shared.broker.rabbitmq import RabbitBroker
from shared.errors import Transient
from tests.support.broker import Inbox, Names, remove_from_rabbitmq
from tests.support.chaos_proxy import ChaosProxy
from tests.support.eventually import eventually

PUBLISH_TIMEOUT = timedelta(milliseconds=500)
# What a call may take over its timeout, and what leaving a broken connection may take.
MARGIN = 2.0
PATIENCE = timedelta(seconds=30)

Connect = Callable[[], AbstractAsyncContextManager[RabbitBroker]]


@pytest.fixture
def names() -> Names:
    return Names()


@pytest.fixture
async def proxy(amqp_url: str) -> AsyncIterator[ChaosProxy]:
    address = urlsplit(amqp_url)
    async with ChaosProxy.before(address.hostname or "127.0.0.1", address.port or 5672) as proxy:
        yield proxy


@pytest.fixture
async def connect(amqp_url: str, proxy: ChaosProxy, names: Names) -> AsyncIterator[Connect]:
    """Opens a broker through the proxy; what it declared is deleted past the proxy."""
    address = urlsplit(amqp_url)
    login, _, _ = address.netloc.rpartition("@")
    url = address._replace(netloc=f"{login}@127.0.0.1:{proxy.port}").geturl()
    yield lambda: RabbitBroker.connect(
        url,
        name="fault",
        topology=names.topology(),
        publish_timeout=PUBLISH_TIMEOUT,
        retry_delay=timedelta(milliseconds=5),
    )
    await remove_from_rabbitmq(amqp_url, names.topology())


async def publish_until_safe(broker: RabbitBroker, messages: list[Outgoing]) -> int:
    """Publish as an outbox does, again and again; return how often it took."""
    attempts = 0

    async def safe() -> bool:
        nonlocal attempts
        attempts += 1
        try:
            async with asyncio.timeout(PUBLISH_TIMEOUT.total_seconds() + MARGIN):
                await broker.publish(messages)
        except Transient:
            return False
        return True

    await eventually(safe, within=PATIENCE)
    return attempts


async def is_connected(broker: RabbitBroker) -> bool:
    return broker.connected()


async def test_nothing_is_lost_when_connections_are_reset_under_load(
    connect: Connect, proxy: ChaosProxy, names: Names
) -> None:
    inbox = Inbox()
    batches = [
        [names.message(number) for number in range(first, first + 50)]
        for first in range(0, 3000, 50)
    ]

    async with (
        connect() as broker,
        broker.subscribe(Subscription(queue=names.queue, receive=inbox, batch=20)),
    ):
        repeated = 0
        for number, batch in enumerate(batches):
            if number % 20 == 10:
                asyncio.get_running_loop().call_soon(proxy.reset)
            repeated += await publish_until_safe(broker, batch) - 1
        await inbox.until(lambda: len(set(inbox.bodies)) == 3000)

    assert repeated >= 3
    assert {int(body) for body in inbox.bodies} == set(range(3000))


async def test_publishing_into_a_black_hole_is_transient_in_time_and_works_afterwards(
    connect: Connect, proxy: ChaosProxy, names: Names
) -> None:
    inbox = Inbox()

    async with (
        connect() as broker,
        broker.subscribe(Subscription(queue=names.queue, receive=inbox)),
    ):
        await broker.publish([names.message("before")])
        await inbox.received(1)

        proxy.blackhole()
        async with asyncio.timeout(PUBLISH_TIMEOUT.total_seconds() + MARGIN):
            with pytest.raises(Transient):
                await broker.publish([names.message("lost or late")])

        await proxy.heal()
        await publish_until_safe(broker, [names.message("after")])
        await inbox.until(lambda: "after" in inbox.bodies)


async def test_a_connection_that_no_longer_answers_is_replaced(
    connect: Connect, proxy: ChaosProxy, names: Names
) -> None:
    """Long before heartbeats are missed, which takes half a minute."""
    async with connect() as broker:
        proxy.stall()
        async with asyncio.timeout(10):
            attempts = await publish_until_safe(broker, [names.message()])
        assert attempts > 1


async def test_many_who_publish_into_a_black_hole_all_hear_of_it(
    connect: Connect, proxy: ChaosProxy, names: Names
) -> None:
    async with connect() as broker:
        proxy.blackhole()
        async with asyncio.timeout(PUBLISH_TIMEOUT.total_seconds() + MARGIN):
            results = await asyncio.gather(
                *(broker.publish(names.messages(100)) for _ in range(50)), return_exceptions=True
            )
        assert all(isinstance(result, Transient) for result in results)


async def test_a_reset_is_transient_at_once_and_never_a_cancellation(
    connect: Connect, proxy: ChaosProxy, names: Names
) -> None:
    async with connect() as broker:
        proxy.blackhole()
        publishing = [asyncio.create_task(broker.publish(names.messages(10))) for _ in range(5)]
        asyncio.get_running_loop().call_soon(proxy.reset)
        async with asyncio.timeout(PUBLISH_TIMEOUT.total_seconds() + MARGIN):
            results = await asyncio.gather(*publishing, return_exceptions=True)
        assert all(isinstance(result, Transient) for result in results)


async def test_a_broker_that_is_down_does_not_keep_a_service_from_starting(
    connect: Connect, proxy: ChaosProxy, names: Names
) -> None:
    inbox = Inbox()
    await proxy.refuse()

    async with connect() as broker:
        assert not broker.connected()
        with pytest.raises(Transient):
            await broker.publish([names.message("too early")])
        async with broker.subscribe(Subscription(queue=names.queue, receive=inbox)):
            await proxy.heal()
            await publish_until_safe(broker, [names.message("in time")])
            await inbox.received(1)
            await eventually(lambda: is_connected(broker), within=PATIENCE)

    assert inbox.bodies == ["in time"]


async def test_a_broker_that_does_not_answer_does_not_keep_a_service_from_starting(
    connect: Connect, proxy: ChaosProxy, names: Names
) -> None:
    proxy.blackhole()

    async with asyncio.timeout(PATIENCE.total_seconds()), connect() as broker:
        assert not broker.connected()
        await proxy.heal()
        await publish_until_safe(broker, [names.message()])


async def test_readiness_follows_the_connection(
    connect: Connect, proxy: ChaosProxy, names: Names
) -> None:
    async with connect() as broker:
        assert broker.connected()
        await proxy.refuse()

        async def is_down() -> bool:
            return not broker.connected()

        await eventually(is_down, within=PATIENCE)
        await proxy.heal()
        await eventually(lambda: is_connected(broker), within=PATIENCE)


async def test_a_message_that_is_being_received_when_the_connection_breaks_comes_again(
    connect: Connect, proxy: ChaosProxy, names: Names
) -> None:
    inbox = Inbox(open_=False)

    async with (
        connect() as broker,
        broker.subscribe(Subscription(queue=names.queue, receive=inbox)),
    ):
        await broker.publish([names.message("twice")])
        await inbox.received(1)
        proxy.reset()
        inbox.gate.set()
        received = await inbox.received(2)
        await publish_until_safe(broker, [names.message("next")])
        await inbox.received(3)

    assert [message.attempt for message in received[:2]] == [1, 2]
    assert inbox.bodies == ["twice", "twice", "next"]
    assert inbox.most_at_once == 1


async def test_the_connection_is_opened_again_as_often_as_it_breaks(
    connect: Connect, proxy: ChaosProxy, names: Names
) -> None:
    inbox = Inbox()

    async with (
        connect() as broker,
        broker.subscribe(Subscription(queue=names.queue, receive=inbox)),
    ):
        for number in range(5):
            proxy.reset()
            await publish_until_safe(broker, [names.message(number)])
            await inbox.until(lambda number=number: str(number) in inbox.bodies)  # type: ignore[misc]

    assert proxy.accepted >= 7


@pytest.mark.parametrize("fault", ["blackhole", "refuse"])
async def test_leaving_does_not_wait_for_a_broker_that_is_gone(
    connect: Connect, proxy: ChaosProxy, names: Names, fault: str
) -> None:
    inbox = Inbox()

    async with asyncio.timeout(PATIENCE.total_seconds()):
        async with (
            connect() as broker,
            broker.subscribe(Subscription(queue=names.queue, receive=inbox)),
        ):
            await broker.publish([names.message()])
            await inbox.received(1)
            if fault == "blackhole":
                proxy.blackhole()
            else:
                await proxy.refuse()
            began = asyncio.get_running_loop().time()

    # Five seconds each to unsubscribe and to close the channel, three for the connections.
    assert asyncio.get_running_loop().time() - began < 15


async def test_a_listener_listens_again_after_its_connection_was_lost(
    connect: Connect, proxy: ChaosProxy, names: Names
) -> None:
    heard: set[bytes] = set()

    def hear(message: Incoming) -> None:
        heard.add(message.body)

    async def is_heard(broker: RabbitBroker, body: str) -> bool:
        lost_if_nobody_listens = replace(names.message(body, to="me"), mandatory=False)
        try:
            await broker.publish([lost_if_nobody_listens])
        except Transient:
            return False
        return body.encode() in heard

    async with connect() as broker, broker.listen(names.direct, "me", hear):
        await eventually(lambda: is_heard(broker, "before"), within=PATIENCE)

        proxy.reset()
        await eventually(lambda: is_heard(broker, "after a reset"), within=PATIENCE)

        await proxy.refuse()
        await proxy.heal()
        await eventually(lambda: is_heard(broker, "after an outage"), within=PATIENCE)
        assert broker.connected()


async def test_a_listener_may_come_while_the_broker_is_away_and_hears_once_it_is_back(
    connect: Connect, proxy: ChaosProxy, names: Names
) -> None:
    heard = asyncio.Event()
    await proxy.refuse()

    async def is_heard(broker: RabbitBroker) -> bool:
        try:
            await broker.publish([replace(names.message(to="me"), mandatory=False)])
        except Transient:
            return False
        return heard.is_set()

    async with connect() as broker, broker.listen(names.direct, "me", lambda _: heard.set()):
        await proxy.heal()
        await eventually(lambda: is_heard(broker), within=PATIENCE)
