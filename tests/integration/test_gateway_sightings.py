"""What is worth knowing and changes nothing: noted late, counted, bounded, told to its owner."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import orjson
import pytest

from services.gateway.domain.auditing import STRANGER, Entry
from services.gateway.store import sightings as module
from services.gateway.store.sightings import Sightings
from shared.errors import Transient
from shared.ids import new_id
from tests.support import gateway as gateway_support
from tests.support.builders import NOON, an_instance
from tests.support.gateway import Gateway

ADA = "ada@example.com"


def an_entry(**given: Any) -> Entry:
    return Entry(
        **{
            "id": new_id(),
            "at": NOON,
            "tenant_id": None,
            "actor": STRANGER,
            "action": "security.login_failed",
            "resource_type": "user",
            "address": "203.0.113.7",
            **given,
        }
    )


@pytest.fixture
async def told() -> list[bool]:
    return []


@pytest.fixture
async def sightings(gateway: Gateway, told: list[bool]) -> Sightings:
    return Sightings(database=gateway.database, clock=gateway.clock, told=lambda: told.append(True))


async def rows(gateway: Gateway, action: str = "security.%") -> list[dict[str, Any]]:
    found = await gateway.sql.fetch(
        "SELECT * FROM gateway.audit_logs WHERE action LIKE $1 ORDER BY at, id", action
    )
    return [dict(row) for row in found]


async def test_alike_ones_are_one_entry_that_counts_them(
    gateway: Gateway, sightings: Sightings
) -> None:
    for _ in range(5):
        sightings.note(an_entry())
    sightings.note(an_entry(address="203.0.113.8"))
    assert await sightings.write() == 2
    assert sorted(row["times"] for row in await rows(gateway)) == [1, 5]
    # For a minute more of the same is gathered; another sort is not kept waiting by it.
    sightings.note(an_entry())
    sightings.note(an_entry())
    sightings.note(an_entry(action="security.permission_denied"))
    assert await sightings.write() == 1
    gateway.clock.move(timedelta(minutes=1))
    assert await sightings.write() == 1
    assert [row["times"] for row in await rows(gateway, "%failed")].count(2) == 1


async def test_an_hour_of_attack_fills_no_table_and_is_counted_to_the_last(
    gateway: Gateway, sightings: Sightings
) -> None:
    tenant = new_id()
    for n in range(5_000):
        sightings.note(an_entry(address=f"2001:db8::{n:x}", tenant_id=tenant))
        if n % 500 == 0:
            gateway.clock.move(timedelta(minutes=5))
            await sightings.write()
    await sightings.write(everything=True)
    found = await rows(gateway)
    assert sum(row["times"] for row in found) == 5_000
    assert len(found) <= 2 * (module.TENANT_HOURLY + 12)
    # Another organization's are still told one by one.
    other = new_id()
    sightings.note(an_entry(tenant_id=other))
    await sightings.write()
    assert [row["resource_type"] for row in await rows(gateway) if row["tenant_id"] == other] == [
        "user"
    ]


async def test_many_organizations_attacked_at_once_fill_no_table(
    gateway: Gateway, sightings: Sightings
) -> None:
    for _ in range(3_000):
        sightings.note(an_entry(tenant_id=new_id()))
    await sightings.write()
    found = await rows(gateway)
    assert sum(row["times"] for row in found) == 3_000
    assert len(found) <= module.HOURLY + 21


async def test_what_cannot_be_written_is_written_later(
    gateway: Gateway, sightings: Sightings
) -> None:
    sightings.note(an_entry())
    async with gateway.sql.transaction():
        await gateway.sql.execute("LOCK TABLE gateway.audit_logs IN ACCESS EXCLUSIVE MODE")
        writing = asyncio.ensure_future(sightings.write())
        waiting = await _blocked(gateway)
        sightings.note(an_entry())
        while not writing.done():  # the gateway's own writers wait there as well
            await gateway.sql.execute(
                "SELECT pg_cancel_backend(pid) FROM unnest($1::int[]) pid", waiting
            )
            waiting = await _waiting(gateway)
        with pytest.raises(Transient):
            await writing
    assert await sightings.write() == 1
    assert [row["times"] for row in await rows(gateway)] == [2]


async def _blocked(gateway: Gateway) -> list[int]:
    """Who waits for a lock of ours, once somebody does."""
    async with asyncio.timeout(5):
        while not (found := await _waiting(gateway)):
            continue
    return found


async def _waiting(gateway: Gateway) -> list[int]:
    rows = await gateway.sql.fetch(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
        " AND pg_backend_pid() = ANY (pg_blocking_pids(pid))"
    )
    return [row["pid"] for row in rows]


async def test_what_is_still_remembered_is_written_when_the_process_ends(
    gateway: Gateway, sightings: Sightings
) -> None:
    async with sightings.lasting():
        sightings.note(an_entry())
        await sightings.write()
        sightings.note(an_entry())
    assert len(await rows(gateway)) == 2


@dataclass
class Left:
    """What a gateway that has stopped has left behind: entries by their actions, and events."""

    entries: dict[str, list[dict[str, Any]]]
    events: list[dict[str, Any]]


async def left_in(database_url: str) -> Left:
    sql = await asyncpg.connect(database_url)
    try:
        entries: dict[str, list[dict[str, Any]]] = {}
        for row in await sql.fetch(
            "SELECT * FROM gateway.audit_logs WHERE action LIKE 'security.%' ORDER BY at, id"
        ):
            entries.setdefault(row["action"], []).append(dict(row))
        # Told already, or about to be.
        told = await sql.fetch(
            "SELECT body FROM gateway.events WHERE type = 'security.violation'"
            " UNION SELECT body FROM gateway.outbox WHERE name = 'security.violation'"
        )
    finally:
        await sql.close()
    return Left(entries, [orjson.loads(body) for (body,) in told])


def times(entries: list[dict[str, Any]]) -> int:
    return sum(entry["times"] for entry in entries)


async def test_failed_logins_and_the_lock_out_are_noted_and_told_once(database_url: str) -> None:
    async with gateway_support.running(database_url) as gateway:
        _, account = await gateway.register()
        body = {"email": ADA, "password": "wrong wrong"}
        for _ in range(8):
            await gateway.stranger().post("/api/auth/login", body)
        await gateway.stranger().post("/api/auth/login", {**body, "email": "hunter2@example.com"})
    left = await left_in(database_url)
    tenant, user = UUID(account["organization"]["id"]), account["user"]["id"]
    failed = left.entries["security.login_failed"]
    hers = [entry for entry in failed if entry["tenant_id"] == tenant]
    assert times(hers) == 5
    assert {entry["resource_id"] for entry in hers} == {user}
    # Of an address without an account nothing is kept: it may be a password in the wrong field.
    assert [
        (entry["tenant_id"], entry["resource_id"]) for entry in failed if entry not in hers
    ] == [(None, None)]
    assert "hunter2" not in str(left)
    # When the door closed, and at each knock from then on.
    assert times(left.entries["security.login_locked"]) == 4
    [event] = left.events
    assert event["data"]["violation"] == "login_locked"
    assert event["data"]["resourceId"] == user


async def test_a_key_that_is_dead_and_a_caller_who_may_not_are_noted(database_url: str) -> None:
    async with gateway_support.running(database_url) as gateway:
        ada, account = await gateway.register()
        tenant = UUID(account["organization"]["id"])
        instance = await an_instance(gateway.sql, tenant)
        revoked, key = await gateway.key(instance, tenant, revoked_at=NOON)
        expired, old = await gateway.key(instance, tenant, expires_at=NOON)
        live, _ = await gateway.key(instance, tenant)
        for _ in range(2):
            assert (await revoked.text("+12025550199", "x")).status == 401
        assert (await expired.get("/api/instance/info")).status == 401
        assert (await live.get("/api/audit-logs")).status == 403
        assert (await ada.get("/api/auth/me")).status == 200
    left = await left_in(database_url)
    assert {action: times(entries) for action, entries in left.entries.items()} == {
        "security.revoked_key_used": 2,
        "security.expired_key_used": 1,
        "security.permission_denied": 1,
    }
    assert left.entries["security.revoked_key_used"][0]["key_id"] == key
    assert left.entries["security.expired_key_used"][0]["key_id"] == old
    denied = left.entries["security.permission_denied"][0]
    assert denied["resource_id"] == "GET /api/audit-logs"
    assert denied["tenant_id"] == tenant
    [event] = left.events
    assert event["data"]["violation"] == "revoked_key_used"
    assert event["data"]["resourceId"] == str(key)
    assert event["tenantid"] == str(tenant)


async def test_what_a_key_was_before_it_was_made_anew_is_seen_under_its_name(
    database_url: str,
) -> None:
    async with gateway_support.running(database_url) as gateway:
        ada, account = await gateway.register()
        instance = await an_instance(gateway.sql, UUID(account["organization"]["id"]))
        path = f"/api/instances/{instance}/keys"
        key = (await ada.post(path, {"name": "Shop"})).data
        await ada.post(f"{path}/{key['id']}/regenerate")
        assert (await ada.with_key(key["key"]).get("/api/instance/info")).status == 401
    left = await left_in(database_url)
    [entry] = left.entries["security.revoked_key_used"]
    assert entry["resource_id"] == key["id"]
    [event] = left.events
    assert event["data"]["resourceId"] == key["id"]


async def test_a_reused_refresh_token_is_noted_with_the_end_of_its_login(
    database_url: str,
) -> None:
    async with gateway_support.running(database_url) as gateway:
        _, account = await gateway.register()
        body = {"refreshToken": account["refreshToken"]}
        for _ in range(3):
            await gateway.stranger().post("/api/auth/refresh", body)
    left = await left_in(database_url)
    [entry] = left.entries["security.refresh_token_reused"]
    assert entry["resource_id"] == account["user"]["id"]
    assert [event["data"]["violation"] for event in left.events] == ["refresh_token_reused"]


async def test_an_answer_does_not_wait_for_what_is_noted(gateway: Gateway) -> None:
    await gateway.register()
    async with gateway.sql.transaction():
        await gateway.sql.execute("LOCK TABLE gateway.audit_logs IN ACCESS EXCLUSIVE MODE")
        body = {"email": ADA, "password": "wrong wrong"}
        async with asyncio.timeout(5):
            refused = await gateway.stranger().post("/api/auth/login", body)
    assert refused.status == 401
