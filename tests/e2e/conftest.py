"""The same customers against both ways to run: one process, or five over RabbitMQ."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support import system as systems
from tests.support.customer import Customer, Sink
from tests.support.postgres import Postgres
from tests.support.rabbitmq import Rabbit
from tests.support.system import System


@pytest_asyncio.fixture(scope="session", loop_scope="session", params=["embedded", "distributed"])
async def system(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[System]:
    """A running Waypost, started once for all tests."""
    folder: Path = tmp_path_factory.mktemp(request.param)
    if request.param == "embedded":
        async with systems.embedded(folder) as running:
            yield running
        return
    postgres: Postgres = request.getfixturevalue("postgres")
    rabbit: Rabbit = request.getfixturevalue("rabbit")
    migrated: str = request.getfixturevalue("migrated")
    with rabbit.vhost() as amqp_url:
        async with (
            postgres.database(template=migrated) as database_url,
            systems.distributed(folder, database_url, amqp_url) as running,
        ):
            yield running


@pytest_asyncio.fixture(loop_scope="session")
async def customer(system: System) -> AsyncIterator[Customer]:
    """A new customer of it."""
    async with Customer.of(system.url) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="session")
async def sink() -> AsyncIterator[Sink]:
    """Where the customer's webhooks go."""
    async with Sink.listening() as made:
        yield made
