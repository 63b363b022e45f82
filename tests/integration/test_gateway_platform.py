"""The platform: its operators, suspended organizations, and what everybody is told."""

import asyncio
from typing import Any
from uuid import UUID

import orjson
import pytest
from prometheus_client import CollectorRegistry

from services.dispatcher.store import claims
from services.gateway.domain.permissions import Role
from services.gateway.domain.team import PLATFORM
from services.gateway.loops.broadcasts import TellEveryone
from services.gateway.metrics import GatewayMetrics
from services.gateway.store import accounts
from services.gateway.store.accounts import User
from shared.contracts.envelope import Carried, carried_batch
from shared.ids import new_id
from shared.messaging.outbox import Relay
from shared.security.passwords import Passwords
from tests.support.builders import NOON, an_instance, an_organization
from tests.support.customer import Customer
from tests.support.gateway import PASSWORD, Gateway, Sender


async def first_operator(gateway: Gateway, email: str = "op@example.com") -> Customer:
    """The way that the command for it goes."""
    hashed = await Passwords(memory_kib=1024).hash(PASSWORD)
    now = gateway.clock.now()
    async with gateway.database.tx() as tx:
        assert await accounts.add_operator(
            tx,
            User(
                id=new_id(),
                tenant_id=PLATFORM,
                email=email,
                name="Op",
                role=Role.OPERATOR,
                active=True,
                created_at=now,
                password_hash=hashed,
                joined_at=now,
            ),
        )
    login = await gateway.stranger().post("/api/auth/login", {"email": email, "password": PASSWORD})
    return gateway.with_token(login.data["token"])


@pytest.fixture
async def operator(gateway: Gateway) -> Customer:
    return await first_operator(gateway)


async def change(operator: Customer, tenant: UUID, body: object) -> Any:
    return await operator.call("PUT", f"/api/admin/organizations/{tenant}", json=body)


async def test_operators_belong_to_the_platform_which_is_no_organization(
    gateway: Gateway, operator: Customer
) -> None:
    await first_operator(gateway, "second@example.com")
    assert (await operator.get("/api/admin/organizations")).data == []
    assert (await change(operator, PLATFORM, {"suspended": True})).status == 404
    me = (await operator.get("/api/auth/me")).data
    assert (me["user"]["role"], me["organization"]["id"]) == ("operator", str(PLATFORM))
    assert len((await operator.get("/api/team/members")).data) == 2
    totals = (await operator.get("/api/admin/analytics")).data
    assert (totals["organizations"]["total"], totals["users"]) == (0, 0)


async def test_the_last_operator_stays(operator: Customer) -> None:
    leave = {"currentPassword": PASSWORD}
    assert (await operator.post("/api/auth/deactivate", leave)).status == 409


async def test_operators_see_all_organizations_and_instances_but_not_what_is_said(
    gateway: Gateway, operator: Customer
) -> None:
    tenants = [await an_organization(gateway.sql, plan=plan) for plan in ("basic", "pro")]
    made = [await an_instance(gateway.sql, tenant) for tenant in tenants]
    listed = (await operator.get("/api/admin/organizations")).data
    assert [one["id"] for one in listed] == [str(tenant) for tenant in reversed(tenants)]
    assert [one["instances"] for one in listed] == [1, 1]
    pro = (await operator.get("/api/admin/organizations?plan=pro")).data
    assert [one["id"] for one in pro] == [str(tenants[1])]
    instances = (await operator.get("/api/admin/instances")).data
    assert [one["id"] for one in instances] == [str(one) for one in reversed(made)]
    of_one = await operator.get(f"/api/admin/instances?organizationId={tenants[0]}&status=ready")
    assert [one["id"] for one in of_one.data] == [str(made[0])]
    assert (await operator.get("/api/admin/instances?status=qr")).data == []
    totals = (await operator.get("/api/admin/analytics")).data
    assert totals["instances"] == {"total": 2, "byStatus": {"ready": 2}}
    assert len(totals["messages"]["days"]) == 30
    assert (await operator.get(f"/api/instances/{made[0]}")).status == 404


async def test_a_suspended_organization_gets_in_nowhere_until_it_is_not(
    gateway: Gateway, operator: Customer, sender: Sender
) -> None:
    admin, account = await gateway.register()
    tenant = UUID(account["organization"]["id"])
    await gateway.sql.execute(
        "UPDATE gateway.instances SET tenant_id = $1 WHERE id = $2", tenant, sender.instance
    )
    await gateway.sql.execute("UPDATE gateway.instance_keys SET tenant_id = $1", tenant)
    key = gateway.with_token((await admin.post("/api/team/keys", {"name": "x"})).data["key"])
    await sender.warm()
    before = await gateway.count("dispatcher.messages")
    changed = await change(operator, tenant, {"suspended": True, "suspendedReason": "Unpaid."})
    assert (changed.data["suspended"], changed.data["suspendedReason"]) == (True, "Unpaid.")
    for answer in (
        await admin.get("/api/auth/me"),
        await key.get("/api/auth/me"),
        await sender.customer.get("/api/instance/info"),
        await sender.text(),
        await gateway.stranger().post(
            "/api/auth/login", {"email": "ada@example.com", "password": PASSWORD}
        ),
        await gateway.stranger().post(
            "/api/auth/refresh", {"refreshToken": account["refreshToken"]}
        ),
    ):
        assert (answer.status, answer.code) == (403, "FORBIDDEN"), answer.body
        assert "suspended" in answer.body["error"]["message"]
        assert "Unpaid" not in answer.body["error"]["message"]
    assert await gateway.count("dispatcher.messages") == before
    assert (await change(operator, tenant, {"suspended": False})).data["suspendedReason"] is None
    assert (await admin.get("/api/auth/me")).status == 200
    assert (await sender.text()).status == 202
    logged = (await admin.get("/api/audit-logs?action=platform.*")).data
    assert len(logged) == 2
    assert "Unpaid" not in str(logged)
    # The token was not spent in vain.
    refreshed = await gateway.stranger().post(
        "/api/auth/refresh", {"refreshToken": account["refreshToken"]}
    )
    assert refreshed.status == 200


