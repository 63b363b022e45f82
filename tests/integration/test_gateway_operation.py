"""Organization, statistics, the sandbox's remote control, and what operators look at."""

from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from services.gateway.api.version import VERSION
from shared.broker.topology import shard_queue
from shared.contracts.commands import ScanSandboxQr, WriteFromSandboxContact
from shared.contracts.content import Location, Text
from shared.ids import id_of, new_id
from tests.support.builders import a_message_row, an_instance
from tests.support.customer import Customer
from tests.support.gateway import Gateway


async def an_account(gateway: Gateway, **given: Any) -> tuple[Customer, UUID, UUID]:
    user, account = await gateway.register()
    tenant = UUID(account["organization"]["id"])
    return user, tenant, await an_instance(gateway.sql, tenant, **given)


async def count(gateway: Gateway, tenant: UUID, instance: UUID, day: date, **metrics: int) -> None:
    for metric, number in metrics.items():
        await gateway.sql.execute(
            "INSERT INTO stats.daily_counters (tenant_id, day, instance_id, metric, count)"
            " VALUES ($1, $2, $3, $4, $5)",
            tenant,
            day,
            instance,
            metric,
            number,
        )


async def test_an_organization_is_changed_in_what_is_named(gateway: Gateway) -> None:
    ada, _, _ = await an_account(gateway)
    before = (await ada.get("/api/organization")).data
    assert (before["timezone"], before["plan"]) == ("UTC", "basic")
    assert before["usage"]["instances"] == {"used": 1, "limit": 5, "remaining": 4}
    changed = await ada.call("PUT", "/api/organization", json={"timezone": "Europe/Berlin"})
    assert changed.data["timezone"] == "Europe/Berlin"
    assert changed.data["name"] == before["name"]
    for wrong in ({"timezone": "Mars/Olympus"}, {"name": ""}, {"plan": "max"}):
        refused = await ada.call("PUT", "/api/organization", json=wrong)
        assert (refused.status, refused.code) == (422, "VALIDATION_FAILED")
        assert list(refused.body["error"]["data"]["fields"]) == list(wrong)


async def test_usage_is_what_was_accepted_this_month_in_the_organizations_zone(
    gateway: Gateway,
) -> None:
    ada, tenant, _ = await an_account(gateway)
    zone = ZoneInfo("Pacific/Kiritimati")
    await ada.call("PUT", "/api/organization", json={"timezone": zone.key})
    today = gateway.clock.now().astimezone(zone).date()
    month = today.replace(day=1)
    for first, accepted in ((month, 7), ((month - timedelta(days=1)).replace(day=1), 100)):
        await gateway.sql.execute(
            "INSERT INTO gateway.message_usage VALUES ($1, $2, $3)", tenant, first, accepted
        )
    messages = (await ada.get("/api/organization")).data["usage"]["messages"]
    assert (messages["used"], messages["limit"], messages["remaining"]) == (7, 10_000, 9_993)
    resets = datetime.fromisoformat(messages["resetsAt"]).astimezone(zone)
    assert (resets.day, resets.hour) == (1, 0)


async def test_statistics_are_counted_by_the_organizations_calendar(gateway: Gateway) -> None:
    ada, tenant, instance = await an_account(gateway)
    other = await an_instance(gateway.sql, tenant)
    today = gateway.clock.now().date()
    await count(gateway, tenant, instance, today, sent=1, received=2, delivered=9)
    await count(gateway, tenant, other, today, sent=10)
    await count(gateway, tenant, instance, today - timedelta(days=400), sent=100, received=1)
    await count(gateway, new_id(), instance, today, sent=1000)
    stats = (await ada.get("/api/stats")).data
    assert stats["today"] == {"sent": 11, "received": 2}
    assert stats["total"] == {"sent": 111, "received": 3}
    assert "range" not in stats
    keyed, _ = await gateway.key(instance, tenant)
    assert (await keyed.get("/api/stats")).data["today"] == {"sent": 1, "received": 2}
    start = today - timedelta(days=2)
    ranged = (await ada.get(f"/api/stats?startDate={start}&endDate={today}")).data["range"]
    assert (ranged["sent"], ranged["received"]) == (11, 2)
    assert [(row["date"], row["sent"]) for row in ranged["days"]] == [
        (str(start), 0),
        (str(start + timedelta(days=1)), 0),
        (str(today), 11),
    ]


