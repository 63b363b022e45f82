"""The description of the API, and what of access the matrix of roles does not say."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import openapi_spec_validator
import pytest

from tests.support.builders import a_message_row, an_instance
from tests.support.gateway import Gateway


async def document(gateway: Gateway) -> Any:
    return (await gateway.stranger().get("/openapi.json")).body


async def operations(gateway: Gateway) -> list[tuple[str, str, Any]]:
    paths = (await document(gateway))["paths"]
    return [
        (method.upper(), path, operation)
        for path, methods in paths.items()
        for method, operation in methods.items()
    ]


async def test_the_description_is_valid_openapi_and_every_route_has_what_it_needs(
    gateway: Gateway,
) -> None:
    described = await document(gateway)
    openapi_spec_validator.validate(described)
    assert described["openapi"].startswith("3.1")
    for method, path, operation in await operations(gateway):
        assert operation["summary"], (method, path)
        if not path.startswith("/api/"):
            continue  # health and metrics, for everybody
        assert operation["responses"]["500"], (method, path)
        public = operation["security"] == []
        assert public == (
            path
            in {
                "/api/auth/register",
                "/api/auth/login",
                "/api/auth/refresh",
                "/api/auth/accept-invitation",
                "/api/version",
                "/api/webhooks/health",
                "/api/webhooks/whatsapp/health",
                "/api/webhooks/whatsapp",
            }
        )


async def test_the_contract_of_the_broker_is_there_for_everybody(gateway: Gateway) -> None:
    described = await gateway.stranger().get("/asyncapi.json")
    assert (described.status, described.body["asyncapi"]) == (200, "3.0.0")
    assert described.body["info"]["version"] == (await document(gateway))["info"]["version"]
    assert described.headers["Content-Type"].startswith("application/json")


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
