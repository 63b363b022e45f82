"""Every adapter of a port, as one parameter."""

from abc import abstractmethod
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from typing import Protocol

import pytest

from shared.broker.memory import MemoryBroker
from shared.broker.port import Broker
from shared.broker.rabbitmq import RabbitBroker
from shared.broker.topology import Topology
from tests.support.broker import Names, next_on_rabbitmq, remove_from_rabbitmq

# So that a message is given up soon; the rules are the same with any number.
DELIVERY_LIMIT = 3
RETRY_DELAY = timedelta(milliseconds=5)


class Carrier(Protocol):
    """A kind of broker: how to open one, and how to look at what it has given up."""

    @abstractmethod
    def open(self, topology: Topology) -> AbstractAsyncContextManager[Broker]: ...

    @abstractmethod
    async def dead_letter(self, queue: str) -> bytes:
        """The body of the next dead letter of a queue; only while the broker is open."""
        ...


class MemoryCarrier:
    def __init__(self) -> None:
        self._broker: MemoryBroker | None = None

    @asynccontextmanager
    async def open(self, topology: Topology) -> AsyncIterator[Broker]:
        self._broker = MemoryBroker(
            topology, retry_delay=RETRY_DELAY, delivery_limit=DELIVERY_LIMIT
        )
        yield self._broker

    async def dead_letter(self, queue: str) -> bytes:
        assert self._broker is not None
        return self._broker.dead_letters(queue)[0].body


class RabbitCarrier:
    def __init__(self, url: str) -> None:
        self._url = url

    @asynccontextmanager
    async def open(self, topology: Topology) -> AsyncIterator[Broker]:
        try:
            async with RabbitBroker.connect(
                self._url,
                name="contract",
                topology=topology,
                retry_delay=RETRY_DELAY,
                delivery_limit=DELIVERY_LIMIT,
            ) as broker:
                yield broker
        finally:
            await remove_from_rabbitmq(self._url, topology)

    async def dead_letter(self, queue: str) -> bytes:
        return await next_on_rabbitmq(self._url, f"{queue}.dead")


@pytest.fixture(params=["memory", "rabbitmq"])
def carrier(request: pytest.FixtureRequest) -> Carrier:
    if request.param == "memory":
        return MemoryCarrier()
    # Asked for only here: the run in memory must not need a RabbitMQ.
    return RabbitCarrier(request.getfixturevalue("amqp_url"))


@pytest.fixture
def names() -> Names:
    return Names()


@pytest.fixture
async def broker(carrier: Carrier, names: Names) -> AsyncIterator[Broker]:
    async with carrier.open(names.topology()) as broker:
        yield broker
