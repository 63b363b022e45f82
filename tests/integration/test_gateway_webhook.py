"""The one primary webhook of an instance."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

from shared.contracts import commands
from shared.ids import new_id
from shared.security.sealing import Place
from shared.security.signatures import SECRETS
from tests.support import gateway as gateway_support
from tests.support.builders import an_instance
from tests.support.customer import Answer
from tests.support.gateway import Gateway, Sender
from tests.support.keys import RING

NEW = {"url": "https://example.com/hook", "events": ["message.*", "instance.connected"]}


async def test_the_secret_is_seen_once(gateway: Gateway, sender: Sender) -> None:
    made = await sender.customer.post("/api/webhook", NEW)
    assert made.status == 201
    assert set(made.data) == {"id", "url", "events", "active", "secret"}
    assert made.data["secret"].startswith("whsec_")
    assert made.data["active"] is True
    shown = (await sender.customer.get("/api/webhook")).data
    assert "secret" not in shown
    assert shown["id"] == made.data["id"]
    assert shown["events"] == NEW["events"]
    row = await gateway.row("SELECT * FROM gateway.webhooks")
    assert row["is_primary"] is True
    assert row["instance_id"] == sender.instance
    assert row["secret"] is None
    place = Place(sender.tenant, SECRETS, made.data["id"])
    assert RING.open(row["secret_sealed"], place).decode() == made.data["secret"]


async def test_user_and_key_mean_the_same_webhook(gateway: Gateway) -> None:
    ada, account = await gateway.register()
    tenant = UUID(account["organization"]["id"])
    instance = await an_instance(gateway.sql, tenant)
    keyed, _ = await gateway.key(instance, tenant)
    path = f"/api/instances/{instance}/webhook"
    made = (await ada.post(path, NEW)).data
    assert (await keyed.get("/api/webhook")).data["id"] == made["id"]
    again = await keyed.post("/api/webhook", NEW)
    assert (again.status, again.code) == (409, "CONFLICT")
    changed = await keyed.call("PUT", "/api/webhook", json={"events": ["*"], "active": False})
    assert changed.data["events"] == ["*"]
    assert changed.data["active"] is False
    assert changed.data["url"] == NEW["url"]
    client = f"/api/clients/{instance}/webhook"
    assert (await ada.get(client)).data == changed.data
    assert (await ada.call("DELETE", path)).data == {"id": made["id"], "deleted": True}
    for method in ("GET", "PUT", "DELETE"):
        gone = await keyed.call(method, "/api/webhook", json={})
        assert (gone.status, gone.code) == (404, "CONFIG_NOT_FOUND")
    assert (await keyed.post("/api/webhook", NEW)).status == 201


async def test_a_user_has_to_name_the_instance(gateway: Gateway) -> None:
    ada, _ = await gateway.register()
    refused = await ada.get("/api/webhook")
    assert (refused.status, refused.code) == (404, "NOT_FOUND")
    assert "/api/instances/{id}" in refused.body["error"]["message"]


WRONG: list[tuple[dict[str, object], str]] = [
    ({"url": "ftp://example.com"}, "url"),
    ({"url": "http://example.com/hook"}, "url"),
    ({"url": "https://10.0.0.1/hook"}, "url"),
    ({"url": "https://169.254.169.254/latest/meta-data"}, "url"),
    ({"url": "https://user:pass@example.com/"}, "url"),
    ({"url": "https://example.com:22/"}, "url"),
    ({"url": 7}, "url"),
    ({"events": ["message.snet"]}, "events"),
    ({"events": []}, "events"),
    ({"events": "message.sent"}, "events"),
    ({"secret": "mine"}, "secret"),
]


async def test_a_webhook_that_is_wrong_is_neither_made_nor_changed(
    gateway: Gateway, sender: Sender
) -> None:
    for wrong, field in WRONG:
        refused = await sender.customer.post("/api/webhook", {**NEW, **wrong})
        assert (refused.status, refused.code) == (422, "VALIDATION_FAILED"), wrong
        assert list(refused.body["error"]["data"]["fields"]) == [field]
    assert await gateway.count("gateway.webhooks") == 0
    await sender.customer.post("/api/webhook", NEW)
    before = await gateway.row("SELECT * FROM gateway.webhooks")
    for wrong, _ in WRONG:
        changed = await sender.customer.call("PUT", "/api/webhook", json=wrong)
        assert changed.status == 422, wrong
    assert await gateway.row("SELECT * FROM gateway.webhooks") == before


async def test_one_that_was_disabled_for_failing_gets_a_new_chance(
    gateway: Gateway, sender: Sender
) -> None:
    made = (await sender.customer.post("/api/webhook", NEW)).data
    await gateway.sql.execute(
        "INSERT INTO webhooks.endpoint_health (endpoint_id, consecutive_failures,"
        " consecutive_unreachable, opened,"
        " disabled_at, disabled_reason) VALUES ($1, 9, 0, 1, $2, 'answered 410')",
        UUID(made["id"]),
        gateway.clock.now() + timedelta(seconds=1),
    )
    shown = (await sender.customer.get("/api/webhook")).data
    assert (shown["active"], shown["disabledReason"]) == (False, "answered 410")
    gateway.clock.move(timedelta(seconds=5))
    again = await sender.customer.call("PUT", "/api/webhook", json={"active": True})
    assert (again.data["active"], again.data["disabledReason"]) == (True, None)


async def answered(gateway: Gateway, sender: Sender, **attempt: Any) -> Answer:
    """The answer to a test, while the webhook service records this attempt."""
    testing = asyncio.create_task(sender.customer.post("/api/webhook/test"))
    command = await gateway.heard.next(commands.TestEndpoint, queue="webhooks.commands")
    made = (await sender.customer.get("/api/webhook")).data
    assert str(command.endpoint_id) == made["id"]
    delivery = new_id()
    await gateway.sql.execute(
        "INSERT INTO webhooks.deliveries (id, tenant_id, instance_id, endpoint_id, event_id,"
        " event_type, body, state, attempts, next_at, created_at)"
        " VALUES ($1, $2, $3, $4, $5, 'test', ''::bytea, 'delivered', 1, $6, $6)",
        delivery,
        sender.tenant,
        sender.instance,
        command.endpoint_id,
        command.event_id,
        gateway.clock.now(),
    )
    await gateway.sql.execute(
        "INSERT INTO webhooks.attempts (delivery_id, number, at, duration_ms, status_code, error)"
        " VALUES ($1, 1, $2, $3, $4, $5)",
        delivery,
        gateway.clock.now(),
        attempt.get("duration_ms", 12),
        attempt.get("status_code"),
        attempt.get("error"),
    )
    return await testing


async def test_a_test_tells_what_the_endpoint_answered(gateway: Gateway, sender: Sender) -> None:
    await sender.customer.post("/api/webhook", NEW)
    good = await answered(gateway, sender, status_code=204)
    assert good.data == {"success": True, "statusCode": 204, "responseTime": 12}
    bad = await answered(gateway, sender, status_code=500)
    assert bad.data["success"] is False
    assert "500" in bad.data["error"]
    none = await answered(gateway, sender, error="connection refused")
    assert none.data == {
        "success": False,
        "statusCode": None,
        "responseTime": 12,
        "error": "connection refused",
    }


async def test_a_test_that_nobody_answers_ends_in_time(database_url: str) -> None:
    async with gateway_support.running(database_url, webhook_test_seconds=0.1) as gateway:
        sender = await gateway.sender()
        missing = await sender.customer.post("/api/webhook/test")
        assert (missing.status, missing.code) == (404, "CONFIG_NOT_FOUND")
        assert await gateway.count("gateway.outbox") == 0
        await sender.customer.post("/api/webhook", NEW)
        answer = await sender.customer.post("/api/webhook/test")
        assert answer.data["success"] is False
        assert answer.data["error"]
