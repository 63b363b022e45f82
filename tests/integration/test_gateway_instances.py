"""Instances: made, connected, limited, deleted."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import orjson

from shared.broker.topology import shard_queue
from shared.contracts.commands import ConnectInstance, DisconnectInstance
from shared.ids import new_id
from tests.support.builders import an_instance, an_organization
from tests.support.customer import Customer
from tests.support.gateway import Gateway

NEW = {"name": "Support", "engine": "sandbox"}


async def an_account(gateway: Gateway, plan: str = "basic") -> tuple[Customer, UUID]:
    user, account = await gateway.register()
    tenant = UUID(account["organization"]["id"])
    await gateway.sql.execute("UPDATE gateway.organizations SET plan = $1", plan)
    return user, tenant


async def test_a_new_instance_is_created_and_not_connected(gateway: Gateway) -> None:
    ada, _ = await an_account(gateway)
    made = await ada.post("/api/instances", {**NEW, "phoneNumber": "+1 (202) 555-0123"})
    assert made.status == 201
    instance = made.data
    assert instance["status"] == "created"
    assert instance["connected"] is False
    assert instance["phoneNumber"] == "+12025550123"
    assert instance["settings"] == {"autoScan": True, "receipts": True, "autoRead": True}
    for prefix in ("instances", "clients"):
        assert (await ada.get(f"/api/{prefix}/{instance['id']}")).data == instance
    status = (await ada.get(f"/api/instances/{instance['id']}/status")).data
    assert status == {
        "id": instance["id"],
        "name": "Support",
        "status": "created",
        "phoneNumber": "+12025550123",
        "deviceInfo": None,
        "since": instance["createdAt"],
        "lastError": None,
    }
    guard = (await ada.get(f"/api/instances/{instance['id']}/guard")).data
    assert (guard["perMinute"], guard["perHour"], guard["perDay"]) == (0, 0, 0)


WRONG: list[tuple[dict[str, object], str]] = [
    ({"engine": "telepathy"}, "engine"),
    ({"engine": None}, "engine"),
    ({"name": ""}, "name"),
    ({"phoneNumber": "0123"}, "phoneNumber"),
    ({"phoneNumber": "120363025246125486@g.us"}, "phoneNumber"),
    ({"settings": {"autoscan": True}}, "settings.autoscan"),
    ({"settings": {"unconfirmedAfter": -1}}, "settings.unconfirmedAfter"),
    ({"settings": [1]}, "settings"),
    ({"shard": 3}, "shard"),
]


async def test_an_instance_that_is_wrong_leaves_nothing(gateway: Gateway) -> None:
    ada, _ = await an_account(gateway)
    before = await gateway.rows()
    for wrong, field in WRONG:
        refused = await ada.post("/api/instances", {**NEW, **wrong})
        assert (refused.status, refused.code) == (422, "VALIDATION_FAILED")
        assert list(refused.body["error"]["data"]["fields"]) == [field]
        assert await gateway.rows() == before


async def test_an_unknown_engine_is_told_with_those_that_are_known(gateway: Gateway) -> None:
    ada, _ = await an_account(gateway)
    refused = await ada.post("/api/instances", {**NEW, "engine": "telepathy"})
    assert "sandbox" in refused.body["error"]["data"]["fields"]["engine"]


async def test_instances_go_to_the_shards_with_the_fewest(gateway: Gateway) -> None:
    ada, tenant = await an_account(gateway, "max")
    for shard in range(62):
        await an_instance(gateway.sql, await an_organization(gateway.sql), shard=shard)
    for _ in range(3):
        assert (await ada.post("/api/instances", NEW)).status == 201
    shards = await gateway.sql.fetch(
        "SELECT shard FROM gateway.instances WHERE tenant_id = $1 ORDER BY created_at", tenant
    )
    assert [shard for (shard,) in shards] == [62, 63, 0]


async def test_a_plan_says_how_many_instances_there_may_be(gateway: Gateway) -> None:
    ada, _ = await an_account(gateway)
    answers = await asyncio.gather(*(ada.post("/api/instances", NEW) for _ in range(8)))
    assert sorted(answer.status for answer in answers) == [201] * 5 + [429] * 3
    refused = next(answer for answer in answers if answer.status == 429)
    assert refused.code == "QUOTA_EXCEEDED"
    assert refused.body["error"]["data"]["limit"] == 5
    [first, *_] = (await ada.get("/api/instances")).data
    assert (await ada.call("DELETE", f"/api/instances/{first['id']}")).status == 200
    assert (await ada.post("/api/instances", NEW)).status == 201
    usage = (await ada.get("/api/organization")).data["usage"]
    assert usage["instances"] == {"used": 5, "limit": 5, "remaining": 0}


async def test_an_instance_is_made_once_for_one_key(gateway: Gateway) -> None:
    ada, _ = await an_account(gateway)
    headers = {"Idempotency-Key": "one"}
    answers = await asyncio.gather(
        *(ada.post("/api/instances", NEW, headers=headers) for _ in range(5))
    )
    assert {answer.status for answer in answers} <= {201, 409}
    again = await ada.post("/api/instances", NEW, headers=headers)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert await gateway.count("gateway.instances") == 1
    other = await ada.post("/api/instances", {**NEW, "name": "Other"}, headers=headers)
    assert (other.status, other.code) == (422, "IDEMPOTENCY_MISMATCH")
    gateway.clock.move(timedelta(hours=25))
    token = (
        await gateway.stranger().post(
            "/api/auth/login",
            {"email": "ada@example.com", "password": "an example passphrase"},
        )
    ).data["token"]
    later = await gateway.with_token(token).post("/api/instances", NEW, headers=headers)
    assert later.status == 201
    assert "Idempotency-Replayed" not in later.headers


async def test_pages_of_instances_neither_repeat_nor_hide_any(gateway: Gateway) -> None:
    ada, _ = await an_account(gateway)
    made = [(await ada.post("/api/instances", NEW)).data["id"] for _ in range(5)]
    seen: list[str] = []
    after = ""
    while True:
        page = await ada.get(f"/api/instances?limit=2{after}")
        seen += [instance["id"] for instance in page.data]
        if not page.body["pagination"]["hasMore"]:
            break
        after = f"&cursor={page.body['pagination']['nextCursor']}"
    assert seen == made[::-1]
    wrong = await ada.get("/api/instances?cursor=nonsense")
    assert (wrong.status, wrong.code) == (422, "VALIDATION_FAILED")


async def test_an_instance_is_changed_in_what_is_named_alone(gateway: Gateway) -> None:
    ada, _ = await an_account(gateway)
    made = (await ada.post("/api/instances", {**NEW, "settings": {"autoScan": False}})).data
    path = f"/api/instances/{made['id']}"
    changed = (await ada.call("PUT", path, json={"name": "Sales"})).data
    assert changed == {**made, "name": "Sales"}
    changed = (await ada.call("PUT", path, json={"settings": {"unconfirmedAfter": 2}})).data
    assert changed["settings"]["unconfirmedAfter"] == 2.0
    assert changed["settings"]["autoScan"] is True
    assert changed["updatedAt"] > made["updatedAt"]
    refused = await ada.call("PUT", path, json={"engine": "sandbox"})
    assert refused.status == 422


async def wish(gateway: Gateway, user: Customer, instance: str, what: str) -> Any:
    answer = await user.post(f"/api/instances/{instance}/{what}")
    assert answer.status == 202
    connected = await gateway.sql.fetchval(
        "SELECT connected FROM gateway.instances WHERE id = $1", UUID(instance)
    )
    assert answer.data["connected"] is connected
    return answer.data


async def test_what_is_wished_is_stored_and_the_shards_owner_is_told(gateway: Gateway) -> None:
    ada, _ = await an_account(gateway)
    instance = (await ada.post("/api/instances", NEW)).data["id"]
    shard = await gateway.sql.fetchval("SELECT shard FROM gateway.instances")
    queue = shard_queue(shard)
    for what, connected, restart in (
        ("connect", True, False),
        ("init", True, False),
        ("restart", True, True),
    ):
        assert (await wish(gateway, ada, instance, what))["connected"] is connected
        told = await gateway.heard.next(ConnectInstance, queue=queue)
        assert (str(told.instance_id), told.restart) == (instance, restart)
    for what, logout in (("disconnect", False), ("logout", True)):
        assert (await wish(gateway, ada, instance, what))["connected"] is False
        told = await gateway.heard.next(DisconnectInstance, queue=queue)
        assert (str(told.instance_id), told.logout) == (instance, logout)


async def test_connecting_what_is_ready_is_answered_like_the_first_time(gateway: Gateway) -> None:
    ada, tenant = await an_account(gateway)
    instance = await an_instance(gateway.sql, tenant)
    for _ in range(2):
        data = await wish(gateway, ada, str(instance), "connect")
        assert data == {"id": str(instance), "status": "ready", "connected": True}


async def test_the_request_id_goes_along_with_the_command(gateway: Gateway) -> None:
    ada, _ = await an_account(gateway)
    instance = (await ada.post("/api/instances", NEW)).data["id"]
    await ada.post(f"/api/instances/{instance}/connect", headers={"X-Request-Id": "from-me"})
    assert (await gateway.heard.next(ConnectInstance)).request_id == "from-me"


async def test_a_deleted_instance_is_gone_for_everybody(gateway: Gateway) -> None:
    ada, tenant = await an_account(gateway)
    instance = await an_instance(gateway.sql, tenant)
    keyed, _ = await gateway.key(instance, tenant)
    assert (await keyed.get("/api/instance/info")).data["id"] == str(instance)
    assert (await ada.call("DELETE", f"/api/instances/{instance}")).data == {
        "id": str(instance),
        "deleted": True,
    }
    assert (await gateway.heard.next(DisconnectInstance)).instance_id == instance
    refused = await keyed.text("+12025550199", "Hello")
    assert (refused.status, refused.code) == (401, "UNAUTHORIZED")
    assert "revoked" in refused.body["error"]["message"]
    sent = await ada.post(
        "/api/messages/text",
        {"to": "+12025550199", "message": "x", "instanceId": str(instance)},
    )
    assert (sent.status, sent.code) == (404, "NOT_FOUND")
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/connect"), ("GET", "/status")):
        assert (await ada.call(method, f"/api/instances/{instance}{path}")).status == 404
    assert (await ada.get("/api/instances")).data == []
    row = await gateway.row("SELECT connected, deleted_at FROM gateway.instances")
    assert row["connected"] is False
    assert row["deleted_at"] is not None


async def test_the_status_is_what_the_session_service_says(gateway: Gateway) -> None:
    ada, tenant = await an_account(gateway)
    instance = await an_instance(gateway.sql, tenant, status="banned")
    await gateway.sql.execute(
        "UPDATE sessions.session_states SET phone_number = '+12025550000',"
        " device_info = $1::jsonb, last_error = 'banned by WhatsApp'",
        orjson.dumps({"platform": "sandbox"}).decode(),
    )
    status = (await ada.get(f"/api/instances/{instance}/status")).data
    assert status == {
        "id": str(instance),
        "name": "An instance",
        "status": "banned",
        "phoneNumber": "+12025550000",
        "deviceInfo": {"platform": "sandbox"},
        "since": "2026-01-15T12:00:00.000Z",
        "lastError": "banned by WhatsApp",
    }


async def test_a_qr_code_comes_as_text_or_as_a_picture(gateway: Gateway) -> None:
    ada, tenant = await an_account(gateway)
    instance = await an_instance(gateway.sql, tenant, status="qr")
    path = f"/api/instances/{instance}/qr"
    none = await ada.get(path)
    assert (none.status, none.code) == (409, "CONFLICT")
    expires = gateway.clock.now() + timedelta(seconds=20)
    await gateway.sql.execute(
        "UPDATE sessions.session_states SET qr_code = '2@abc', qr_expires_at = $1", expires
    )
    shown = (await ada.get(path)).data
    assert shown["code"] == "2@abc"
    png = await ada.get(path, headers={"Accept": "image/png"})
    assert png.headers["Content-Type"] == "image/png"
    assert png.body.startswith(b"\x89PNG\r\n")
    svg = await ada.get(path, headers={"Accept": "image/svg+xml"})
    assert svg.headers["Content-Type"] == "image/svg+xml"
    assert b"<svg" in svg.body
    gateway.clock.move(timedelta(seconds=30))
    assert (await ada.get(path)).status == 409


async def test_limits_are_changed_and_their_use_is_told(gateway: Gateway) -> None:
    ada, tenant = await an_account(gateway)
    instance = await an_instance(gateway.sql, tenant)
    path = f"/api/instances/{instance}/guard"
    changed = await ada.call("PUT", path, json={"perMinute": 2, "perDay": 10})
    assert changed.data == {
        "perMinute": 2,
        "perHour": 0,
        "perDay": 10,
        "quietHours": None,
        "warmUp": None,
        "pauses": None,
        "typing": False,
        "proxy": None,
        "deviceName": None,
    }
    now = gateway.clock.now()
    ages = [timedelta(seconds=50), timedelta(seconds=20), timedelta(minutes=5), timedelta(days=2)]
    for age in ages:
        await gateway.sql.execute(
            "INSERT INTO dispatcher.transmissions (id, message_id, instance_id, shard, attempt,"
            " created_at, published_at) VALUES ($1, $2, $3, 7, 1, $4, $4)",
            new_id(),
            new_id(),
            instance,
            now - age,
        )
    usage = (await ada.get(path)).data["usage"]
    assert usage["perMinute"] == {"used": 2, "limit": 2, "remaining": 0}
    assert usage["perHour"] == {"used": 3, "limit": 0, "remaining": None}
    assert usage["perDay"] == {"used": 3, "limit": 10, "remaining": 7}
    expected = now - timedelta(seconds=50) + timedelta(minutes=1)
    assert usage["nextSlotAt"][:19] == expected.isoformat()[:19]
    refused = await ada.call("PUT", path, json={"perMinute": -1})
    assert (refused.status, refused.code) == (422, "VALIDATION_FAILED")
