"""Histories: sealed, indexed, erased and deleted, whatever dies in between."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from prometheus_client import CollectorRegistry

from services.dispatcher import loops
from services.dispatcher.loops import History, Retention
from services.dispatcher.metrics import DispatcherMetrics
from services.dispatcher.store import history
from shared.db.database import Database
from shared.ids import new_id
from shared.messaging import words
from shared.security.sealing import Key, KeyRing
from tests.support.builders import NOON, a_message_row, an_instance, an_organization
from tests.support.clock import HandClock
from tests.support.keys import KEYS, RING, said


class World:
    """A tenant with an instance and the loops that look after its history."""

    def __init__(self, database: Database, sql: asyncpg.Connection) -> None:
        self.database = database
        self.sql = sql
        self.clock = HandClock()
        self.metrics = DispatcherMetrics(CollectorRegistry())
        self.history = self.with_ring(RING)
        self.retention = Retention(database=database, clock=self.clock, metrics=self.metrics)
        self.tenant: UUID
        self.instance: UUID

    def with_ring(self, ring: KeyRing) -> History:
        return History(database=self.database, ring=ring, clock=self.clock, metrics=self.metrics)

    async def message(self, text: str = "Hello", *, status: str = "sent", **given: Any) -> UUID:
        """A message that waits to be indexed."""
        id_ = await a_message_row(
            self.sql,
            self.tenant,
            self.instance,
            text=text,
            status=status,
            **{"ring": RING, **given},
        )
        await self.sql.execute("UPDATE dispatcher.messages SET words = '{}' WHERE id = $1", id_)
        return id_

    async def row(self, message: UUID) -> asyncpg.Record:
        row = await self.sql.fetchrow("SELECT * FROM dispatcher.messages WHERE id = $1", message)
        assert row is not None
        return row

    async def found(self, word: str) -> list[int]:
        """The numbers of the messages that the index has for a word."""
        [hashed] = words.hashes(RING.index_keys(self.tenant)[0], [word])
        rows = await self.sql.fetch(
            "SELECT sequence FROM dispatcher.message_words WHERE word = $1 ORDER BY 1", hashed
        )
        return [row[0] for row in rows]

    async def keep(self, what: str) -> None:
        """Have the tenant choose, as the gateway writes it down."""
        await self.sql.execute(
            "UPDATE gateway.organizations SET content_storage = $1, content_storage_since = $2",
            what,
            self.clock.now(),
        )


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    """A tenant with a ready instance."""
    sql = await asyncpg.connect(database_url)
    async with Database.open(database_url, role="waypost_dispatcher") as database:
        made = World(database, sql)
        made.tenant = await an_organization(sql)
        made.instance = await an_instance(sql, made.tenant)
        yield made
    await sql.close()


async def test_words_are_indexed_once_and_noted_with_their_message(world: World) -> None:
    first, second = await world.message("Hello hello World"), await world.message("hello")
    silent = await world.message("…")
    await world.history.step()
    await world.history.step()
    numbers = [(await world.row(id_))["sequence"] for id_ in (first, second)]
    assert await world.found("hello") == numbers
    assert await world.found("world") == numbers[:1]
    assert len((await world.row(first))["words"]) == 2
    assert (await world.row(silent))["words"] is None
    assert await world.sql.fetchval("SELECT count(*) FROM dispatcher.message_words") == 3


async def test_what_a_crash_leaves_is_indexed_by_the_next(world: World) -> None:
    message = await world.message("Hello")

    async def die() -> None:
        async with world.database.hot_tx() as connection:
            assert await history.index(connection, ring=RING, limit=10) == 1
            raise RuntimeError("died before the commit")

    with pytest.raises(RuntimeError):
        await die()
    assert (await world.row(message))["words"] == []
    await world.history.step()
    assert await world.found("hello") == [(await world.row(message))["sequence"]]


async def test_two_replicas_index_each_message_once(world: World) -> None:
    for number in range(20):
        await world.message(f"number {number}")
    async with world.database.hot_tx() as one, world.database.hot_tx() as other:
        assert await history.index(one, ring=RING, limit=12) == 12
        assert await history.index(other, ring=RING, limit=12) == 8
    assert len(await world.found("number")) == 20


async def test_what_another_key_has_sealed_waits_and_holds_up_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loops, "LIMIT", 2)
    next_key = Key.new("next")
    later = [await world.message("later", ring=KeyRing([next_key])) for _ in range(3)]
    kept = await world.message("kept")
    # An old replica, and one that has the new key already and seals with the old one still.
    for ring in (RING, KeyRing([Key.parse(KEYS), next_key])):
        while await world.with_ring(ring).step():
            pass
        assert [(await world.row(id_))["words"] for id_ in later] == [[]] * 3
    assert await world.found("kept") == [(await world.row(kept))["sequence"]]
    both = KeyRing([next_key, Key.parse(KEYS)])
    while await world.with_ring(both).step():
        pass
    [hashed] = words.hashes(both.index_keys(world.tenant)[0], ["later"])
    assert [(await world.row(id_))["words"] for id_ in later] == [[hashed]] * 3


async def test_what_was_changed_so_that_it_does_not_open_is_left_out(world: World) -> None:
    changed, kept = await world.message("changed"), await world.message("kept")
    await world.sql.execute(
        "UPDATE dispatcher.messages SET sealed = sealed || '\\x00' WHERE id = $1", changed
    )
    await world.history.step()
    assert (await world.row(changed))["words"] is None
    assert await world.found("kept") == [(await world.row(kept))["sequence"]]


async def test_what_an_earlier_version_wrote_is_sealed_and_indexed(world: World) -> None:
    old = await a_message_row(world.sql, world.tenant, world.instance, text="Old", status="sent")
    await world.history.step()
    await world.history.step()
    row = await world.row(old)
    assert row["content"] is None
    assert b"Old" not in row["sealed"]
    assert said(row) == b'{"kind":"text","text":"Old"}'
    assert await world.found("old") == [row["sequence"]]


async def test_a_history_that_nobody_keeps_is_erased_with_progress(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loops, "LIMIT", 2)
    over = [await world.message("Hello", status=status) for status in ("sent", "read", "failed")]
    waiting = await world.message("Later", status="queued")
    while await world.history.step():
        pass
    await world.keep("none")
    world.clock.move(timedelta(minutes=1))
    assert await world.history.erase()
    progress = await world.sql.fetchrow("SELECT * FROM dispatcher.erasures")
    assert progress is not None
    assert (progress["erased"], progress["finished_at"]) == (2, None)
    while await world.history.erase():
        pass
    progress = await world.sql.fetchrow("SELECT * FROM dispatcher.erasures")
    assert progress is not None
    assert (progress["erased"], progress["finished_at"] is None) == (3, False)
    for message in over:
        row = await world.row(message)
        assert (row["sealed"], row["words"], row["status"]) == (None, None, row["status"])
    # It has still to be sent, but nobody finds it any more.
    row = await world.row(waiting)
    assert (row["sealed"] is None, row["words"]) == (False, None)
    assert await world.sql.fetchval("SELECT count(*) FROM dispatcher.message_words") == 0


async def test_choosing_again_erases_again_and_changing_ones_mind_stops_it(world: World) -> None:
    await world.keep("none")
    while await world.history.erase():
        pass
    world.clock.move(timedelta(hours=1))
    await world.keep("encrypted")
    kept = await world.message("Kept")
    assert not await world.history.erase()
    assert (await world.row(kept))["sealed"] is not None
    world.clock.move(timedelta(hours=1))
    await world.keep("none")
    while await world.history.erase():
        pass
    assert (await world.row(kept))["sealed"] is None


async def test_what_came_in_behind_the_walk_is_erased_a_minute_after_the_choice(
    world: World, database_url: str
) -> None:
    other = await asyncpg.connect(database_url)
    async with other.transaction():
        # Begun while what comes in was kept, and committed when the walk has passed.
        late = await a_message_row(other, world.tenant, world.instance, ring=RING, status="sent")
        early = await world.message("Early")
        await world.keep("none")
        while await world.history.erase():
            pass
    await other.close()
    assert (await world.row(early))["sealed"] is None
    assert (await world.row(late))["sealed"] is not None
    unfinished = "SELECT count(*) FROM dispatcher.erasures WHERE finished_at IS NULL"
    assert await world.sql.fetchval(unfinished) == 1
    world.clock.move(timedelta(minutes=1))
    while await world.history.erase():
        pass
    assert (await world.row(late))["sealed"] is None
    assert await world.sql.fetchval(unfinished) == 0


async def test_what_was_erased_is_neither_locked_nor_written_again(
    world: World, database_url: str
) -> None:
    await world.keep("none")
    world.clock.move(timedelta(minutes=1))
    while await world.history.erase():
        pass
    other = await asyncpg.connect(database_url)
    async with other.transaction(), asyncio.timeout(5):
        await other.execute("SELECT FROM dispatcher.erasures FOR UPDATE")
        assert not await world.history.erase()
    await other.close()


async def test_organizations_that_never_chose_are_left_alone(world: World) -> None:
    await world.sql.execute("UPDATE gateway.organizations SET content_storage = 'none'")
    message = await world.message("Hello")
    assert not await world.history.erase()
    assert (await world.row(message))["sealed"] is not None


async def test_messages_are_deleted_when_they_are_old_enough(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loops, "LIMIT", 2)
    await world.sql.execute("UPDATE gateway.organizations SET retention_days = 30")
    old = [await world.message(f"old {number}") for number in range(5)]
    waiting = await world.message("waiting", status="queued")
    young = await world.message("young")
    for id_ in old:
        await world.sql.execute(
            "INSERT INTO dispatcher.transmissions (id, message_id, instance_id, shard, attempt,"
            " created_at, published_at) VALUES ($1, $2, $3, 7, 1, $4, $4)",
            new_id(),
            id_,
            world.instance,
            NOON,
        )
    await world.sql.execute(
        "UPDATE dispatcher.messages SET created_at = $2 WHERE id = $1",
        young,
        NOON + timedelta(days=20),
    )
    while await world.history.step():
        pass
    world.clock.move(timedelta(days=29))
    assert await world.retention.round() == 0
    world.clock.move(timedelta(days=2))
    assert await world.retention.round() == 5
    left = {row[0] for row in await world.sql.fetch("SELECT id FROM dispatcher.messages")}
    assert left == {waiting, young}
    assert await world.sql.fetchval("SELECT count(*) FROM dispatcher.transmissions") == 0
    assert await world.found("old") == []
    assert len(await world.found("young")) == 1


async def test_nothing_is_deleted_where_nobody_asked_for_it(world: World) -> None:
    await world.message("old")
    world.clock.move(timedelta(days=4000))
    assert await world.retention.round() == 0