WRONG: list[tuple[str, str]] = [
    ("endDate=2026-01-01", "startDate"),
    ("startDate=2026-02-01&endDate=2026-01-01", "endDate"),
    ("startDate=2020-01-01&endDate=2026-01-01", "startDate"),
    ("startDate=tomorrow", "startDate"),
]


async def test_a_range_that_is_none_is_refused(gateway: Gateway) -> None:
    ada, _, _ = await an_account(gateway)
    for query, field in WRONG:
        refused = await ada.get(f"/api/stats?{query}")
        assert (refused.status, refused.code) == (422, "VALIDATION_FAILED")
        assert list(refused.body["error"]["data"]["fields"]) == [field]


async def test_a_contact_writes_and_the_ids_are_those_that_will_be_seen(gateway: Gateway) -> None:
    ada, _, instance = await an_account(gateway)
    path = f"/api/sandbox/instances/{instance}/inbound"
    written = await ada.post(
        path, {"from": "+1 202 555 0142", "pushName": "Ada", "message": "Hello"}
    )
    assert written.status == 202
    told = await gateway.heard.next(WriteFromSandboxContact, queue=shard_queue(7))
    assert told.instance_id == instance
    assert (told.action, told.push_name) == ("message", "Ada")
    assert told.from_ == "12025550142@s.whatsapp.net"
    assert told.content == Text(text="Hello")
    assert written.data == {
        "messageId": str(
            id_of("inbound", instance, told.from_, told.engine_message_id, told.from_)
        ),
        "engineMessageId": told.engine_message_id,
        "from": "+12025550142",
        "action": "message",
    }


async def test_a_contact_sends_anything_edits_revokes_and_reacts(gateway: Gateway) -> None:
    ada, tenant, instance = await an_account(gateway)
    path = f"/api/sandbox/instances/{instance}/inbound"
    target = await a_message_row(gateway.sql, tenant, instance, status="received")
    engine_id = await gateway.sql.fetchval("SELECT engine_message_id FROM dispatcher.messages")
    place = {"kind": "location", "latitude": 52.5, "longitude": 13.4}
    ada_says = {"from": "+12025550142"}

    async def told(body: dict[str, object]) -> Any:
        answer = await ada.post(path, {**ada_says, **body})
        assert answer.status == 202, answer.body
        return await gateway.heard.next(WriteFromSandboxContact)

    located = await told({"content": place, "replyTo": str(target)})
    assert located.content == Location(latitude=52.5, longitude=13.4)
    assert located.reply_to == engine_id
    edited = await told({"action": "edit", "messageId": str(target), "message": "Hi"})
    assert (edited.engine_message_id, edited.content) == (engine_id, Text(text="Hi"))
    reacted = await told({"action": "reaction", "messageId": engine_id, "emoji": "👍"})
    assert (reacted.engine_message_id, reacted.emoji) == (engine_id, "👍")
    revoked = await told({"action": "revoke", "messageId": str(target)})
    assert (revoked.action, revoked.engine_message_id) == ("revoke", engine_id)
    for wrong in (
        {},
        {"message": "x", "content": place},
        {"action": "edit", "message": "x"},
        {"action": "revoke"},
        {"action": "reaction", "messageId": "x"},
        {"action": "reaction", "messageId": str(new_id()), "emoji": "x"},
        {"message": "x", "from": "nobody"},
        {"content": {"kind": "location", "latitude": 91, "longitude": 0}},
        {"content": {"kind": "telepathy"}},
    ):
        refused = await ada.post(path, {**ada_says, **wrong})
        assert (refused.status, refused.code) == (422, "VALIDATION_FAILED"), wrong


