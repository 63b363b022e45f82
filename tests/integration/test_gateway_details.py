"""Whether an instance answers, what is set for it, and whom its contacts stand for."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from pydantic import SecretStr

from services.gateway.domain.engines import EngineSettings, secret_names
from shared.broker.port import Outgoing
from shared.broker.topology import REPLIES
from shared.contracts.commands import AskInstance, InstanceAnswered, Refusal
from shared.contracts.content import Identity
from shared.contracts.questions import Profile
from shared.errors import Transient
from shared.ids import new_id
from tests.support.builders import an_instance
from tests.support.customer import Answer, Customer
from tests.support.gateway import Gateway


async def an_account(
    gateway: Gateway, email: str = "ada@example.com", **given: Any
) -> tuple[Customer, dict[str, Any], UUID]:
    """An administrator, what they were told, and an instance of theirs."""
    customer, account = await gateway.register(email)
    tenant = UUID(account["organization"]["id"])
    return customer, account, await an_instance(gateway.sql, tenant, **given)


async def answered(gateway: Gateway, asking: "asyncio.Task[Answer]", **answer: Any) -> Answer:
    """Answer the question that a request waits for."""
    asked = await gateway.heard.next(AskInstance)
    told = InstanceAnswered(ask_id=asked.ask_id, **answer)
    await gateway.broker.publish(
        [Outgoing(REPLIES, asked.reply_to, told.model_dump_json().encode(), "1", told.TYPE)]
    )
    return await asking


async def test_a_connection_that_answers_says_as_whom(gateway: Gateway) -> None:
    ada, _, instance = await an_account(gateway)
    path = f"/api/instances/{instance}/test-connection"
    profile = Profile(identity=Identity(phone="+12025550100", chat_id="1", push_name="Example Ltd"))
    async with asyncio.TaskGroup() as group:
        asking = group.create_task(ada.post(path))
        found = await answered(gateway, asking, answer=profile)
    assert (found.status, found.data) == (
        200,
        {"success": True, "businessName": "Example Ltd", "error": None},
    )


async def test_a_connection_that_does_not_answer_says_why(gateway: Gateway) -> None:
    ada, account, instance = await an_account(gateway)
    path = f"/api/clients/{instance}/test-connection"
    refusal = Refusal(code=Transient.code, message="WhatsApp is away.")
    async with asyncio.TaskGroup() as group:
        asking = group.create_task(ada.post(path))
        found = await answered(gateway, asking, refusal=refusal)
    assert found.data == {"success": False, "businessName": None, "error": "WhatsApp is away."}
    tenant = UUID(account["organization"]["id"])
    off = await an_instance(gateway.sql, tenant, status="logged_out")
    told = (await ada.post(f"/api/instances/{off}/test-connection")).data
    assert told["success"] is False
    assert told["error"]


async def test_the_configuration_has_everything_that_is_set(gateway: Gateway) -> None:
    ada, _, instance = await an_account(
        gateway,
        settings={"autoScan": False},
        guard={"perMinute": 1, "proxy": "socks5://user:hidden@proxy.example.com:1080"},
    )
    for kind in ("instances", "clients"):
        config = (await ada.get(f"/api/{kind}/{instance}/config")).data
        assert config["settings"] == {"autoScan": False}
        assert config["templates"] == []
        assert config["guard"]["perMinute"] == 1
        assert config["guard"]["proxy"] == "socks5://***@proxy.example.com:1080"
        assert "hidden" not in repr(config)


def test_secrets_of_engines_are_known_by_their_type() -> None:
    class Secretive(EngineSettings):
        access_token: SecretStr
        app_secret: SecretStr | None = None

    assert secret_names(Secretive) == {"accessToken", "appSecret"}


async def test_a_number_is_tied_to_a_user_and_everybody_is_told(gateway: Gateway) -> None:
    ada, account, instance = await an_account(gateway)
    path = f"/api/instances/{instance}/phone-mappings"
    body = {"phoneNumber": "+1 202 555 0142", "userId": account["user"]["id"]}
    made = await ada.post(path, body, headers={"Idempotency-Key": "k"})
    again = await ada.post(path, body, headers={"Idempotency-Key": "k"})
    assert (made.status, again.data) == (201, made.data)
    assert made.data["phoneNumber"] == "+12025550142"
    assert made.data["userId"] == account["user"]["id"]
    assert (await ada.get(path)).data == [made.data]
    [event] = (await ada.get("/api/events?types=user.mapped&wait=5")).data
    assert event["data"] == {
        "mappingId": made.data["id"],
        "phoneNumber": "+12025550142",
        "userId": account["user"]["id"],
    }
    taken = await ada.post(path, body)
    assert (taken.status, taken.code) == (409, "CONFLICT")
    gone = await ada.call("DELETE", f"{path}/{made.data['id']}")
    assert gone.data == {"id": made.data["id"], "deleted": True}
    assert (await ada.call("DELETE", f"{path}/{made.data['id']}")).status == 404
    assert (await ada.post(path, body)).status == 201
    actions = [
        row["action"] for row in await gateway.sql.fetch("SELECT action FROM gateway.audit_logs")
    ]
    assert actions.count("phone_mapping.created") == 2
    assert actions.count("phone_mapping.deleted") == 1


async def test_a_number_is_tied_to_nobody_elses_user(gateway: Gateway) -> None:
    ada, account, instance = await an_account(gateway)
    _, other, _ = await an_account(gateway, "bob@example.com")
    path = f"/api/instances/{instance}/phone-mappings"
    for wrong, field in (
        ({"phoneNumber": "+12025550142", "userId": other["user"]["id"]}, "userId"),
        ({"phoneNumber": "+12025550142", "userId": str(new_id())}, "userId"),
        ({"phoneNumber": "nobody", "userId": account["user"]["id"]}, "phoneNumber"),
        ({"phoneNumber": "+12025550142"}, "userId"),
    ):
        refused = await ada.post(path, wrong)
        assert (refused.status, refused.code) == (422, "VALIDATION_FAILED")
        assert list(refused.body["error"]["data"]["fields"]) == [field]
    assert await gateway.count("gateway.phone_mappings") == 0


ROUTES = [
    ("POST", "test-connection"),
    ("GET", "config"),
    ("GET", "phone-mappings"),
    ("DELETE", "phone-mappings/01890a5d-ac96-774b-bcce-b302099a8057"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_what_is_anothers_is_unknown_and_a_viewer_may_not(
    gateway: Gateway, method: str, path: str
) -> None:
    _, account, instance = await an_account(gateway)
    bob, _, _ = await an_account(gateway, "bob@example.com")
    whole = f"/api/instances/{instance}/{path}"
    unknown = await bob.call(method, whole)
    assert (unknown.status, unknown.code) == (404, "NOT_FOUND")
    keyed, _ = await gateway.key(instance, UUID(account["organization"]["id"]))
    assert (await keyed.call(method, whole)).code == "FORBIDDEN"
    assert (await gateway.stranger().call(method, whole)).status == 401


async def counted(gateway: Gateway, instance: UUID, hour: datetime, **metrics: int) -> None:
    """What the statistics service has counted in an hour."""
    for metric, number in metrics.items():
        await gateway.sql.execute(
            "INSERT INTO stats.hourly_counters (tenant_id, instance_id, hour, metric, count)"
            " SELECT tenant_id, id, $2, $3, $4 FROM gateway.instances WHERE id = $1",
            instance,
            hour,
            metric,
            number,
        )


async def test_analytics_are_of_the_organizations_days(gateway: Gateway) -> None:
    ada, account, instance = await an_account(gateway)
    await ada.call("PUT", "/api/organization", json={"timezone": "Asia/Kolkata"})
    midnight = datetime(2026, 1, 14, 18, 30, tzinfo=UTC)
    await counted(gateway, instance, midnight - timedelta(hours=1), sent=100)
    await counted(
        gateway,
        instance,
        midnight,
        sent=8,
        delivered=6,
        read=2,
        delivery_ms=9000,
        delivery_timed=6,
    )
    await counted(gateway, instance, midnight + timedelta(hours=47), failed=1, received=4)
    await counted(gateway, instance, midnight + timedelta(hours=48), sent=100)
    query = "startDate=2026-01-15&endDate=2026-01-16"
    for kind in ("instances", "clients"):
        found = (await ada.get(f"/api/{kind}/{instance}/analytics?{query}")).data
        assert found["totals"] == {
            "sent": 8,
            "delivered": 6,
            "read": 2,
            "failed": 1,
            "received": 4,
        }
        assert found["averages"] == {
            "sentPerDay": 4.0,
            "receivedPerDay": 2.0,
            "deliveryRate": 75.0,
            "readRate": 25.0,
            "deliveryTime": 1.5,
            "responseTime": None,
        }
        assert [(row["hour"], row["sent"]) for row in found["hourlyData"]] == [
            ("2026-01-14T18:30:00.000Z", 8),
            ("2026-01-16T17:30:00.000Z", 0),
        ]
    keyed, _ = await gateway.key(instance, UUID(account["organization"]["id"]))
    assert (await keyed.get(f"/api/instances/{instance}/analytics?{query}")).status == 200
    today = (await ada.get(f"/api/instances/{instance}/analytics")).data
    assert (today["startDate"], today["hourlyData"]) == (today["endDate"], [])


async def test_analytics_of_no_days_or_of_anothers_instance_are_refused(gateway: Gateway) -> None:
    ada, _, instance = await an_account(gateway)
    bob, _, _ = await an_account(gateway, "bob@example.com")
    path = f"/api/instances/{instance}/analytics"
    assert (await bob.get(path)).code == "NOT_FOUND"
    for query, field in (
        ("startDate=2026-02-01&endDate=2026-01-01", "endDate"),
        ("startDate=2026-01-01&endDate=2026-02-01", "startDate"),
        ("startDate=tomorrow", "startDate"),
    ):
        refused = await ada.get(f"{path}?{query}")
        assert (refused.status, refused.code) == (422, "VALIDATION_FAILED")
        assert list(refused.body["error"]["data"]["fields"]) == [field]
