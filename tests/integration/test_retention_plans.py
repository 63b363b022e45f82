"""What is forgotten is found by an index, however much there is, and costs nobody else anything."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from services.gateway.domain.event_names import Selection
from services.gateway.domain.principal import Scope
from services.gateway.store import accounts, events, media
from services.sessions.store import retention
from services.webhooks.store import deliveries
from shared.db.database import sqlalchemy_url
from tests.support.builders import NOON, an_instance, an_organization
from tests.support.keys import RING

DAY = timedelta(days=1)
MANY = 20_000
# Rows of as many tenants, whose turns come again and again; every two-thousandth is ours.
SEEDS = (
    """
    INSERT INTO gateway.events (sequence, id, tenant_id, type, time, body, logged_at)
    SELECT n, md5(n::text)::uuid, {tenant}, 'test', {at}, 'x', {at} FROM {many}
    """,
    """
    INSERT INTO webhooks.deliveries (id, tenant_id, endpoint_id, event_id, event_type,
    state, attempts, next_at, created_at) SELECT lpad(to_hex(n), 32, '0')::uuid,
    {tenant}, gen_random_uuid(), gen_random_uuid(), 'test', 'delivered', 1, {at}, {at}
    FROM {many}
    """,
    """
    INSERT INTO sessions.handovers SELECT gen_random_uuid(), gen_random_uuid(),
    {tenant}, gen_random_uuid(), 7, 1, n::text, {at}, 'sent' FROM {many}
    """,
    """
    INSERT INTO sessions.numbers SELECT {tenant}, 'sandbox', n::text, true, NULL, {at}
    FROM {many}
    """,
    """
    INSERT INTO sessions.inbound_media (id, tenant_id, instance_id, shard,
    engine_message_id, mime_type, status, due_at, created_at) SELECT md5(n::text)::uuid,
    {tenant}, gen_random_uuid(), 7, 'x', 'x', 'stored', {at}, {at} FROM {many}
    """,
    """
    INSERT INTO sessions.sandbox_wire (instance_id, shard, epoch, engine_message_id,
    sender, recipient, body, at) SELECT {instance}, 7, 1, n::text, 'x', 'x', '{{}}',
    {at} FROM {many}
    """,
    """
    INSERT INTO sessions.sandbox_refusals SELECT {instance}, n::text, 1, {at} FROM
    {many}
    """,
    """
    INSERT INTO sessions.sandbox_stanzas (instance_id, due_at, body) SELECT {instance},
    {at}, '{{}}' FROM {many}
    """,
    """
    INSERT INTO gateway.organizations (id, name, timezone, plan, created_at) SELECT
    md5('o' || n)::uuid, 'x', 'UTC', 'basic', {at} FROM {many}
    """,
    """
    INSERT INTO gateway.media (id, tenant_id, sha256, size, mime_type, created_at,
    deleted_at, erased_at) SELECT md5(n::text)::uuid, {ours}, n::text, 1, 'x', {at},
    late, late FROM {many}, LATERAL (SELECT CASE WHEN n % 1000 = 0 THEN {at} END AS
    late) AS l
    """,
)


class Explained:
    """A connection that tells how it would do what it is asked."""

    def __init__(self, sql: asyncpg.Connection) -> None:
        self._sql = sql
        self.plans: list[str] = []

    async def _explain(self, statement: str, given: Sequence[object]) -> None:
        rows = await self._sql.fetch(f"EXPLAIN (COSTS OFF) {statement}", *given)
        self.plans.append("\n".join(row[0] for row in rows))

    async def fetch(self, statement: str, *given: object) -> Any:
        await self._explain(statement, given)
        return await self._sql.fetch(statement, *given)

    async def fetchval(self, statement: str, *given: object) -> Any:
        await self._explain(statement, given)
        return await self._sql.fetchval(statement, *given)

    async def execute(self, statement: str, *given: object) -> Any:
        await self._explain(statement, given)
        return await self._sql.execute(statement, *given)


class World:
    """Much of everything, a little of it a tenant's."""

    def __init__(self, url: str, sql: asyncpg.Connection, tenant: UUID, instance: UUID) -> None:
        self.url = url
        self.sql = sql
        self.tenant = tenant
        self.instance = instance

    async def seed(self) -> None:
        """Fill the tables."""
        mine = "CASE WHEN n % 2000 = 0 THEN '{}'::uuid ELSE md5('o' || n % 500)::uuid END"
        names = {
            "ours": f"'{self.tenant}'::uuid",
            "tenant": mine.format(self.tenant),
            "instance": mine.format(self.instance),
            "at": f"'{NOON.isoformat()}'::timestamptz + n * interval '10 seconds'",
            "many": f"generate_series(1, {MANY}) AS n",
        }
        async with self.sql.transaction():
            for seed in SEEDS:
                await self.sql.execute(seed.format(**names))
        await self.sql.execute("ANALYZE")

    async def by_hot(self, ask: Callable[[Any], Awaitable[object]]) -> list[str]:
        """The plans of what a step asks a connection of the pool's own."""
        explained = Explained(self.sql)
        await ask(explained)
        return explained.plans

    async def by_tx(self, ask: Callable[[AsyncConnection], Awaitable[object]]) -> list[str]:
        """The plans of what a step asks in a transaction."""
        engine = create_async_engine(sqlalchemy_url(self.url))
        said: list[tuple[str, Sequence[Any]]] = []

        @event.listens_for(engine.sync_engine, "before_cursor_execute")
        def note(_c: Any, _u: Any, statement: str, parameters: Any, *_: Any) -> None:
            said.append((statement, parameters))

        try:
            async with engine.begin() as tx:
                await ask(tx)
                await tx.rollback()
        finally:
            await engine.dispose()
        explained = Explained(self.sql)
        for statement, parameters in said:
            await explained.fetch(statement, *parameters)
        return explained.plans


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    sql = await asyncpg.connect(database_url)
    tenant = await an_organization(sql)
    made = World(database_url, sql, tenant, await an_instance(sql, tenant))
    await made.seed()
    transaction = sql.transaction()
    await transaction.start()
    yield made
    await transaction.rollback()
    await sql.close()


