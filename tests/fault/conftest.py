"""A whole Waypost to break."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support import system as systems
from tests.support.system import System


@pytest.fixture
async def system(tmp_path: Path, database_url: str, own_amqp_url: str) -> AsyncIterator[System]:
    """Five processes over RabbitMQ and PostgreSQL, with leases short enough for a test."""
    async with systems.distributed(
        tmp_path, database_url, own_amqp_url, WAYPOST_SESSIONS_LEASE_TTL="6"
    ) as running:
        yield running
