"""What becomes of bytes that nothing speaks of any more, whatever dies when."""

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from prometheus_client import CollectorRegistry

from services.gateway.loops.erasing import EraseMedia
from services.gateway.loops.forgetting import Forget
from services.gateway.metrics import GatewayMetrics
from services.gateway.store import media
from services.gateway.store.media import NewMedia
from shared.clock import SystemClock
from shared.db.database import Database
from shared.db.tables.grants import role
from shared.errors import Transient
from shared.ids import new_id
from shared.media.store import MediaStore
from tests.support.builders import NOON, a_message_row, an_instance, an_organization
from tests.support.files import an_inbound_file, sha256
from tests.support.gateway import MovableClock
from tests.support.media import media_settings

GIVEN = b"some bytes"


@dataclass
class Cellar:
    """A store with rows about what is in it, and the loop that clears it."""

    erase: EraseMedia
    store: MediaStore
    sql: asyncpg.Connection
    clock: MovableClock
    metrics: GatewayMetrics
    database: Database
    folder: Path
    tenant: UUID
    instance: UUID

    async def put(self, content: bytes = GIVEN, *, tenant: UUID | None = None) -> str:
        """Bytes in the store, without a row."""
        source = self.folder / f"source-{new_id()}"
        source.write_bytes(content)
        await self.store.put(tenant or self.tenant, source, sha256(content))
        return sha256(content)

    async def row(self, content: bytes = GIVEN, *, deleted_at: datetime | None = None) -> UUID:
        """An upload's row."""
        id_ = new_id()
        await self.sql.execute(
            "INSERT INTO gateway.media (id, tenant_id, sha256, size, mime_type, created_at,"
            " deleted_at) VALUES ($1, $2, $3, $4, 'image/png', $5, $6)",
            id_,
            self.tenant,
            sha256(content),
            len(content),
            NOON,
            deleted_at,
        )
        return id_

    async def delete(self, id_: UUID) -> None:
        await self.sql.execute("UPDATE gateway.media SET deleted_at = $1 WHERE id = $2", NOON, id_)

    async def there(self, content: bytes = GIVEN) -> bool:
        return await self.store.exists(self.tenant, sha256(content))

    async def unsettled(self) -> int:
        found: int = await self.sql.fetchval(
            "SELECT count(*) FROM gateway.media WHERE deleted_at IS NOT NULL AND erased_at IS NULL"
        )
        return found

    def counted(self, name: str) -> float:
        counters: Any = self.metrics
        value: float = getattr(counters, name)._value.get()
        return value


@pytest.fixture
async def cellar(database_url: str, tmp_path: Path) -> AsyncIterator[Cellar]:
    store = MediaStore.of(media_settings(tmp_path / "kept"))
    sql = await asyncpg.connect(database_url)
    try:
        async with Database.open(database_url, role=role("gateway"), name="gateway") as database:
            clock = MovableClock()
            metrics = GatewayMetrics(CollectorRegistry())
            tenant = await an_organization(sql)
            yield Cellar(
                EraseMedia(
                    database=database,
                    store=store,
                    clock=clock,
                    metrics=metrics,
                    received_kept=timedelta(days=7),
                ),
                store,
                sql,
                clock,
                metrics,
                database,
                tmp_path,
                tenant,
                await an_instance(sql, tenant),
            )
    finally:
        await sql.close()


async def test_bytes_go_with_the_last_row_that_spoke_of_them(cellar: Cellar) -> None:
    await cellar.put()
    first, second = await cellar.row(), await cellar.row()
    assert await cellar.erase.step() == 0
    await cellar.delete(first)
    assert await cellar.erase.step() == 1
    assert (await cellar.there(), await cellar.unsettled()) == (True, 0)
    await cellar.delete(second)
    assert await cellar.erase.step() == 1
    assert (await cellar.there(), await cellar.unsettled()) == (False, 0)
    assert await cellar.erase.step() == 0
    assert cellar.counted("media_erased") == 1


async def test_what_another_tenant_has_stays(cellar: Cellar) -> None:
    other = await an_organization(cellar.sql)
    await cellar.put()
    await cellar.put(tenant=other)
    await cellar.row(deleted_at=NOON)
    await cellar.erase.step()
    assert not await cellar.there()
    assert await cellar.store.exists(other, sha256(GIVEN))


async def test_what_was_received_keeps_its_bytes_until_it_is_deleted_too(cellar: Cellar) -> None:
    await cellar.put()
    received = await an_inbound_file(
        cellar.sql, cellar.tenant, cellar.instance, sha256=sha256(GIVEN)
    )
    await cellar.row(deleted_at=NOON)
    await cellar.erase.step()
    assert await cellar.there()
    await cellar.sql.execute(
        "INSERT INTO gateway.media (id, tenant_id, sha256, size, mime_type, created_at, deleted_at)"
        " VALUES ($1, $2, $3, 1, 'image/png', $4, $4)",
        UUID(received),
        cellar.tenant,
        sha256(GIVEN),
        NOON,
    )
    await cellar.erase.step()
    assert not await cellar.there()