async def test_what_a_suspended_organization_has_to_send_waits(
    gateway: Gateway, operator: Customer, sender: Sender
) -> None:
    async def status() -> str:
        async with gateway.database.hot() as connection:
            await connection.execute("SET ROLE waypost_dispatcher")
            try:
                await claims.ensure_pacing(connection, [sender.instance])
                [candidate] = await claims.lock_candidates(connection, [sender.instance])
            finally:
                await connection.execute("SET ROLE waypost_gateway")
        return candidate.status

    assert await status() == "ready"
    await change(operator, sender.tenant, {"suspended": True})
    assert await status() == "held"
    await change(operator, sender.tenant, {"plan": "pro"})
    assert await status() == "held"
    await change(operator, sender.tenant, {"suspended": False})
    assert await status() == "ready"


async def test_a_plan_is_one_of_those_there_are(
    gateway: Gateway, operator: Customer, sender: Sender
) -> None:
    assert (await change(operator, sender.tenant, {"plan": "gold"})).status == 422
    assert (await change(operator, sender.tenant, {"suspendedReason": "x"})).status == 422
    assert (await change(operator, sender.tenant, {"plan": "max"})).data["plan"] == "max"


def told(gateway: Gateway) -> list[Carried]:
    """What the webhook service has heard of the platform's announcements."""
    return [
        event
        for message in gateway.heard.messages
        if message.type == "system.status" and message.queue == "webhooks.events"
        for event in carried_batch(message.body)
    ]


async def test_every_organization_is_told_once_in_portions_whoever_dies(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenants = {await an_organization(gateway.sql) for _ in range(5)}
    await gateway.sql.execute(
        "INSERT INTO gateway.broadcasts (id, body, created_at) VALUES ($1, $2::jsonb, $3)",
        new_id(),
        orjson.dumps({"status": "outage", "message": "We are looking into it."}).decode(),
        NOON,
    )
    metrics = GatewayMetrics(CollectorRegistry())
    relay = Relay(
        database=gateway.database,
        broker=gateway.broker,
        schema="gateway",
        clock=gateway.clock,
        metrics=metrics,
    )
    loop = TellEveryone(
        database=gateway.database, relay=relay, clock=gateway.clock, metrics=metrics
    )
    monkeypatch.setattr(TellEveryone, "PORTION", 2)
    # The gateway's own loop may be at it as well, and then this one leaves it alone.
    unfinished = "gateway.broadcasts WHERE finished_at IS NULL"
    while await gateway.count(unfinished):
        await loop.step()
    # As if a portion had been told by somebody who died before that was known.
    await gateway.sql.execute(
        "UPDATE gateway.broadcasts SET finished_at = NULL,"
        " told_to = (SELECT id FROM gateway.organizations ORDER BY id OFFSET 1 LIMIT 1)"
    )
    while await gateway.count(unfinished):
        await loop.step()
    while await relay.step():
        pass
    async with asyncio.timeout(5):
        while {event.tenant_id for event in told(gateway)} != tenants:
            gateway.heard.news.clear()
            await gateway.heard.news.wait()
    heard = told(gateway)
    assert {event.tenant_id for event in heard} == tenants
    assert len({event.id for event in heard}) == len(tenants)
    row = await gateway.row("SELECT * FROM gateway.broadcasts")
    assert row["finished_at"] is not None
    assert row["told"] == len(tenants) + 3
    assert not await loop.step()


async def test_a_broadcast_is_announced_once_for_one_key(
    gateway: Gateway, operator: Customer
) -> None:
    tenant = await an_organization(gateway.sql)
    body = {"status": "maintenance", "message": "On Sunday.", "startsAt": "2026-02-01T02:00:00Z"}
    answers = [
        await operator.post("/api/admin/broadcast", body, headers={"Idempotency-Key": "sunday"})
        for _ in range(2)
    ]
    assert [answer.status for answer in answers] == [202, 202]
    assert answers[0].data == answers[1].data
    assert await gateway.count("gateway.broadcasts") == 1
    async with asyncio.timeout(5):
        while not (heard := told(gateway)):
            gateway.heard.news.clear()
            await gateway.heard.news.wait()
    [event] = heard
    assert (event.tenant_id, event.data["message"]) == (tenant, "On Sunday.")
    assert (await operator.post("/api/admin/broadcast", {"message": ""})).status == 422


async def test_an_end_is_after_its_beginning(operator: Customer) -> None:
    at = "2026-02-01T02:00:00Z"
    body = {"message": "x", "startsAt": at, "endsAt": at}
    assert (await operator.post("/api/admin/broadcast", body)).status == 422