async def test_a_contact_writes_to_a_group(gateway: Gateway) -> None:
    ada, _, instance = await an_account(gateway)
    path = f"/api/sandbox/instances/{instance}/inbound"
    group = "120363041234567890@g.us"
    said = {"from": "+12025550142", "message": "Ahoy", "group": group}
    written = await ada.post(path, said)
    told = await gateway.heard.next(WriteFromSandboxContact)
    assert (told.group, told.from_) == (group, "12025550142@s.whatsapp.net")
    assert written.data["messageId"] == str(
        id_of("inbound", instance, group, told.engine_message_id, told.from_)
    )
    refused = await ada.post(path, {**said, "group": "12025550199@s.whatsapp.net"})
    assert (refused.status, refused.code) == (422, "VALIDATION_FAILED")


async def test_a_contact_writes_once_for_one_key(gateway: Gateway) -> None:
    ada, _, instance = await an_account(gateway)
    path = f"/api/sandbox/instances/{instance}/inbound"
    body, headers = {"from": "+12025550142", "message": "x"}, {"Idempotency-Key": "k"}
    first = await ada.post(path, body, headers=headers)
    again = await ada.post(path, body, headers=headers)
    assert (again.status, again.data) == (202, first.data)
    await gateway.heard.next(WriteFromSandboxContact)
    assert not [m for m in gateway.heard.messages if m.type == WriteFromSandboxContact.TYPE]


async def test_nobody_writes_to_an_instance_that_has_no_number_yet(gateway: Gateway) -> None:
    ada, _, instance = await an_account(gateway, status="qr")
    refused = await ada.post(
        f"/api/sandbox/instances/{instance}/inbound", {"from": "+12025550142", "message": "x"}
    )
    assert (refused.status, refused.code) == (409, "INSTANCE_NOT_READY")
    scanned = await ada.post(f"/api/sandbox/instances/{instance}/scan")
    assert scanned.status == 202
    assert (await gateway.heard.next(ScanSandboxQr)).instance_id == instance


async def test_the_remote_control_is_for_the_sandbox_alone(gateway: Gateway) -> None:
    ada, _, instance = await an_account(gateway, engine="whatsmeow")
    for path, body in (("scan", {}), ("inbound", {"from": "+12025550142", "message": "x"})):
        refused = await ada.post(f"/api/sandbox/instances/{instance}/{path}", body)
        assert (refused.status, refused.code) == (409, "CONFLICT")


async def test_the_version_says_what_is_running(gateway: Gateway) -> None:
    version = (await gateway.stranger().get("/api/version")).data
    assert version["version"] == VERSION
    assert set(version) == {"version", "commit", "apiRevision"}


async def test_operators_find_health_metrics_and_documentation(gateway: Gateway) -> None:
    stranger = gateway.stranger()
    for path in ("/health", "/health/live", "/health/ready"):
        answer = await stranger.get(path)
        assert answer.status == 200
        assert answer.body["status"] == "up"
    sender = await gateway.sender()
    await sender.text()
    metrics = (await stranger.get("/metrics")).body.decode()
    assert "waypost_gateway_messages_accepted_total 1.0" in metrics
    assert 'route="/api/messages/text",status="2xx"' in metrics
    assert str(sender.tenant) not in metrics
    page = await stranger.get("/docs")
    assert b"swagger-ui" in page.body
    assert "script-src 'self'" in page.headers["Content-Security-Policy"]


async def test_every_answer_carries_a_request_id(gateway: Gateway) -> None:
    stranger = gateway.stranger()
    given = await stranger.get("/api/version", headers={"X-Request-Id": "mine-1"})
    assert given.headers["X-Request-Id"] == "mine-1"
    insane = await stranger.get("/api/nowhere", headers={"X-Request-Id": "a b"})
    assert insane.headers["X-Request-Id"] not in {"a b", ""}
    assert insane.body["error"]["requestId"] == insane.headers["X-Request-Id"]