async def test_bytes_of_a_received_file_that_is_not_marked_as_stored_yet_stay(
    cellar: Cellar,
) -> None:
    await cellar.put()
    await an_inbound_file(
        cellar.sql, cellar.tenant, cellar.instance, sha256=sha256(GIVEN), status="waiting"
    )
    await cellar.row(deleted_at=NOON)
    await cellar.erase.step()
    assert await cellar.there()


async def test_a_death_between_erasing_and_noting_it_is_made_good_by_the_next_step(
    cellar: Cellar,
) -> None:
    await cellar.put()
    await cellar.row(deleted_at=NOON)
    await cellar.store.delete(cellar.tenant, sha256(GIVEN))
    assert await cellar.erase.step() == 1
    assert await cellar.unsettled() == 0


async def test_replicas_erase_the_same_files_in_peace(cellar: Cellar) -> None:
    contents = [os.urandom(9) for _ in range(20)]
    for content in contents:
        await cellar.put(content)
        await cellar.row(content, deleted_at=NOON)
    await asyncio.gather(cellar.erase.step(), cellar.erase.step(), cellar.erase.step())
    assert await cellar.unsettled() == 0
    assert not any([await cellar.there(content) for content in contents])


async def test_while_the_store_is_away_nothing_is_noted_as_erased(
    cellar: Cellar,
) -> None:
    place = {
        "media_store": "s3://bucket",
        "media_s3_endpoint": "http://127.0.0.1:1",
        "media_s3_access_key": "a",
        "media_s3_secret_key": "b",
    }
    away = EraseMedia(
        database=cellar.database,
        store=MediaStore.of(media_settings(place)),
        clock=SystemClock(),
        metrics=cellar.metrics,
        received_kept=timedelta(days=7),
    )
    await cellar.row(deleted_at=NOON)
    with pytest.raises(Transient):
        await away.step()
    assert await cellar.unsettled() == 1


async def test_a_portion_is_bounded_and_the_longest_deleted_goes_first(
    cellar: Cellar, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EraseMedia, "PORTION", 2)
    for minute, content in ((2, b"third"), (0, b"first"), (1, b"second")):
        await cellar.put(content)
        await cellar.row(content, deleted_at=NOON + timedelta(minutes=minute))
    assert await cellar.erase.step() == 2
    assert [await cellar.there(content) for content in (b"first", b"second", b"third")] == [
        False,
        False,
        True,
    ]


async def test_what_never_got_a_row_goes_when_it_is_a_day_old_and_not_before(
    cellar: Cellar,
) -> None:
    await cellar.put(b"orphan")
    await cellar.put(b"kept")
    await cellar.row(b"kept")
    await cellar.put(b"received")
    await an_inbound_file(cellar.sql, cellar.tenant, cellar.instance, sha256=sha256(b"received"))
    assert await cellar.erase.orphans() == 0
    assert await cellar.there(b"orphan")
    cellar.clock.move(timedelta(days=1, minutes=1))
    assert await cellar.erase.orphans() == 1
    assert not await cellar.there(b"orphan")
    assert await cellar.there(b"kept")
    assert await cellar.there(b"received")
    assert cellar.counted("media_orphans") == 1


async def test_an_upload_that_is_never_used_is_kept(cellar: Cellar) -> None:
    await cellar.put()
    await cellar.row()
    cellar.clock.move(timedelta(days=400))
    await cellar.erase.step()
    await cellar.erase.orphans()
    assert await cellar.there()


async def test_what_an_interrupted_put_has_left_goes_with_the_orphans(cellar: Cellar) -> None:
    name = await cellar.put()
    await cellar.row()
    [path] = (cellar.folder / "kept").glob(f"*/*/{name}")
    half = path.with_name(f"{name}#1")
    half.write_bytes(b"half")
    cellar.clock.move(timedelta(days=2))
    assert await cellar.erase.orphans() == 1
    assert not half.exists()
    assert await cellar.there()


async def passing(cellar: Cellar, content: bytes, *, age: timedelta) -> UUID:
    """A file that came with a message so long ago."""
    id_ = await cellar.row(content)
    await cellar.sql.execute(
        "UPDATE gateway.media SET passing = true, created_at = $2, filename = 'a.png'"
        " WHERE id = $1",
        id_,
        cellar.clock.now() - age,
    )
    await cellar.put(content)
    return id_


