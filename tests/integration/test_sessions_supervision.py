"""What the supervisor makes of an engine's word, with an engine that says what a test wants."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, ClassVar
from uuid import UUID

import asyncpg
import orjson
import pytest
from prometheus_client import CollectorRegistry
from typing_extensions import override

from services.sessions.chronicle import Chronicle
from services.sessions.domain.lease import Lease
from services.sessions.domain.lifecycle import Status
from services.sessions.engines.port import (
    Banned,
    Connected,
    Deaf,
    Engine,
    Hindered,
    Opening,
    Replaced,
)
from services.sessions.leases import Leases
from services.sessions.logins import LoginBudget
from services.sessions.metrics import SessionsMetrics
from services.sessions.ownership import Tenure
from services.sessions.store.fence import Fence
from services.sessions.supervisor import REOPEN_AFTER, Supervisor
from shared.contracts.model import rfc3339
from shared.db.database import Database
from shared.db.tables.grants import role
from shared.errors import Fenced, Rejected, Transient
from shared.messaging.outbox import Stored
from shared.security.sealing import proxy_place, seal_text
from tests.support.builders import NOON, an_instance, an_organization
from tests.support.clock import HandClock
from tests.support.engines import IdleEngine
from tests.support.eventually import eventually
from tests.support.keys import RING
from tests.support.leases import take_shard
from tests.support.sink import PATIENCE

LATER = NOON + timedelta(minutes=1)
PROXY = "socks5://ada:secret@proxy.example.com:1080"


class Scripted(IdleEngine):
    """An engine that opens as it is told to, and remembers."""

    kind: ClassVar[str] = "scripted"

    def __init__(self) -> None:
        self.refusals: list[Exception] = []
        self.opened: list[Opening] = []
        self.closed: list[UUID] = []
        self.closing: Callable[[UUID], object] = lambda _: None
        self.news = asyncio.Event()

    @override
    async def open(self, opening: Opening) -> None:
        self.news.set()
        if self.refusals:
            raise self.refusals.pop(0)
        self.opened.append(opening)

    @override
    async def close(self, instance_id: UUID) -> None:
        self.closed.append(instance_id)
        self.closing(instance_id)

    async def until_opened(self, times: int) -> None:
        """Return when it was asked to open that often, successfully."""
        async with asyncio.timeout(PATIENCE):
            while len(self.opened) < times:
                self.news.clear()
                await asyncio.sleep(0)
                if len(self.opened) < times:
                    await self.news.wait()


_: type[Engine] = Scripted


class Unsteady(Chronicle):
    """A chronicle whose database is away from time to time."""

    blips = 0

    async def change(self, *given: Any) -> Any:  # type: ignore[explicit-override]
        if self.blips:
            self.blips -= 1
            raise Transient("The database is away.")
        return await super().change(*given)


class World:
    """A supervisor with one lease, and what it has told."""

    def __init__(self, database: Database, sql: asyncpg.Connection, lease: Lease) -> None:
        self.sql = sql
        self.lease = lease
        self.told: list[Stored] = []
        self.clock = HandClock()
        self.engine = Scripted()
        self.leases = Leases(clock=self.clock, fence_after=timedelta(hours=1))
        self.leases.grant([lease], asked_at=self.clock.monotonic())
        metrics = SessionsMetrics(CollectorRegistry())
        self.chronicle = Unsteady(
            fence=Fence(database), clock=self.clock, told=self.told.extend, metrics=metrics
        )
        self.supervisor = Supervisor(
            database=database,
            leases=self.leases,
            chronicle=self.chronicle,
            engines={Scripted.kind: self.engine},
            missing={"absent": "Install it."},
            logins=LoginBudget(clock=self.clock, per_second=1000),
            ring=RING,
            clock=self.clock,
            metrics=metrics,
        )

    async def instance(self, **given: Any) -> UUID:
        """An instance that is wanted and was never open."""
        tenant = await an_organization(self.sql)
        return await an_instance(
            self.sql,
            tenant,
            **{"engine": Scripted.kind, "status": None, "shard": self.lease.shard, **given},
        )

    async def use_proxy(self, id_: UUID, stored: str) -> None:
        """Have the instance's guard hold this proxy."""
        await self.sql.execute(
            "UPDATE gateway.instances SET guard = guard || jsonb_build_object('proxy', $2::text)"
            " WHERE id = $1",
            id_,
            stored,
        )

    async def connected(self, **given: Any) -> UUID:
        """An instance whose session is connected."""
        id_ = await self.instance(**given)
        await self.supervisor.connect(id_)
        await self.engine.until_opened(1)
        assert await self.supervisor.handle(Connected(instance_id=id_, at=NOON))
        return id_

    def events(self, name: str) -> list[dict[str, Any]]:
        """The data of what everybody was told under a name."""
        return [
            orjson.loads(stored.pending.body)["data"]
            for stored in self.told
            if stored.pending.name == name
        ]

    async def state(self, id_: UUID) -> tuple[str, str | None]:
        row = await self.sql.fetchrow(
            "SELECT status, last_error FROM sessions.session_states WHERE instance_id = $1", id_
        )
        assert row is not None
        return row["status"], row["last_error"]


