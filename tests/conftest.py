"""What every suite shares: the services that tests run against, and the account at the end."""

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
import structlog

from shared.db.migrate import upgrade
from tests.support import postgres as postgres_support
from tests.support import rabbitmq as rabbitmq_support
from tests.support.postgres import Postgres
from tests.support.rabbitmq import Rabbit

# As structlog does by itself, but for tracebacks: those of rich take it a tenth of a second each.
structlog.configure(
    processors=[
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%Y-%m-%d %H:%M:%S", utc=False),
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
    ]
)

pytest_plugins = ["tests.support.account", "tests.support.sharing"]


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server, found or started."""
    with postgres_support.running() as server:
        yield server


@pytest.fixture(scope="session")
def migrated(postgres: Postgres) -> Iterator[str]:
    """The name of a database with the current schema, to be copied and never used."""
    with postgres.template(upgrade) as name:
        yield name


@pytest.fixture
async def database_url(postgres: Postgres, migrated: str) -> AsyncIterator[str]:
    """A database of the test's own, with the current schema and no rows."""
    async with postgres.database(template=migrated) as url:
        yield url


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_database_url(postgres: Postgres, migrated: str) -> AsyncIterator[str]:
    """One like it for all tests of a module, which each begin by removing what the last one left.

    Copying a database takes longer than most tests.
    """
    async with postgres.database(template=migrated) as url:
        yield url


@pytest.fixture
async def empty_database_url(postgres: Postgres) -> AsyncIterator[str]:
    """A database of the test's own without any schema, for tests of the migrations."""
    async with postgres.database() as url:
        yield url


@pytest.fixture(scope="session")
def rabbit() -> Iterator[Rabbit]:
    """A RabbitMQ node, found or started."""
    with rabbitmq_support.running() as node:
        yield node


@pytest.fixture(scope="session")
def amqp_url(rabbit: Rabbit) -> Iterator[str]:
    """A virtual host that all tests of the run share: name your queues, or use them up."""
    with rabbit.vhost() as url:
        yield url


@pytest.fixture
def own_amqp_url(rabbit: Rabbit) -> Iterator[str]:
    """A virtual host of the test's own; not for free, so for whole systems only."""
    with rabbit.vhost() as url:
        yield url
