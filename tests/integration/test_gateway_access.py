"""Every route against everybody who should not get through: made from the route table itself."""

import re
from datetime import timedelta
from typing import Any
from uuid import UUID

import openapi_spec_validator
import pytest

from services.gateway.domain.access import ACCESS, Needs
from shared.ids import new_id
from tests.support.builders import a_message_row, an_instance
from tests.support.gateway import Gateway, Sender

# What a body must be so that the answer is about access and not about the body.
BODIES: dict[str, object] = {
    "POST /api/instances": {"name": "x", "engine": "sandbox"},
    "POST /api/instances/{id}/keys": {"name": "x"},
    "POST /api/messages/text": {"to": "+12025550199", "message": "x"},
    "POST /api/webhook": {"url": "http://127.0.0.1:9999/hook"},
    "POST /api/instances/{id}/webhook": {"url": "http://127.0.0.1:9999/hook"},
    "POST /api/sandbox/instances/{id}/inbound": {"from": "+12025550199", "message": "x"},
    "PUT /api/messages/{id}": {"message": "x"},
    "POST /api/instances/{id}/send-message": {"to": "+12025550199", "message": "x"},
    "POST /api/instances/{id}/pairing-code": {"phoneNumber": "+12025550199"},
    "POST /api/instances/{id}/groups": {"name": "x", "members": ["+12025550199"]},
    "POST /api/instances/{id}/groups/{group}/members": {
        "change": "add",
        "members": ["+12025550199"],
    },
    "POST /api/auth/change-password": {
        "currentPassword": "an example passphrase",
        "newPassword": "quite another one",
    },
}


async def document(gateway: Gateway) -> Any:
    return (await gateway.stranger().get("/openapi.json")).body


async def operations(gateway: Gateway) -> list[tuple[str, str, Any]]:
    paths = (await document(gateway))["paths"]
    return [
        (method.upper(), path, operation)
        for path, methods in paths.items()
        for method, operation in methods.items()
    ]


def body_for(method: str, path: str) -> object:
    named = f"{method} {path.replace('/api/clients', '/api/instances')}"
    return BODIES.get(named, {}) if method in {"POST", "PUT"} else None


async def test_the_description_is_valid_openapi_and_every_route_has_what_it_needs(
    gateway: Gateway,
) -> None:
    described = await document(gateway)
    openapi_spec_validator.validate(described)
    assert described["openapi"].startswith("3.1")
    for method, path, operation in await operations(gateway):
        assert operation["summary"], (method, path)
        assert operation["responses"]["500"], (method, path)
        public = operation["security"] == []
        assert public == (
            path
            in {
                "/api/auth/register",
                "/api/auth/login",
                "/api/auth/refresh",
                "/api/version",
            }
        )


async def test_a_stranger_gets_through_nowhere(gateway: Gateway) -> None:
    before = await gateway.rows()
    for method, path, operation in await operations(gateway):
        if not operation["security"]:
            continue
        filled = re.sub(r"\{\w+\}", str(new_id()), path)
        refused = await gateway.stranger().call(method, filled, json=body_for(method, path))
        assert (refused.status, refused.code) == (401, "UNAUTHORIZED"), (method, path)
    assert await gateway.rows() == before


