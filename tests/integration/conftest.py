"""What the integration tests share: services over a real database."""

from collections.abc import AsyncIterator

import pytest

from tests.support import gateway as gateway_support
from tests.support.gateway import Gateway, Sender


@pytest.fixture
async def gateway(database_url: str) -> AsyncIterator[Gateway]:
    """A gateway that serves, with nobody behind it."""
    async with gateway_support.running(database_url) as running:
        yield running


@pytest.fixture
async def sender(gateway: Gateway) -> Sender:
    """A customer that acts as one ready instance."""
    return await gateway.sender()
