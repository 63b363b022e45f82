"""Fetching the files of received messages, broken off at every point where it can be."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar
from uuid import UUID

import asyncpg
import pytest
from prometheus_client import CollectorRegistry
from typing_extensions import override

from services.sessions.domain.fetching import TRIES
from services.sessions.domain.instance import Instance
from services.sessions.domain.lease import Lease
from services.sessions.domain.lifecycle import Status
from services.sessions.engines.port import (
    Engine,
    MediaHandle,
    Retryable,
    SessionDown,
)
from services.sessions.fetching import Fetching
from services.sessions.leases import Leases
from services.sessions.metrics import SessionsMetrics
from services.sessions.scratch import Scratch
from services.sessions.store import retention
from services.sessions.store.fence import Fence
from services.sessions.supervisor import Session
from shared.contracts.capabilities import Capability
from shared.db.database import Database
from shared.db.tables.grants import role
from shared.errors import Transient
from shared.ids import new_id
from shared.media.settings import MediaSettings
from shared.media.store import MediaGone, MediaStore
from shared.metrics import MessagingMetrics
from shared.security.sealing import Key, KeyRing, Place
from tests.support.builders import NOON, an_instance, an_organization
from tests.support.clock import HandClock
from tests.support.engines import IdleEngine
from tests.support.keys import KEYS, RING
from tests.support.leases import take_shard
from tests.support.samples import png

PATIENCE = 20.0
PNG = png()


@dataclass
class Source(IdleEngine):
    """An engine whose files are what the test wants, when it wants."""

    kind: ClassVar[str] = "source"
    capabilities: ClassVar[frozenset[Capability]] = frozenset({Capability.MEDIA})

    content: bytes = PNG
    error: Exception | None = None
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    asked: list[MediaHandle] = field(default_factory=list)
    instances: list[UUID] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0

    @override
    async def fetch(self, instance_id: UUID, media: MediaHandle, into: Path) -> None:
        self.asked.append(media)
        self.instances.append(instance_id)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await self.gate.wait()
        finally:
            self.at_once -= 1
        if self.error is not None:
            raise self.error
        await asyncio.to_thread(into.write_bytes, self.content)


class Store(MediaStore):
    """The media store, which others may be deleting from, or which is away."""

    deletions = 0
    outages = 0

    @override
    async def put(self, tenant_id: UUID, source: Path, sha256: str) -> None:
        if self.outages:
            self.outages -= 1
            raise Transient("The store is away.")
        await super().put(tenant_id, source, sha256)

    @override
    async def exists(self, tenant_id: UUID, sha256: str) -> bool:
        if self.deletions:
            self.deletions -= 1
            await self.delete(tenant_id, sha256)
        return await super().exists(tenant_id, sha256)


class Office:
    """One process's fetching, whose steps are called by the test, and the rows it works on."""

    def __init__(self, database: Database, sql: asyncpg.Connection, folder: Path) -> None:
        self.database = database
        self.sql = sql
        self.engine = Source()
        self.clock = HandClock()
        self.leases = Leases(clock=self.clock, fence_after=timedelta(days=400))
        self.store = Store.of(
            MediaSettings.model_validate(
                {
                    "database_url": "postgresql://x",
                    "amqp_url": "amqp://x",
                    "media_store": str(folder / "store"),
                }
            )
        )
        self._folder = folder
        self.metrics = SessionsMetrics(CollectorRegistry())
        self.tenant = new_id()
        self.ring = RING
        self.most = 2
        self.lease: Lease
        self.fetching: Fetching
        self._sessions: dict[UUID, Session] = {}

    def ready(self, instance_id: UUID) -> Session | None:
        return self._sessions.get(instance_id)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Another process, under the same lease, over the same rows."""
        scratch = Scratch(self._folder / "scratch")
        self.fetching = Fetching(
            database=self.database,
            ring=self.ring,
            fence=Fence(self.database),
            leases=self.leases,
            sessions=self,
            store=self.store,
            scratch=scratch,
            clock=self.clock,
            metrics=self.metrics,
            messaging=MessagingMetrics("sessions", CollectorRegistry()),
            deadline=timedelta(seconds=PATIENCE),
            largest=10_000,
            most=self.most,
        )
        async with scratch.running(), self.fetching.running():
            yield

    async def own(self) -> None:
        self.lease = await take_shard(self.database)
        self.leases.grant([self.lease], asked_at=self.clock.monotonic())

    async def an_instance(self, status: str = "ready", *, tenant: UUID | None = None) -> UUID:
        id_ = await an_instance(
            self.sql, tenant or self.tenant, engine="source", shard=self.lease.shard, status=status
        )
        instance = Instance(
            id=id_,
            tenant_id=tenant or self.tenant,
            shard=self.lease.shard,
            engine="source",
            phone_number=None,
            settings={},
            wanted=True,
            deleted=False,
            updated_at=NOON,
        )
        engine: Engine = self.engine
        session = Session(instance, self.lease, engine)
        session.status = Status.READY
        self._sessions[id_] = session
        return id_

    async def a_file(self, instance: UUID, **given: Any) -> UUID:
        row = {
            "id": new_id(),
            "mime_type": "image/jpeg",
            "size": None,
            "attempts": 0,
            "due_at": self.clock.now(),
            "tenant": self.tenant,
            "created_at": self.clock.now(),
            **given,
        }
        await self.sql.execute(
            "INSERT INTO sessions.inbound_media (id, tenant_id, instance_id, shard, handle,"
            " engine_message_id, mime_type, size, status, attempts, due_at, created_at)"
            " VALUES ($1, $2, $3, $4, '{\"secret\": \"of this file\"}', '3EB0AA', $5, $6,"
            " 'waiting', $7, $8, $9)",
            row["id"],
            row["tenant"],
            instance,
            self.lease.shard,
            row["mime_type"],
            row["size"],
            row["attempts"],
            row["due_at"],
            row["created_at"],
        )
        return UUID(str(row["id"]))

    async def row(self, media_id: UUID) -> asyncpg.Record:
        row = await self.sql.fetchrow(
            "SELECT * FROM sessions.inbound_media WHERE id = $1", media_id
        )
        assert row is not None
        return row

    async def until(self, found: Callable[[], bool]) -> None:
        """Return when something is so that the tasks of the office bring about."""
        async with asyncio.timeout(PATIENCE):
            while not found():  # noqa: ASYNC110 - the engine moves in turns of the loop
                await asyncio.sleep(0)

    async def settled(self) -> None:
        """Return when everything that has begun has ended."""
        await self.until(lambda: not self.fetching._tasks)

    async def tried(self) -> None:
        """Begin what is due and wait for what comes of it."""
        await self.fetching.step()
        await self.settled()


@pytest.fixture
async def office(database_url: str, tmp_path: Path) -> AsyncIterator[Office]:
    sql = await asyncpg.connect(database_url)
    try:
        async with Database.open(database_url, role=role("sessions")) as database:
            office = Office(database, sql, tmp_path)
            await an_organization(sql, id=office.tenant)
            await office.own()
            async with office.open():
                yield office
    finally:
        await sql.close()


async def kept(office: Office) -> list[str]:
    return [found.sha256 async for page in office.store.objects() for found in page]


async def test_a_file_is_stored_as_what_its_bytes_say_and_its_handle_is_erased(
    office: Office,
) -> None:
    media = await office.a_file(await office.an_instance())
    office.engine.gate.set()
    await office.tried()
    row = await office.row(media)
    assert (row["status"], row["mime_type"], row["size"]) == ("stored", "image/png", len(PNG))
    assert (row["handle"], row["error"], row["attempts"]) == (None, None, 1)
    assert (row["sha256"], row["stored_at"]) == (sha256(PNG).hexdigest(), office.clock.now())
    assert office.engine.asked == [{"secret": "of this file"}]
    assert await kept(office) == [row["sha256"]]


async def test_a_tenant_with_many_files_leaves_room_for_those_of_others(office: Office) -> None:
    other = await an_organization(office.sql)
    many, few = await office.an_instance(), await office.an_instance(tenant=other)
    for _ in range(20):
        await office.a_file(many)
    office.most = 4
    async with office.open():
        await office.fetching.step()
        await office.until(lambda: office.engine.at_once >= 3)
        await office.a_file(few, tenant=other)
        await office.fetching.step()
        await office.until(lambda: office.engine.at_once == 4)
        assert office.engine.instances == [many, many, many, few]
        office.engine.gate.set()
        await office.until(lambda: office.engine.at_once == 0)


async def test_only_so_many_are_fetched_at_a_time_and_none_twice(office: Office) -> None:
    instance = await office.an_instance()
    for _ in range(5):
        await office.a_file(instance)
    await office.fetching.step()
    await office.until(lambda: office.engine.at_once == 2)
    office.clock.move(timedelta(hours=1))  # What is being fetched is due again by now.
    await office.fetching.step()
    assert office.engine.at_once == 2
    office.engine.gate.set()
    for _ in range(4):
        await office.tried()
    assert (len(office.engine.asked), office.engine.most_at_once) == (5, 2)
    assert (
        await office.sql.fetchval(
            "SELECT count(*) FROM sessions.inbound_media WHERE status = 'stored'"
        )
        == 5
    )


async def test_what_cannot_be_had_now_is_fetched_later(office: Office) -> None:
    media = await office.a_file(await office.an_instance())
    office.engine.gate.set()
    office.engine.error = Retryable("Not now.")
    await office.tried()
    row = await office.row(media)
    assert (row["status"], row["attempts"], row["handle"] is not None) == ("waiting", 1, True)
    assert row["due_at"] > office.clock.now()
    await office.tried()
    assert len(office.engine.asked) == 1
    office.clock.move(timedelta(seconds=10))
    office.engine.error = None
    await office.tried()
    assert ((await office.row(media))["status"], len(office.engine.asked)) == ("stored", 2)


@pytest.mark.parametrize(
    "error", [SessionDown("Gone."), Transient("Not now."), ZeroDivisionError(), OSError("Full.")]
)
async def test_the_last_attempt_gives_up_whatever_stood_in_the_way(
    office: Office, error: Exception
) -> None:
    media = await office.a_file(await office.an_instance(), attempts=TRIES - 2)
    office.engine.gate.set()
    office.engine.error = error
    await office.tried()
    assert (await office.row(media))["status"] == "waiting"
    office.clock.move(timedelta(hours=3))
    await office.tried()
    row = await office.row(media)
    assert (row["status"], row["attempts"], row["handle"]) == ("failed", TRIES, None)
    assert row["error"] is not None


async def test_what_is_gone_for_good_is_given_up_at_once(office: Office) -> None:
    media = await office.a_file(await office.an_instance())
    office.engine.gate.set()
    office.engine.error = MediaGone("Gone.")
    await office.tried()
    row = await office.row(media)
    assert (row["status"], row["error"], row["handle"]) == ("failed", "MEDIA_GONE", None)


async def test_what_is_too_large_is_not_even_asked_for_if_its_sender_says_so(
    office: Office,
) -> None:
    instance = await office.an_instance()
    said = await office.a_file(instance, size=10_001)
    office.engine.gate.set()
    office.engine.content = bytes(10_001)
    await office.tried()
    assert office.engine.asked == []
    found = await office.a_file(instance)
    await office.tried()
    for media in (said, found):
        row = await office.row(media)
        assert (row["status"], row["error"]) == ("failed", "MEDIA_TOO_LARGE")
    assert await kept(office) == []


async def test_an_instance_that_is_away_is_waited_for_without_counting(office: Office) -> None:
    instance = await office.an_instance("connecting")
    media = await office.a_file(instance)
    office.engine.gate.set()
    await office.tried()
    assert (office.engine.asked, (await office.row(media))["attempts"]) == ([], 0)
    await office.sql.execute("UPDATE sessions.session_states SET status = 'ready'")
    await office.tried()
    assert (await office.row(media))["status"] == "stored"


# Broken off


async def test_a_process_that_dies_while_it_fetches_has_used_up_an_attempt(office: Office) -> None:
    media = await office.a_file(await office.an_instance())
    await office.fetching.step()
    await office.until(lambda: office.engine.at_once == 1)
    async with office.open():  # The next process; the first never comes back to it.
        await office.tried()
        assert len(office.engine.asked) == 1
        row = await office.row(media)
        assert (row["status"], row["attempts"]) == ("waiting", 1)
        office.clock.move(timedelta(seconds=10))
        office.engine.gate.set()
        await office.tried()
    row = await office.row(media)
    assert (row["status"], row["attempts"]) == ("stored", 2)
    assert await kept(office) == [row["sha256"]]


async def test_a_process_that_dies_after_it_has_put_a_file_and_before_it_says_so_puts_it_again(
    office: Office, tmp_path: Path
) -> None:
    media = await office.a_file(await office.an_instance(), attempts=1)
    path = tmp_path / "file"
    path.write_bytes(PNG)
    await office.store.put(office.tenant, path, sha256(PNG).hexdigest())
    office.engine.gate.set()
    await office.tried()
    row = await office.row(media)
    assert (row["status"], row["attempts"]) == ("stored", 2)
    assert await kept(office) == [row["sha256"]]


async def test_a_file_that_is_deleted_as_it_is_put_is_put_again(office: Office) -> None:
    media = await office.a_file(await office.an_instance())
    office.engine.gate.set()
    office.store.deletions = 1
    await office.tried()
    row = await office.row(media)
    assert row["status"] == "stored"
    assert await kept(office) == [row["sha256"]]


async def test_a_store_that_is_away_costs_an_attempt_and_no_file(office: Office) -> None:
    media = await office.a_file(await office.an_instance())
    office.engine.gate.set()
    office.store.outages = 1
    await office.tried()
    assert (await office.row(media))["status"] == "waiting"
    office.clock.move(timedelta(seconds=10))
    await office.tried()
    assert (await office.row(media))["status"] == "stored"


async def test_a_process_that_has_lost_the_shard_begins_nothing(office: Office) -> None:
    media = await office.a_file(await office.an_instance())
    await take_shard(office.database, owner="them", shard=office.lease.shard)
    office.engine.gate.set()
    await office.tried()
    assert (office.engine.asked, (await office.row(media))["attempts"]) == ([], 0)


@pytest.mark.parametrize(("error", "status"), [(MediaGone("Gone."), "waiting"), (None, "stored")])
async def test_a_process_that_loses_the_shard_may_say_what_it_stored_but_not_give_up(
    office: Office, error: Exception | None, status: str
) -> None:
    media = await office.a_file(await office.an_instance())
    await office.fetching.step()
    await office.until(lambda: office.engine.at_once == 1)
    await take_shard(office.database, owner="them", shard=office.lease.shard)
    office.engine.error = error
    office.engine.gate.set()
    await office.settled()
    row = await office.row(media)
    assert (row["status"], row["handle"] is None) == (status, status == "stored")


async def test_no_file_is_left_behind(office: Office, tmp_path: Path) -> None:
    instance = await office.an_instance()
    office.engine.gate.set()
    for error in (None, MediaGone("Gone."), Transient("Not now.")):
        office.engine.error = error
        await office.a_file(instance)
        await office.tried()
    left = [path.name for path in files(tmp_path / "scratch") if path.name != "lock"]
    assert left == []


def files(place: Path) -> list[Path]:
    return [path for path in place.rglob("*") if path.is_file()]


async def test_what_nobody_could_fetch_for_a_week_is_given_up(office: Office) -> None:
    instance = await office.an_instance("logged_out")
    old = await office.a_file(instance, created_at=NOON - timedelta(seconds=1))
    new = await office.a_file(instance, created_at=NOON)
    async with office.database.hot() as connection:
        assert await retention.forget(connection, before=NOON) == 1
        assert await retention.forget(connection, before=NOON) == 0
    row = await office.row(old)
    assert (row["status"], row["error"], row["handle"]) == ("failed", "MEDIA_GONE", None)
    assert (await office.row(new))["status"] == "waiting"


async def test_what_no_key_opens_waits_for_its_key_and_holds_nobody_up(office: Office) -> None:
    lost = KeyRing([Key.parse(f"lost:{'B' * 43}=")])
    instance = await office.an_instance()
    office.engine.gate.set()
    sealed = [await office.a_file(instance, due_at=NOON - timedelta(minutes=1)) for _ in range(5)]
    for media in sealed:
        place = Place(office.tenant, "sessions.inbound_media", str(media))
        await office.sql.execute(
            "UPDATE sessions.inbound_media SET handle = NULL, sealed_handle = $2 WHERE id = $1",
            media,
            lost.seal(b'{"secret": "of this file"}', place),
        )
    other = await office.a_file(instance)
    for _ in range(TRIES + 1):
        for _ in range(4):
            await office.tried()
        office.clock.move(timedelta(minutes=2))
    assert (await office.row(other))["status"] == "stored"
    assert len(office.engine.asked) == 1
    for media in sealed:
        row = await office.row(media)
        assert (row["status"], row["attempts"]) == ("waiting", 0)
        assert row["sealed_handle"] is not None
    office.ring = KeyRing([Key.parse(KEYS), Key.parse(f"lost:{'B' * 43}=")])
    async with office.open():
        for _ in range(4):
            await office.tried()
    assert {(await office.row(media))["status"] for media in sealed} == {"stored"}


async def test_the_age_of_what_waits_is_measured(office: Office) -> None:
    instance = await office.an_instance("connecting")
    age = office.metrics.media_age

    async def measured() -> float:
        await office.fetching.measure()
        return float(age._value.get())

    assert await measured() == 0
    await office.a_file(instance)
    office.clock.move(timedelta(seconds=90))
    assert await measured() == 90


_: type[Engine] = Source