async def test_files_of_messages_go_with_what_those_say_where_nobody_keeps_it(
    cellar: Cellar,
) -> None:
    day = timedelta(days=1)
    old = await passing(cellar, b"old", age=2 * day)
    await passing(cellar, b"young", age=day / 2)
    needed = await passing(cellar, b"needed", age=2 * day)
    message = await a_message_row(cellar.sql, cellar.tenant, cellar.instance, status="retrying")
    await cellar.sql.execute(
        "UPDATE dispatcher.messages SET media_id = $1 WHERE id = $2", needed, message
    )
    await cellar.row(b"library")
    await cellar.put(b"library")
    for content, age in ((b"got", 8 * day), (b"new", 6 * day)):
        await an_inbound_file(
            cellar.sql,
            cellar.tenant,
            cellar.instance,
            sha256=await cellar.put(content),
            created_at=cellar.clock.now() - age,
        )
    assert await cellar.erase.outlive() == 0
    await cellar.sql.execute("UPDATE gateway.organizations SET content_storage = 'none'")
    assert await cellar.erase.outlive() == 2
    assert await cellar.erase.outlive() == 0
    while await cellar.erase.step():
        pass
    contents = (b"old", b"young", b"needed", b"library", b"got", b"new")
    there = [await cellar.there(content) for content in contents]
    assert there == [False, True, True, True, False, True]
    gone = await cellar.sql.fetchrow("SELECT * FROM gateway.media WHERE id = $1", old)
    assert gone is not None
    assert gone["filename"] is None

    await cellar.sql.execute("UPDATE dispatcher.messages SET status = 'sent'")
    assert await cellar.erase.outlive() == 1


async def test_files_of_messages_go_when_those_are_deleted(cellar: Cellar) -> None:
    await passing(cellar, b"old", age=timedelta(days=31))
    await passing(cellar, b"young", age=timedelta(days=29))
    await an_inbound_file(
        cellar.sql,
        cellar.tenant,
        cellar.instance,
        sha256=await cellar.put(b"got"),
        created_at=cellar.clock.now() - timedelta(days=31),
    )
    await cellar.sql.execute("UPDATE gateway.organizations SET retention_days = 30")
    assert await cellar.erase.outlive() == 2
    while await cellar.erase.step():
        pass
    assert [await cellar.there(content) for content in (b"old", b"young", b"got")] == [
        False,
        True,
        False,
    ]


async def held(cellar: Cellar, content: bytes, *, age: timedelta) -> UUID:
    """A file whose message nobody has accepted or refused yet."""
    id_ = await passing(cellar, content, age=age)
    await cellar.sql.execute(
        "UPDATE gateway.media SET holders = 1, held_at = created_at WHERE id = $1", id_
    )
    return id_


async def test_a_file_whose_request_has_died_is_gone_a_day_later(cellar: Cellar) -> None:
    hour = timedelta(hours=1)
    await held(cellar, b"forsaken", age=25 * hour)
    await held(cellar, b"on its way", age=23 * hour)
    sent = await held(cellar, b"sent", age=25 * hour)
    again = await held(cellar, b"brought again", age=25 * hour)
    named = await held(cellar, b"named since", age=25 * hour)
    message = await a_message_row(cellar.sql, cellar.tenant, cellar.instance, status="read")
    await cellar.sql.execute(
        "UPDATE dispatcher.messages SET media_id = $1 WHERE id = $2", sent, message
    )
    await cellar.sql.execute("UPDATE gateway.media SET holders = NULL WHERE id = $1", named)
    async with cellar.database.tx() as tx:
        assert not await media.add(
            tx,
            NewMedia(
                id=again,
                tenant_id=cellar.tenant,
                instance_id=None,
                uploaded_by=None,
                sha256=sha256(b"brought again"),
                size=13,
                mime_type="image/png",
                filename=None,
                created_at=cellar.clock.now(),
                held=True,
                passing=True,
            ),
        )
    assert await cellar.erase.forsaken() == 2
    assert await cellar.erase.forsaken() == 0
    while await cellar.erase.step():
        pass
    contents = (b"forsaken", b"on its way", b"sent", b"brought again", b"named since")
    there = [await cellar.there(content) for content in contents]
    assert there == [False, True, True, True, True]


async def test_rows_of_files_go_a_day_after_the_bytes_and_after_what_sessions_know(
    cellar: Cellar,
) -> None:
    forget = Forget(
        database=cellar.database,
        clock=cellar.clock,
        metrics=cellar.metrics,
        events_kept=timedelta(days=7),
        audit_kept=timedelta(days=365),
    )
    uploaded, kept = await cellar.row(b"one"), await cellar.row(b"two")
    got = await an_inbound_file(cellar.sql, cellar.tenant, cellar.instance)
    await cellar.delete(uploaded)
    await cellar.sql.execute("UPDATE gateway.organizations SET content_storage = 'none'")
    assert await cellar.erase.outlive() == 1
    while await cellar.erase.step():
        pass
    await forget.step()
    assert await rows_of(cellar) == {uploaded, kept, UUID(got)}
    cellar.clock.move(timedelta(days=1, minutes=1))
    await forget.step()
    assert await rows_of(cellar) == {kept, UUID(got)}
    await cellar.sql.execute("DELETE FROM sessions.inbound_media")
    await forget.step()
    assert await rows_of(cellar) == {kept}


async def rows_of(cellar: Cellar) -> set[UUID]:
    rows = await cellar.sql.fetch("SELECT id FROM gateway.media")
    return {row[0] for row in rows}
