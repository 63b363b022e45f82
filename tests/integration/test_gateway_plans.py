"""Lists and searches are read from indexes, in their order, however much there is."""

import re
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import create_async_engine

from services.gateway.domain.principal import Scope
from services.gateway.store import messages
from services.gateway.store.messages import Wanted
from shared.db.database import sqlalchemy_url
from shared.messaging import words
from tests.support.builders import NOON, an_instance, an_organization
from tests.support.keys import RING
from tests.support.many import RARE, seed

MANY = 60_000
DEEP = MANY // 4


class Planned:
    """The messages of a tenant, and the plans of what is asked about them."""

    def __init__(self, url: str, sql: asyncpg.Connection, tenant: UUID) -> None:
        self.url = url
        self.sql = sql
        self.tenant = tenant

    async def page(self, wanted: Wanted, **more: Any) -> str:
        """The plan of one page."""
        plans = await self._plans(
            lambda tx: messages.page(tx, Scope(self.tenant), wanted, limit=51, **more)
        )
        return "\n".join(plans)

    async def search(self, *asked: str) -> list[str]:
        """The plans of a search: counting, looking, reading."""
        hashed = [[one] for one in words.hashes(RING.index_keys(self.tenant)[0], asked)]
        return await self._plans(
            lambda tx: messages.search(tx, Scope(self.tenant), Wanted(), hashed, limit=51)
        )

    async def _plans(self, ask: Any) -> list[str]:
        engine = create_async_engine(sqlalchemy_url(self.url))
        said: list[tuple[str, Sequence[Any]]] = []

        @event.listens_for(engine.sync_engine, "before_cursor_execute")
        def note(_c: Any, _u: Any, statement: str, parameters: Any, *_: Any) -> None:
            said.append((statement, parameters))

        try:
            async with engine.begin() as tx:
                await ask(tx)
        finally:
            await engine.dispose()
        plans = []
        for statement, parameters in said:
            rows = await self.sql.fetch(f"EXPLAIN (COSTS OFF) {statement}", *parameters)
            plans.append("\n".join(row[0] for row in rows))
        return plans


@pytest.fixture
async def planned(database_url: str) -> AsyncIterator[Planned]:
    """A tenant with enough messages for plans to be what they are with many more."""
    sql = await asyncpg.connect(database_url)
    tenant = await an_organization(sql)
    instance = await an_instance(sql, tenant)
    await seed(sql, tenant, instance, many=MANY)
    yield Planned(database_url, sql, tenant)
    await sql.close()


def straight(plan: str) -> None:
    """Neither read whole nor sorted."""
    assert not re.search(r"Seq Scan|Sort", plan), plan


async def test_pages_come_from_the_index_in_their_order(planned: Planned) -> None:
    by_sequence = "Index Scan Backward using ix_messages_tenant_id_sequence"
    day = timedelta(days=1)
    for wanted, more, index in (
        (Wanted(), {}, by_sequence),
        (Wanted(), {"after": DEEP}, by_sequence),
        (Wanted(statuses=("read",)), {}, by_sequence),
        (Wanted(since=NOON + 20 * day), {}, by_sequence),
        (Wanted(types=("poll",)), {}, "Scan Backward using ix_messages_kind"),
        (Wanted(statuses=("failed",)), {}, "Scan Backward using ix_messages_ended"),
        (
            Wanted(chat="12025600007@s.whatsapp.net"),
            {},
            "Scan Backward using ix_messages_tenant_id_chat_sequence",
        ),
    ):
        plan = await planned.page(wanted, **more)
        assert index in plan, plan
        straight(plan)


async def test_a_day_of_long_ago_is_found_by_its_place_on_the_disk(planned: Planned) -> None:
    day = timedelta(days=1)
    plan = await planned.page(Wanted(since=NOON + 2 * day, before=NOON + 2.2 * day))
    assert "Bitmap Index Scan on ix_messages_created_at" in plan, plan
    assert "Seq Scan" not in plan


async def test_a_search_reads_the_newest_of_its_rarest_word(planned: Planned) -> None:
    for asked in (("hello",), ("hello", "order"), ("refund", "anaconda", "hello")):
        counted, looked, *read = await planned.search(*asked)
        for plan in (counted, looked, *read):
            assert "Seq Scan" not in plan, plan
        assert "Index Only Scan Backward using pk_message_words" in looked, looked
        for plan in read:
            assert "ix_messages_tenant_id_sequence" in plan, plan
    assert MANY > RARE
