"""What becomes of messages when the way to the broker breaks, through a proxy that breaks it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from time import monotonic
from urllib.parse import urlsplit

import pytest

from shared.broker.port import Incoming, Outcome, Outgoing, Subscription
from shared.broker.rabbitmq import RabbitBroker
from shared.errors import Transient
from tests.support.broker import PATIENCE, Inbox, Names, remove_from_rabbitmq
from tests.support.chaos_proxy import ChaosProxy
from tests.support.eventually import eventually

PUBLISH_TIMEOUT = timedelta(milliseconds=500)
SOON = timedelta(milliseconds=5)


@pytest.fixture
def names() -> Names:
    return Names()


@pytest.fixture
async def proxy(amqp_url: str) -> AsyncIterator[ChaosProxy]:
    address = urlsplit(amqp_url)
    async with ChaosProxy.before(address.hostname or "127.0.0.1", address.port or 5672) as proxy:
        yield proxy


@pytest.fixture
async def connect(
    amqp_url: str, proxy: ChaosProxy, names: Names
) -> AsyncIterator[Callable[[], RabbitContext]]:
    """Opens a broker through the proxy; what it declared is deleted past the proxy."""
    address = urlsplit(amqp_url)
    login, _, _ = address.netloc.rpartition("@")
    url = address._replace(netloc=f"{login}@127.0.0.1:{proxy.port}").geturl()
    yield lambda: RabbitBroker.connect(
        url,
        name="fault",
        topology=names.topology(),
        publish_timeout=PUBLISH_TIMEOUT,
        retry_delay=SOON,
    )
    await remove_from_rabbitmq(amqp_url, names.topology())
