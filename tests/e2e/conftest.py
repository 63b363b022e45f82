"""The same customers against both ways to run: one process, or five over RabbitMQ."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support import system as systems
from tests.support.customer import Customer, Sink
from tests.support.meta import Meta
from tests.support.postgres import Postgres
from tests.support.rabbitmq import Rabbit
from tests.support.system import System


@dataclass(frozen=True)
class Place:
    """Where a Waypost of five processes runs; made before any event loop turns."""

    postgres: Postgres
    template: str
    amqp_url: str


@pytest.fixture(scope="session", params=["embedded", "distributed"])
def place(request: pytest.FixtureRequest) -> Iterator[Place | None]:
    """PostgreSQL and RabbitMQ for five processes, or nothing for the embedded one."""
    if request.param == "embedded":
        yield None
        return
    rabbit: Rabbit = request.getfixturevalue("rabbit")
    with rabbit.vhost() as amqp_url:
        yield Place(
            request.getfixturevalue("postgres"), request.getfixturevalue("migrated"), amqp_url
        )


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def meta() -> AsyncIterator[Meta]:
    """The Meta that instances of the Cloud API speak to."""
    async with Meta.running() as running:
        yield running


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def system(
    place: Place | None, meta: Meta, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[System]:
    """A running Waypost, started once for all tests."""
    folder: Path = tmp_path_factory.mktemp("waypost")
    if place is None:
        async with systems.embedded(folder, WAYPOST_SESSIONS_CLOUD_API_URL=meta.url) as running:
            yield running
        return
    async with (
        place.postgres.database(template=place.template) as database_url,
        systems.distributed(
            folder, database_url, place.amqp_url, WAYPOST_SESSIONS_CLOUD_API_URL=meta.url
        ) as running,
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
