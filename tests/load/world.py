"""Five processes and forty connected instances for the measurements of the whole pipeline."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from services.gateway.api.callers import REMEMBERED
from tests.support import system as systems
from tests.support.customer import Customer, together
from tests.support.system import System

INSTANCES = 40


@dataclass(frozen=True)
class World:
    """What a measurement needs: a system, a customer, their instances, and the tables."""

    system: System
    customer: Customer
    instances: list[dict[str, Any]]
    sql: asyncpg.Connection

    @property
    def port(self) -> int:
        """The API's."""
        return int(self.system.url.rsplit(":", 1)[1])


@asynccontextmanager
async def running(
    folder: Path,
    database_url: str,
    amqp_url: str,
    *,
    settings: object = None,
    many: int = INSTANCES,
) -> AsyncIterator[World]:
    """All of it, ready."""
    sql = await asyncpg.connect(database_url)
    try:
        async with (
            systems.distributed(folder, database_url, amqp_url) as system,
            Customer.of(system.url) as customer,
        ):
            await sql.execute("UPDATE gateway.organizations SET plan = 'max'")
            instances = await together(
                *(customer.instance(settings=settings) for _ in range(many)), at_once=8
            )
            await sql.execute("UPDATE gateway.instance_keys SET rate_limit = 1000000000")
            # So long keys and their limits are remembered.
            await asyncio.sleep(REMEMBERED.total_seconds())
            yield World(system, customer, instances, sql)
    finally:
        await sql.close()
