"""Instance keys: what they open, and for how long."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from services.gateway.loops import NoteKeyUse
from services.gateway.store.keys import KeyUses
from shared.ids import new_id
from shared.security.tokens import digest_of
from tests.support.builders import an_instance
from tests.support.customer import Customer
from tests.support.gateway import ALL, Gateway, Sender


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


async def test_the_use_of_keys_is_written_down_in_batches(gateway: Gateway, sender: Sender) -> None:
    uses = KeyUses(gateway.database)
    key = await gateway.sql.fetchval("SELECT id FROM gateway.instance_keys")
    uses.note(key)
    uses.note(key)
    uses.note(new_id())
    now = gateway.clock.now()
    assert await uses.write(now=now) == 2
    assert await uses.write(now=now) == 0
    kept = await gateway.sql.fetchval("SELECT last_used_at FROM gateway.instance_keys")
    assert kept == now
    assert timedelta(seconds=5) >= NoteKeyUse.RHYTHM
