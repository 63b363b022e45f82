"""Instance keys: what they open, and for how long."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from services.gateway.loops.notes import NoteKeyUse
from services.gateway.store.keys import Counted, KeyUses
from shared.ids import new_id
from shared.security.tokens import digest_of
from tests.support import gateway as gateway_support
from tests.support.builders import an_instance
from tests.support.customer import Customer
from tests.support.eventually import eventually
from tests.support.gateway import ALL, PASSWORD, Gateway, Sender


async def an_account(gateway: Gateway) -> tuple[Customer, UUID, UUID]:
    user, account = await gateway.register()
    tenant = UUID(account["organization"]["id"])
    return user, tenant, await an_instance(gateway.sql, tenant)


async def made(user: Customer, instance: UUID, **given: Any) -> Any:
    answer = await user.post(f"/api/instances/{instance}/keys", {"name": "Shop", **given})
    assert answer.status == 201, answer.body
    return answer.data


async def test_a_key_is_seen_once_and_only_its_digest_is_kept(gateway: Gateway) -> None:
    ada, _, instance = await an_account(gateway)
    key = await made(ada, instance)
    assert key["key"].startswith("api_")
    assert key["rateLimit"] == 1000
    assert key["permissions"]["webhook"] == {"configure": False, "test": False}
    assert key["permissions"]["messages"] == {"send": True, "receive": True}
    row = await gateway.row("SELECT * FROM gateway.instance_keys")
    assert row["key_hash"] == digest_of(key["key"])
    assert key["key"] not in str(row)
    [listed] = (await ada.get(f"/api/instances/{instance}/keys")).data
    assert listed["hint"] == f"api_…{key['key'][-4:]}"
    assert "key" not in listed
    assert (await ada.get(f"/api/instances/{instance}/keys/{key['id']}")).data == listed


async def test_a_key_that_is_asked_for_twice_is_shown_twice_and_unreadable_in_between(
    gateway: Gateway,
) -> None:
    ada, _, instance = await an_account(gateway)
    path, body, headers = f"/api/instances/{instance}/keys", {"name": "a"}, {"Idempotency-Key": "k"}
    first = await ada.post(path, body, headers=headers)
    again = await ada.post(path, body, headers=headers)
    assert again.data == first.data
    assert await gateway.count("gateway.instance_keys") == 1
    stored = await gateway.row("SELECT * FROM gateway.idempotency_keys")
    secret = first.data["key"].encode()
    assert all(secret not in bytes(value) for value in stored.values() if isinstance(value, bytes))


async def test_a_key_acts_for_its_instance_in_either_header(gateway: Gateway) -> None:
    ada, _, instance = await an_account(gateway)
    key = (await made(ada, instance))["key"]
    for headers in (
        {"X-API-Key": key},
        {"Authorization": f"Bearer {key}"},
        {"authorization": f"bearer   {key}"},
    ):
        shown = await gateway.stranger().get("/api/instance/info", headers=headers)
        assert shown.data["id"] == str(instance)


UNKNOWN: list[tuple[dict[str, str], str]] = [
    ({}, "X-API-Key"),
    ({"X-API-Key": ""}, "X-API-Key"),
    ({"X-API-Key": "api_" + "x" * 43}, "copied whole"),
    ({"X-API-Key": "api_short"}, "copy it whole"),
    ({"X-API-Key": "sk_" + "x" * 43}, "copied whole"),
    ({"X-API-Key": "rt_" + "x" * 43}, "refresh"),
    ({"Authorization": "Basic YWRhOnBhc3M="}, "Bearer"),
    ({"Authorization": "Bearer"}, "Bearer"),
    ({"Authorization": "Bearer a.b.c"}, "log in"),
    ({"Authorization": "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0."}, "log in"),
]


async def test_whoever_is_not_known_is_told_what_to_show(gateway: Gateway) -> None:
    for headers, advice in UNKNOWN:
        refused = await gateway.stranger().get("/api/instance/info", headers=headers)
        assert (refused.status, refused.code) == (401, "UNAUTHORIZED")
        assert advice in refused.body["error"]["message"]


async def test_a_revoked_key_stops_at_once_where_it_was_revoked(gateway: Gateway) -> None:
    ada, _, instance = await an_account(gateway)
    key = await made(ada, instance)
    keyed = ada.with_key(key["key"])
    assert (await keyed.text("+12025550199", "x")).status == 202
    path = f"/api/instances/{instance}/keys/{key['id']}"
    assert (await ada.call("DELETE", path)).data == {"id": key["id"], "deleted": True}
    refused = await keyed.text("+12025550199", "x")
    assert (refused.status, refused.code) == (401, "UNAUTHORIZED")
    assert "revoked" in refused.body["error"]["message"]
    assert (await ada.get(path)).status == 404
    assert (await ada.call("DELETE", path)).status == 404
    assert (await ada.get(f"/api/instances/{instance}/keys")).data == []


async def test_a_key_that_was_revoked_where_nobody_heard_of_it_stops_within_five_seconds(
    gateway: Gateway, sender: Sender
) -> None:
    assert (await sender.text()).status == 202
    await gateway.sql.execute(
        "UPDATE gateway.instance_keys SET revoked_at = $1", gateway.clock.now()
    )
    gateway.clock.move(timedelta(seconds=5))
    before = await gateway.rows()
    assert (await sender.text()).status == 401
    assert await gateway.rows() == before


async def test_a_key_expires(gateway: Gateway, sender: Sender) -> None:
    await gateway.sql.execute(
        "UPDATE gateway.instance_keys SET expires_at = $1",
        gateway.clock.now() + timedelta(minutes=5),
    )
    assert (await sender.text()).status == 202
    gateway.clock.move(timedelta(minutes=6))
    refused = await sender.text()
    assert (refused.status, refused.code) == (401, "UNAUTHORIZED")
    assert "expired" in refused.body["error"]["message"]


async def test_an_instance_has_so_many_keys_and_dead_ones_do_not_count(gateway: Gateway) -> None:
    ada, tenant, instance = await an_account(gateway)
    await gateway.key(instance, tenant, revoked_at=gateway.clock.now())
    await gateway.key(instance, tenant, expires_at=gateway.clock.now() - timedelta(days=1))
    keys = [await made(ada, instance) for _ in range(10)]
    refused = await ada.post(f"/api/instances/{instance}/keys", {"name": "one too many"})
    assert (refused.status, refused.code) == (429, "QUOTA_EXCEEDED")
    await ada.call("DELETE", f"/api/instances/{instance}/keys/{keys[0]['id']}")
    await made(ada, instance)


WRONG: list[tuple[dict[str, object], str]] = [
    ({"rateLimit": 0}, "rateLimit"),
    ({"permissions": {"messages": {"sned": True}}}, "permissions.messages.sned"),
    ({"permissions": {"messages": {"send": "yes"}}}, "permissions.messages.send"),
    ({"expiresInDays": 0}, "expiresInDays"),
    ({"name": None}, "name"),
]


async def test_a_key_that_is_wrong_is_not_made(gateway: Gateway) -> None:
    ada, _, instance = await an_account(gateway)
    for wrong, field in WRONG:
        refused = await ada.post(f"/api/instances/{instance}/keys", {"name": "Shop", **wrong})
        assert (refused.status, refused.code) == (422, "VALIDATION_FAILED")
        assert list(refused.body["error"]["data"]["fields"]) == [field]
        assert await gateway.count("gateway.instance_keys") == 0


DENIED: list[tuple[str, str]] = [
    ("messages.send", "POST /api/messages/text"),
    ("messages.receive", "GET /api/messages"),
    ("messages.receive", "GET /api/events"),
    ("instance.info", "GET /api/instance/info"),
    ("instance.stats", "GET /api/stats"),
    ("webhook.configure", "GET /api/webhook"),
    ("webhook.configure", "POST /api/webhook"),
    ("webhook.test", "POST /api/webhook/test"),
]


async def test_a_key_may_not_do_what_its_map_denies(gateway: Gateway, sender: Sender) -> None:
    for permission, route in DENIED:
        group, name = permission.split(".")
        method, path = route.split()
        denied = {**ALL, group: {**ALL[group], name: False}}
        keyed, _ = await gateway.key(sender.instance, sender.tenant, permissions=denied)
        # Twice: the first request of a key and those after it may go different ways.
        for _ in range(2):
            refused = await keyed.call(method, path, json={"to": "+12025550199", "message": "x"})
            assert (refused.status, refused.code) == (403, "FORBIDDEN")
            assert permission in refused.body["error"]["message"]
        before = await gateway.count("dispatcher.messages")
        assert before == 0 or permission != "messages.send"
        allowed = await sender.customer.call(
            method, path, json={"to": "+12025550199", "message": "x"}
        )
        assert allowed.status not in {401, 403}


async def test_a_keys_own_limit_is_kept_and_told(gateway: Gateway, sender: Sender) -> None:
    keyed, _ = await gateway.key(sender.instance, sender.tenant, rate_limit=3)
    answers = [await keyed.text("+12025550199", "x") for _ in range(4)]
    assert [answer.status for answer in answers] == [202, 202, 202, 429]
    remaining = [answer.headers["RateLimit-Remaining"] for answer in answers]
    assert remaining == ["2", "1", "0", "0"]
    assert {answer.headers["RateLimit-Limit"] for answer in answers} == {"3"}
    assert int(answers[-1].headers["Retry-After"]) > 0
    assert await gateway.count("dispatcher.messages") == 3


async def test_a_key_is_changed_and_the_change_counts_at_once(gateway: Gateway) -> None:
    ada, _, instance = await an_account(gateway)
    key = await made(ada, instance)
    keyed = ada.with_key(key["key"])
    path = f"/api/instances/{instance}/keys/{key['id']}"
    assert (await keyed.text("+12025550199", "x")).status == 202
    ends = gateway.clock.now() + timedelta(days=3)
    changed = await ada.call(
        "PUT",
        path,
        json={
            "name": "Stall",
            "permissions": {"messages": {"send": False}},
            "rateLimit": 7,
            "expiresAt": ends.isoformat(),
        },
    )
    assert changed.data["name"] == "Stall"
    assert changed.data["rateLimit"] == 7
    assert changed.data["permissions"]["messages"] == {"send": False, "receive": True}
    found = (await ada.get(path)).data
    assert {**found, "lastUsedAt": None} == {**changed.data, "lastUsedAt": None}
    assert (await keyed.text("+12025550199", "x")).status == 403
    info = await keyed.get("/api/instance/info")
    assert info.headers["RateLimit-Limit"] == "7"
    assert (await ada.call("PUT", path, json={})).data["name"] == "Stall"
    gateway.clock.move(timedelta(days=3))
    assert (await keyed.get("/api/instance/info")).status == 401


WRONG_CHANGES: list[tuple[dict[str, object], str]] = [
    ({"expiresAt": "2020-01-01T00:00:00Z"}, "expiresAt"),
    ({"expiresAt": "2100-01-01T00:00:00Z"}, "expiresAt"),
    ({"expiresAt": "soon"}, "expiresAt"),
    ({"permissions": {"messages": {"sned": True}}}, "permissions.messages.sned"),
    ({"rateLimit": 10_000_001}, "rateLimit"),
    ({"rateLimit": 0}, "rateLimit"),
    ({"rateLimit": -5}, "rateLimit"),
    ({"name": ""}, "name"),
    ({"key": "api_mine"}, "key"),
]


async def test_a_key_is_neither_made_nor_changed_wrongly(gateway: Gateway) -> None:
    ada, _, instance = await an_account(gateway)
    path = f"/api/instances/{instance}/keys"
    key = await made(ada, instance)
    before = (await ada.get(f"{path}/{key['id']}")).data
    for wrong, field in WRONG_CHANGES:
        for refused in (
            await ada.call("PUT", f"{path}/{key['id']}", json=wrong),
            await ada.post(path, {"name": "Shop", **wrong}),
        ):
            assert (refused.status, refused.code) == (422, "VALIDATION_FAILED"), wrong
            assert list(refused.body["error"]["data"]["fields"]) == [field]
    assert (await ada.get(f"{path}/{key['id']}")).data == before
    both = {"name": "Shop", "expiresInDays": 3, "expiresAt": "2030-01-01T00:00:00Z"}
    assert (await ada.post(path, both)).status == 422
    assert await gateway.count("gateway.instance_keys") == 1


async def test_a_key_that_is_made_anew_keeps_what_it_is_and_the_old_one_is_dead(
    gateway: Gateway,
) -> None:
    ada, _, instance = await an_account(gateway)
    key = await made(ada, instance, rateLimit=77)
    old = ada.with_key(key["key"])
    path = f"/api/instances/{instance}/keys/{key['id']}"
    assert (await old.text("+12025550199", "x")).status == 202
    again = (await ada.post(f"{path}/regenerate")).data
    assert again.pop("key") != key["key"]
    assert again == {name: value for name, value in key.items() if name != "key"}
    refused = await old.text("+12025550199", "x")
    assert refused.status == 401
    assert "revoked" in refused.body["error"]["message"]
    renewed = await ada.post(f"{path}/regenerate", headers={"Idempotency-Key": "k"})
    repeat = await ada.post(f"{path}/regenerate", headers={"Idempotency-Key": "k"})
    assert repeat.data == renewed.data
    assert (await ada.with_key(renewed.data["key"]).text("+12025550199", "x")).status == 202
    seen = await gateway.sql.fetchval(
        "SELECT count(*) FROM gateway.instance_keys WHERE replaced_by = $1", UUID(key["id"])
    )
    assert seen == 2
    # One key, whatever it has been before.
    [listed] = (await ada.get(f"/api/instances/{instance}/keys")).data
    assert listed["hint"] == f"api_…{renewed.data['key'][-4:]}"
    assert (await ada.get(f"{path}/usage")).data["totalRequests"] == 2


async def test_an_expired_key_that_is_made_anew_lives_again_if_there_is_room(
    gateway: Gateway,
) -> None:
    ada, _, instance = await an_account(gateway)
    key = await made(ada, instance, expiresInDays=1)
    path = f"/api/instances/{instance}/keys/{key['id']}"
    gateway.clock.move(timedelta(days=2))
    token = (
        await gateway.stranger().post(
            "/api/auth/login", {"email": "ada@example.com", "password": PASSWORD}
        )
    ).data["token"]
    ada = gateway.with_token(token)
    others = [await made(ada, instance) for _ in range(10)]
    for refused in (
        await ada.post(f"{path}/regenerate"),
        await ada.call(
            "PUT",
            path,
            json={"expiresAt": (gateway.clock.now() + timedelta(days=1)).isoformat()},
        ),
    ):
        assert (refused.status, refused.code) == (429, "QUOTA_EXCEEDED")
    await ada.call("DELETE", f"/api/instances/{instance}/keys/{others[0]['id']}")
    renewed = (await ada.post(f"{path}/regenerate")).data
    assert (await ada.with_key(renewed["key"]).get("/api/instance/info")).status == 200


async def test_usage_counts_what_went_well_and_what_did_not(gateway: Gateway) -> None:
    ada, _, instance = await an_account(gateway)
    key = await made(ada, instance, rateLimit=5)
    keyed = ada.with_key(key["key"])
    path = f"/api/instances/{instance}/keys/{key['id']}/usage"
    assert (await ada.get(path)).data == {
        "totalRequests": 0,
        "successfulRequests": 0,
        "failedRequests": 0,
        "rateLimit": 5,
        "remainingQuota": 5,
        "lastUsed": None,
        "createdAt": (await ada.get(path)).data["createdAt"],
    }
    statuses = [
        (await keyed.text("+12025550199", "x")).status,
        (await keyed.text("+12025550199", "x")).status,  # the short way
        (await keyed.text("nobody", "x")).status,
        (await keyed.get("/api/instance/info")).status,
        (await keyed.get("/api/messages/none")).status,
        (await keyed.text("+12025550199", "x")).status,  # too many
    ]
    assert statuses == [202, 202, 422, 200, 404, 429]
    usage = (await ada.get(path)).data
    assert usage["totalRequests"] == 6
    assert usage["successfulRequests"] == 3
    assert usage["failedRequests"] == 3
    assert usage["remainingQuota"] == 0


async def test_usage_survives_a_restart(database_url: str) -> None:
    async with gateway_support.running(database_url) as gateway:
        ada, _, instance = await an_account(gateway)
        key = await made(ada, instance)
        for _ in range(3):
            assert (await ada.with_key(key["key"]).text("+12025550199", "x")).status == 202
    async with gateway_support.running(database_url) as gateway:
        ada = gateway.with_token(
            (
                await gateway.stranger().post(
                    "/api/auth/login", {"email": "ada@example.com", "password": PASSWORD}
                )
            ).data["token"]
        )
        usage = (await ada.get(f"/api/instances/{instance}/keys/{key['id']}/usage")).data
    assert usage["totalRequests"] == usage["successfulRequests"] == 3
    assert usage["lastUsed"] is not None


async def test_the_use_of_keys_is_written_down_in_batches(gateway: Gateway, sender: Sender) -> None:
    uses = KeyUses(gateway.database, clock=gateway.clock)
    key = await gateway.sql.fetchval("SELECT id FROM gateway.instance_keys")
    uses.count(key, succeeded=True)
    uses.count(key, succeeded=False)
    uses.note(new_id())
    assert uses.unwritten(key) == Counted(2, 1)
    now = gateway.clock.now()
    assert await uses.write(now=now) == 2
    assert await uses.write(now=now) == 0
    kept = await gateway.sql.fetchval("SELECT last_used_at FROM gateway.instance_keys")
    assert kept == now
    uses.count(key, succeeded=True)
    await uses.write(now=now)
    row = await gateway.row("SELECT requests, successes FROM gateway.instance_keys")
    assert row == {"requests": 3, "successes": 2}
    assert timedelta(seconds=5) >= NoteKeyUse.RHYTHM


async def test_the_use_of_keys_is_written_whole_or_not_at_all(gateway: Gateway) -> None:
    ada, _, instance = await an_account(gateway)
    await made(ada, instance)
    theirs = UUID((await ada.post("/api/team/keys", {"name": "x"})).data["id"])
    uses = KeyUses(gateway.database, clock=gateway.clock)
    key = await gateway.sql.fetchval("SELECT id FROM gateway.instance_keys")
    uses.note(theirs)
    uses.count(key, succeeded=True)
    await gateway.sql.execute(
        "ALTER TABLE gateway.instance_keys ADD CONSTRAINT unused CHECK (requests = 0)"
    )
    with pytest.raises(asyncpg.CheckViolationError):
        await uses.write(now=gateway.clock.now())
    used = "SELECT last_used_at FROM gateway.user_keys"
    assert await gateway.sql.fetchval(used) is None
    await gateway.sql.execute("ALTER TABLE gateway.instance_keys DROP CONSTRAINT unused")
    assert await uses.write(now=gateway.clock.now()) == 2
    assert await gateway.sql.fetchval(used) is not None
    assert await gateway.sql.fetchval("SELECT requests FROM gateway.instance_keys") == 1


async def test_the_use_of_keys_locks_them_in_one_order(gateway: Gateway, database_url: str) -> None:
    ada, _, _ = await an_account(gateway)
    keys = [await ada.post("/api/team/keys", {"name": "x"}) for _ in range(2)]
    low, high = sorted(UUID(answer.data["id"]) for answer in keys)
    # Now the low one lies behind the high one, and so few are read without an index.
    await gateway.sql.execute("UPDATE gateway.user_keys SET name = 'y' WHERE id = $1", low)
    await gateway.sql.execute("ANALYZE gateway.user_keys")
    uses = KeyUses(gateway.database, clock=gateway.clock)
    uses.note(high)
    uses.note(low)
    lock = "SELECT FROM gateway.user_keys WHERE id = $1 FOR UPDATE NOWAIT"

    async def waiting() -> bool:
        found: int = await gateway.sql.fetchval(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return found > 0

    other = await asyncpg.connect(database_url)
    try:
        async with asyncio.TaskGroup() as group, asyncio.timeout(10):
            async with other.transaction():
                await other.execute(lock, low)
                writing = group.create_task(uses.write(now=gateway.clock.now()))
                await eventually(waiting)
                await other.execute(lock, high)
            assert await writing == 2
    finally:
        await other.close()