def found(plans: Sequence[str], *indexes: str) -> None:
    """Nothing was read whole but what is empty here or has a row a tenant; these were used."""
    plan = "\n".join(plans)
    assert not re.search(r"Seq Scan on (?!event_log|tenant_logs|instances|attempts)", plan), plan
    missing = [index for index in indexes if index not in plan]
    assert not missing, f"{missing}\n{plan}"


async def test_the_log_is_read_and_forgotten_by_numbers_alone(world: World) -> None:
    before = NOON + DAY
    plans = await world.by_tx(
        lambda tx: events.page(tx, Scope(world.tenant), Selection(), ring=RING, after=0, limit=100)
    )
    found(plans, "ix_events_tenant_id_sequence")
    found(await world.by_tx(lambda tx: events.forget(tx, before=before, at_most=100)), "pk_events")
    plans = await world.by_tx(
        lambda tx: events.forget_of(tx, world.tenant, before=before, at_most=100)
    )
    found(plans, "ix_events_tenant_id_sequence", "pk_events")
    names = await world.sql.fetch("SELECT indexname FROM pg_indexes WHERE tablename = 'events'")
    assert {row[0] for row in names} == {
        "pk_events",
        "uq_events_id",
        "ix_events_tenant_id_sequence",
    }


async def test_nobody_who_keeps_all_is_looked_at(world: World) -> None:
    by_tx = await world.by_tx(lambda tx: accounts.retentions(tx, shorter_than=7 * DAY))
    by_hot = [
        *await world.by_hot(lambda on: deliveries.retentions(on, shorter_than=7 * DAY)),
        *await world.by_hot(lambda on: retention.retentions(on, shorter_than=7 * DAY)),
    ]
    found([*by_tx, *by_hot], "ix_organizations_retention")
    assert len([*by_tx, *by_hot]) == 3


async def test_deliveries_of_one_tenant_are_found_by_it(world: World) -> None:
    plans = await world.by_hot(
        lambda on: deliveries.forget_of(on, world.tenant, before=NOON + DAY, limit=100)
    )
    found(plans, "ix_deliveries_tenant_id_id")


async def test_what_sessions_forget_of_one_tenant_is_found_by_it(world: World) -> None:
    before = NOON + DAY
    found(
        await world.by_hot(lambda on: retention.forget_of(on, world.tenant, before=before)),
        "pk_numbers",
        "on inbound_media",
        "uq_sandbox_wire_instance_id_engine_message_id",
        "pk_sandbox_refusals",
        "ix_sandbox_stanzas_instance_id_due_at",
    )
    plans = await world.by_hot(
        lambda on: retention.forget_handovers(
            on, [world.tenant], since=before - timedelta(minutes=10), before=before
        )
    )
    found(plans, "ix_handovers_handed_over_at")


async def test_rows_of_files_that_are_gone_are_found_among_many(world: World) -> None:
    found(await world.by_hot(retention.forget_erased), "ix_media_erased", "pk_inbound_media")
    plans = await world.by_tx(lambda tx: media.forget(tx, erased_before=NOON, at_most=100))
    found(plans, "ix_media_erased")
