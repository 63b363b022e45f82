"""What the session service forgets sooner: of organizations that keep messages for less."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from services.sessions.loops import Forgetting
from services.sessions.store import retention
from shared.db.database import Database
from shared.ids import new_id
from tests.support.builders import an_instance, an_organization
from tests.support.clock import HandClock
from tests.support.files import an_inbound_file

DAY = timedelta(days=1)
NUMBER = "12025550142"
OF_A_MESSAGE = (
    "handovers",
    "numbers",
    "sandbox_refusals",
    "sandbox_stanzas",
    "sandbox_wire",
)


class World:
    """Two organizations, of which one keeps messages for two days, and what is known of both."""

    def __init__(self, database: Database, sql: asyncpg.Connection) -> None:
        self.database = database
        self.sql = sql
        self.clock = HandClock()
        self.forgetting = self.process()
        self.brief: UUID
        self.other: UUID
        self.instances: dict[UUID, UUID] = {}

    def process(self) -> Forgetting:
        """Another process, which has not forgotten anything yet."""
        return Forgetting(database=self.database, clock=self.clock, keep=7 * DAY)

    async def tenant(self, *, days: int) -> UUID:
        made = await an_organization(self.sql)
        await self.keep_for(made, days)
        self.instances[made] = await an_instance(self.sql, made)
        return made

    async def keep_for(self, tenant: UUID, days: int) -> None:
        await self.sql.execute(
            "UPDATE gateway.organizations SET retention_days = $2 WHERE id = $1", tenant, days
        )

    async def happen(self, tenant: UUID, *, age: timedelta, outcome: str | None = "sent") -> None:
        """A message went through: everything that this leaves behind."""
        at, instance, engine_id = self.clock.now() - age, self.instances[tenant], new_id().hex
        await self.sql.execute(
            "INSERT INTO sessions.handovers VALUES (gen_random_uuid(), gen_random_uuid(), $1, $2,"
            " 7, 1, $3, $4, $5)",
            tenant,
            instance,
            engine_id,
            at,
            outcome,
        )
        await self.sql.execute(
            "INSERT INTO sessions.numbers VALUES ($1, 'sandbox', $2, true, NULL, $3)",
            tenant,
            engine_id,
            at,
        )
        await self.sql.execute(
            "INSERT INTO sessions.sandbox_wire (instance_id, shard, epoch, engine_message_id,"
            " sender, recipient, body, at) VALUES ($1, 7, 1, $2, 'x', $3, '{}', $4)",
            instance,
            engine_id,
            NUMBER,
            at,
        )
        await self.sql.execute(
            "INSERT INTO sessions.sandbox_refusals VALUES ($1, $2, 1, $3)", instance, engine_id, at
        )
        await self.sql.execute(
            "INSERT INTO sessions.sandbox_stanzas (instance_id, due_at, body)"
            " VALUES ($1, $2, '{}')",
            instance,
            at,
        )

    async def left(self) -> dict[str, int]:
        """How much is left of each, whosever it is."""
        return {
            table: await self.sql.fetchval(f"SELECT count(*) FROM sessions.{table}")
            for table in OF_A_MESSAGE
        }

    async def a_file(self, tenant: UUID, **given: Any) -> str:
        given = {"filename": f"from {NUMBER}.pdf", "created_at": self.clock.now(), **given}
        return await an_inbound_file(self.sql, tenant, self.instances[tenant], **given)

    async def gone(self, file: str, tenant: UUID, *, erased_at: datetime | None) -> None:
        """The gateway says that a received file is deleted."""
        await self.sql.execute(
            "INSERT INTO gateway.media (id, tenant_id, sha256, size, mime_type, created_at,"
            " deleted_at, erased_at) VALUES ($1, $2, 'x', 1, 'x', $3, $3, $4)",
            UUID(file),
            tenant,
            self.clock.now(),
            erased_at,
        )

    async def files(self) -> dict[str, str]:
        rows = await self.sql.fetch("SELECT id, status FROM sessions.inbound_media")
        return {str(row[0]): row[1] for row in rows}


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    sql = await asyncpg.connect(database_url)
    async with Database.open(database_url, role="waypost_sessions") as database:
        made = World(database, sql)
        made.brief = await made.tenant(days=2)
        made.other = await made.tenant(days=0)
        yield made
    await sql.close()


def each(number: int) -> dict[str, int]:
    return dict.fromkeys(OF_A_MESSAGE, number)


async def test_what_messages_leave_behind_goes_with_them(world: World) -> None:
    for tenant in (world.brief, world.other):
        for age in (3 * DAY, DAY):
            await world.happen(tenant, age=age)
    await world.forgetting.step()
    assert await world.left() == each(3)
    world.clock.move(1.5 * DAY)
    await world.forgetting.step()
    assert await world.left() == each(2)


async def test_nobody_else_s_goes_before_its_time(world: World) -> None:
    await world.keep_for(world.brief, 30)
    for tenant in (world.brief, world.other):
        await world.happen(tenant, age=6 * DAY)
    await world.forgetting.step()
    assert await world.left() == each(2)


async def test_who_chooses_later_is_not_forgotten_about(world: World) -> None:
    await world.happen(world.other, age=3 * DAY)
    await world.forgetting.step()
    assert await world.left() == each(1)
    await world.keep_for(world.other, 2)
    await world.forgetting.step()
    assert await world.left() == each(0)


async def test_what_is_not_settled_stays_for_who_settles_it(world: World) -> None:
    await world.happen(world.brief, age=3 * DAY, outcome=None)
    await world.forgetting.step()
    assert (await world.left())["handovers"] == 1


async def test_it_goes_in_batches_and_another_process_finds_the_rest(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH", 2)
    for _ in range(5):
        await world.happen(world.brief, age=3 * DAY)
    await world.process().step()
    assert await world.left() == each(0)


async def test_the_row_of_a_received_file_goes_with_the_file(world: World) -> None:
    kept, going, gone = [await world.a_file(world.other) for _ in range(3)]
    await world.gone(going, world.other, erased_at=None)
    await world.gone(gone, world.other, erased_at=world.clock.now())
    await world.forgetting.step()
    assert (await world.files()).keys() == {kept, going}


async def test_what_waits_longer_than_messages_are_kept_is_not_fetched_any_more(
    world: World,
) -> None:
    late = world.clock.now() - 3 * DAY
    briefs, others = [
        await world.a_file(tenant, status="waiting", created_at=late)
        for tenant in (world.brief, world.other)
    ]
    await world.forgetting.step()
    assert await world.files() == {briefs: "failed", others: "waiting"}