async def has_passed(world: World, moment: datetime) -> bool:
    """Whether somebody has waited until then, on a clock that only waiting moves."""
    return world.clock.now() >= moment


async def gone(world: World, id_: UUID) -> bool:
    return world.supervisor.session(id_) is None


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    sql = await asyncpg.connect(database_url)
    async with Database.open(database_url, role=role("sessions")) as database:
        made = World(database, sql, await take_shard(database))
        async with made.supervisor.running():
            yield made
    await sql.close()


@pytest.mark.parametrize("legacy", [False, True])
async def test_a_proxy_is_opened_for_the_engine_alone(world: World, legacy: bool) -> None:
    id_ = await world.instance()
    tenant = await world.sql.fetchval("SELECT tenant_id FROM gateway.instances WHERE id = $1", id_)
    kept = PROXY if legacy else seal_text(RING, PROXY, proxy_place(tenant, id_))
    await world.use_proxy(id_, kept)
    await world.supervisor.connect(id_)
    await world.engine.until_opened(1)
    assert world.engine.opened[0].proxy == PROXY


async def test_a_proxy_that_cannot_be_read_keeps_its_session_closed(world: World) -> None:
    id_ = await world.instance()
    elsewhere = seal_text(RING, PROXY, proxy_place(id_, id_))
    await world.use_proxy(id_, elsewhere)
    await world.supervisor.connect(id_)
    at = world.clock.now()
    await eventually(lambda: has_passed(world, at + REOPEN_AFTER))
    assert world.engine.opened == []
    await world.use_proxy(id_, PROXY)
    await world.supervisor.connect(id_)
    await world.engine.until_opened(1)
    assert [opening.proxy for opening in world.engine.opened] == [PROXY]


async def test_a_session_that_is_replaced_though_it_is_ours_is_opened_again(world: World) -> None:
    id_ = await world.connected()
    assert await world.supervisor.handle(Replaced(instance_id=id_, at=NOON))
    await world.engine.until_opened(2)
    assert await world.state(id_) == ("connecting", None)
    assert world.events("instance.disconnected")[-1] == {
        "reason": "replaced",
        "willRetry": True,
    }


async def test_three_replacements_in_five_minutes_are_somebody_elses_doing(world: World) -> None:
    id_ = await world.connected()
    for count in (2, 3):
        assert await world.supervisor.handle(Replaced(instance_id=id_, at=NOON))
        await world.engine.until_opened(count)
    assert await world.supervisor.handle(Replaced(instance_id=id_, at=NOON))
    assert await world.state(id_) == (
        "failed",
        "replaced by another client that uses the same credentials",
    )
    assert world.supervisor.session(id_) is None
    assert world.events("instance.disconnected")[-1]["reason"] == "replaced"


async def test_replacements_far_apart_are_not_counted_together(world: World) -> None:
    id_ = await world.connected()
    for count in range(2, 6):
        assert await world.supervisor.handle(Replaced(instance_id=id_, at=NOON))
        await world.engine.until_opened(count)
        world.clock.move(timedelta(minutes=6))
    assert (await world.state(id_))[0] == "connecting"


async def test_a_session_that_the_next_owner_has_replaced_is_let_go_without_a_word(
    world: World,
) -> None:
    id_ = await world.connected()
    told = len(world.told)
    await world.sql.execute(
        "UPDATE sessions.shards SET epoch = epoch + 1, owner = 'them' WHERE id = $1",
        world.lease.shard,
    )
    assert await world.supervisor.handle(Replaced(instance_id=id_, at=NOON))
    assert world.supervisor.session(id_) is None
    assert len(world.told) == told
    assert await world.state(id_) == ("ready", None)


async def test_a_replacement_is_not_forgotten_while_the_database_is_away(world: World) -> None:
    id_ = await world.connected()
    world.chronicle.blips = 1
    with pytest.raises(Transient):
        await world.supervisor.handle(Replaced(instance_id=id_, at=NOON))
    assert await world.supervisor.handle(Replaced(instance_id=id_, at=NOON))
    await world.engine.until_opened(2)


async def test_a_deaf_session_is_told_of_and_stays_ready(world: World) -> None:
    id_ = await world.connected()
    deaf = Deaf(instance_id=id_, at=LATER, reason="silent", last_heard_at=NOON)
    assert await world.supervisor.handle(deaf)
    (event,) = world.events("session.degraded")
    assert event == {"reason": "silent", "lastHeardAt": rfc3339(NOON)}
    assert await world.state(id_) == ("ready", None)