async def test_of_another_tenant_nothing_is_seen_changed_or_found(
    gateway: Gateway, sender: Sender
) -> None:
    foreign_key = await gateway.sql.fetchval("SELECT id FROM gateway.instance_keys")
    message = await a_message_row(gateway.sql, sender.tenant, sender.instance)
    await sender.customer.post("/api/webhook", {"url": "http://127.0.0.1:9999/hook"})
    mallory, account = await gateway.register("mallory@example.com")
    own = await an_instance(gateway.sql, UUID(account["organization"]["id"]))
    before = await gateway.rows()
    changed = await gateway.row("SELECT * FROM gateway.instances WHERE id = $1", sender.instance)
    tried = 0
    for method, path, operation in await operations(gateway):
        if "{id}" not in path or not operation["security"]:
            continue
        named = message if path.startswith("/api/messages") else sender.instance
        filled = path.replace("{id}", str(named)).replace("{keyId}", str(foreign_key))
        filled = filled.replace("{group}", "120363000000000001@g.us")
        refused = await mallory.call(method, filled, json=body_for(method, path))
        assert (refused.status, refused.code) == (404, "NOT_FOUND"), (method, path, refused.body)
        tried += 1
    assert tried > 40
    for path in (f"/keys/{foreign_key}",):
        assert (await mallory.get(f"/api/instances/{own}{path}")).status == 404
    for path in ("messages", "events", "instances"):
        listed = (await mallory.get(f"/api/{path}?limit=100")).data
        assert [one["id"] for one in listed] == ([str(own)] if path == "instances" else [])
        if path != "instances":
            of_instance = await mallory.get(f"/api/{path}?instanceId={sender.instance}")
            assert of_instance.data == []
    assert await gateway.rows() == before
    assert changed == await gateway.row(
        "SELECT * FROM gateway.instances WHERE id = $1", sender.instance
    )


async def test_an_instance_key_gets_through_only_where_the_table_says_so(
    gateway: Gateway, sender: Sender
) -> None:
    for method, path, operation in await operations(gateway):
        if not operation["security"]:
            continue
        needs = re.search(r"Needs the permission `([^`]+)`", operation["description"])
        access = ACCESS[Needs(needs[1]) if needs else Needs.BEING_A_USER]
        filled = re.sub(r"\{\w+\}", str(sender.instance), path)
        if access.key is not None:
            continue
        refused = await sender.customer.call(method, filled, json=body_for(method, path))
        assert (refused.status, refused.code) == (403, "FORBIDDEN"), (method, path)


@pytest.mark.parametrize("role", ["agent", "viewer"])
async def test_who_sees_what_is_assigned_sees_nothing_before_anything_is(
    gateway: Gateway, role: str
) -> None:
    user, account = await gateway.register()
    tenant = UUID(account["organization"]["id"])
    instance = await an_instance(gateway.sql, tenant)
    message = await a_message_row(gateway.sql, tenant, instance)
    await gateway.sql.execute("UPDATE gateway.users SET role = $1", role)
    logged_in = await gateway.stranger().post(
        "/api/auth/login", {"email": "ada@example.com", "password": "an example passphrase"}
    )
    user = gateway.with_token(logged_in.data["token"])
    assert (await user.get("/api/instances")).data == []
    assert (await user.get("/api/messages")).data == []
    assert (await user.get(f"/api/instances/{instance}")).status == 404
    assert (await user.get(f"/api/messages/{message}")).status == 404
    assert (await user.post("/api/instances", {"name": "x", "engine": "sandbox"})).status == 403
    assert (await user.call("PUT", "/api/organization", json={"name": "Mine"})).status == 403
    sent = await user.post(
        "/api/messages/text",
        {"to": "+12025550199", "message": "x", "instanceId": str(instance)},
    )
    assert sent.status == (404 if role == "agent" else 403)


async def test_a_role_that_changes_where_nobody_heard_of_it_counts_within_five_seconds(
    gateway: Gateway,
) -> None:
    ada, _ = await gateway.register()
    assert (await ada.get("/api/instances/x/keys")).status == 404
    await gateway.sql.execute("UPDATE gateway.users SET role = 'viewer'")
    gateway.clock.move(timedelta(seconds=5))
    assert (await ada.get("/api/instances/x/keys")).status == 403


async def test_ids_that_are_none_lead_nowhere(gateway: Gateway) -> None:
    ada, _ = await gateway.register()
    for path in ("/api/instances/nonsense", "/api/messages/1", "/api/instances/%00", "/api/x"):
        refused = await ada.get(path)
        assert (refused.status, refused.code) == (404, "NOT_FOUND")
    refused = await ada.call("PATCH", "/api/organization")
    assert (refused.status, refused.code) == (405, "METHOD_NOT_ALLOWED")