async def test_attempts_that_fail_are_told_of_now_and_then(world: World) -> None:
    id_ = await world.instance()
    await world.supervisor.connect(id_)
    await world.engine.until_opened(1)
    failing = Hindered(instance_id=id_, at=NOON, reason="unreachable")
    for _time in range(5):
        assert await world.supervisor.handle(failing)
    assert len(world.events("connection.update")) == 1
    assert await world.supervisor.handle(replace(failing, reason="refused"))
    world.clock.move(timedelta(minutes=1))
    assert await world.supervisor.handle(replace(failing, reason="refused"))
    told = world.events("connection.update")
    assert [event["reason"] for event in told] == ["unreachable", "refused", "refused"]
    assert {event["connection"] for event in told} == {"retrying"}


async def test_a_ban_says_until_when(world: World) -> None:
    id_ = await world.connected()
    banned = Banned(instance_id=id_, at=NOON, reason="banned", until=NOON + timedelta(hours=1))
    assert await world.supervisor.handle(banned)
    status, error = await world.state(id_)
    assert (status, error) == ("banned", f"banned until {rfc3339(NOON + timedelta(hours=1))}")
    assert world.events("instance.disconnected")[-1]["reason"] == "banned"


async def test_a_doubled_command_does_not_open_what_a_ban_has_ended(world: World) -> None:
    id_ = await world.connected()
    world.clock.move(timedelta(seconds=5))
    assert await world.supervisor.handle(Banned(instance_id=id_, at=NOON, reason="banned"))
    await world.supervisor.connect(id_)
    await world.supervisor.connect(id_, restart=True)
    assert (await world.state(id_))[0] == "banned"
    assert len(world.engine.opened) == 1
    await world.sql.execute("UPDATE gateway.instances SET updated_at = $1", LATER)
    await world.supervisor.connect(id_)
    await world.engine.until_opened(2)


async def test_a_session_that_can_never_be_opened_says_so_though_the_database_blinks(
    world: World,
) -> None:
    id_ = await world.instance()
    world.engine.refusals = [Rejected("That is no proxy.")]
    await world.supervisor.connect(id_)
    world.chronicle.blips = 2
    await eventually(lambda: gone(world, id_))
    assert await world.state(id_) == ("failed", "That is no proxy.")


async def test_opening_is_tried_again_after_a_blip(world: World) -> None:
    id_ = await world.instance()
    world.engine.refusals = [Transient("away"), Transient("away")]
    await world.supervisor.connect(id_)
    await world.engine.until_opened(1)
    assert world.engine.refusals == []


async def test_a_lease_that_is_lost_while_opening_ends_the_attempt(world: World) -> None:
    id_ = await world.instance()
    world.engine.refusals = [Fenced("Another process owns this shard now.")]
    await world.supervisor.connect(id_)
    async with asyncio.timeout(PATIENCE):
        await world.engine.news.wait()
    assert world.engine.refusals == []
    assert (await world.state(id_))[0] == "connecting"
    assert world.engine.opened == []


async def test_a_lease_that_is_lost_during_take_up_raises_to_whoever_takes_up(
    world: World,
) -> None:
    await world.instance()
    await world.sql.execute(
        "UPDATE sessions.shards SET epoch = epoch + 1, owner = 'them' WHERE id = $1",
        world.lease.shard,
    )
    tenure = Tenure(world.lease)
    with pytest.raises(Fenced):
        await world.supervisor.adopt(tenure.lease)
    assert world.engine.opened == []


async def test_what_a_session_has_received_can_be_committed_while_it_is_closed(
    world: World,
) -> None:
    id_ = await world.connected()
    seen: list[tuple[bool, bool]] = []
    world.engine.closing = lambda _: seen.append(
        (world.supervisor.session(id_) is not None, world.supervisor.ready(id_) is not None)
    )
    await world.supervisor.leave(world.lease)
    assert seen == [(True, False)]
    assert world.supervisor.session(id_) is None


async def test_a_proxy_and_a_name_of_the_instance_reach_its_engine(world: World) -> None:
    guard = {"perMinute": 0, "proxy": "socks5://me:secret@proxy:1080", "deviceName": "Desk"}
    id_ = await world.instance(guard=guard)
    await world.supervisor.connect(id_)
    await world.engine.until_opened(1)
    (opening,) = world.engine.opened
    assert (opening.proxy, opening.device_name) == ("socks5://me:secret@proxy:1080", "Desk")


async def test_an_engine_that_is_missing_says_how_to_get_it(world: World) -> None:
    id_ = await world.instance(engine="absent")
    await world.supervisor.connect(id_)
    assert await world.state(id_) == (Status.FAILED.value, "Install it.")
