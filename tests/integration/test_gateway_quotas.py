"""What a plan allows in a month: counted when it is accepted, warned of once, refused beyond."""

import asyncio
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from prometheus_client import CollectorRegistry

from services.gateway.domain.plans import PLANS, month_at
from services.gateway.loops.quotas import WarnOfQuotas
from services.gateway.metrics import GatewayMetrics
from shared.messaging.outbox import Relay
from tests.support.builders import an_instance, an_organization
from tests.support.customer import Answer, Customer
from tests.support.eventually import eventually
from tests.support.gateway import Gateway, Sender, running

LIMIT = PLANS["basic"].messages
# A request that has nothing unusual takes another way than one that has.
WAYS: list[dict[str, Any]] = [{}, {"priority": "high"}]


async def metered(gateway: Gateway, *, used: int, **given: Any) -> Sender:
    """A sender whose messages count, of a tenant that has used so much of this month."""
    tenant = await an_organization(gateway.sql, **given)
    instance = await an_instance(
        gateway.sql, tenant, engine="whatsmeow", phone_number="+12025550000"
    )
    customer, _ = await gateway.key(instance, tenant)
    sender = Sender(customer, instance, tenant)
    await use(gateway, sender, used, zone=given.get("timezone", "UTC"))
    return sender


async def say(sender: Sender, **more: Any) -> Answer:
    """Send a text, with what may be unusual about it."""
    return await sender.post({"to": "+12025550199", "message": "Hello", **more})


async def use(gateway: Gateway, sender: Sender, used: int, *, zone: str = "UTC") -> None:
    """Have so much of this month used."""
    await gateway.sql.execute(
        "INSERT INTO gateway.message_usage (tenant_id, month, accepted) VALUES ($1, $2, $3)"
        " ON CONFLICT (tenant_id, month) DO UPDATE SET accepted = excluded.accepted",
        sender.tenant,
        month_at(gateway.clock.now(), ZoneInfo(zone)).first,
        used,
    )


async def accepted(gateway: Gateway, sender: Sender) -> int:
    """How much of all months is counted."""
    found = await gateway.sql.fetchval(
        "SELECT coalesce(sum(accepted), 0)::bigint FROM gateway.message_usage WHERE tenant_id = $1",
        sender.tenant,
    )
    return int(found)


async def test_the_last_message_of_a_month_is_accepted_and_the_next_says_when_there_are_more(
    gateway: Gateway,
) -> None:
    for way in WAYS:
        sender = await metered(gateway, used=LIMIT - 2)
        assert (await say(sender, **way)).status == 202
        assert (await say(sender, **way)).status == 202
        refused = await say(sender, **way)
        assert (refused.status, refused.code) == (429, "QUOTA_EXCEEDED")
        data = refused.body["error"]["data"]
        resets = month_at(gateway.clock.now(), ZoneInfo("UTC")).ends
        assert (data["used"], data["limit"]) == (LIMIT, LIMIT)
        assert datetime.fromisoformat(data["resetsAt"]) == resets
        assert "basic" in refused.body["error"]["message"]
        assert await accepted(gateway, sender) == LIMIT
        stored = "SELECT count(*) AS n FROM dispatcher.messages WHERE tenant_id = $1"
        assert (await gateway.row(stored, sender.tenant))["n"] == 2


async def test_a_crowd_gets_exactly_what_is_left(gateway: Gateway) -> None:
    sender = await metered(gateway, used=LIMIT - 30)
    crowd = [say(sender, **WAYS[n % 2]) for n in range(100)]
    statuses = [answer.status for answer in await asyncio.gather(*crowd)]
    assert (statuses.count(202), statuses.count(429)) == (30, 70)
    assert await accepted(gateway, sender) == LIMIT


async def test_what_a_key_repeats_is_counted_once_and_answered_even_when_nothing_is_left(
    gateway: Gateway,
) -> None:
    sender = await metered(gateway, used=LIMIT - 1)
    first = await sender.text(headers={"Idempotency-Key": "once"})
    again = await sender.text(headers={"Idempotency-Key": "once"})
    assert (first.status, again.status) == (202, 202)
    assert again.data == first.data
    assert await accepted(gateway, sender) == LIMIT


async def test_reactions_and_the_sandbox_use_nothing_up(gateway: Gateway) -> None:
    sender = await metered(gateway, used=LIMIT - 1)
    said = await sender.text()
    reaction = {"messageId": said.data["id"], "emoji": "👍"}
    await gateway.sql.execute(
        "UPDATE dispatcher.messages SET status = 'sent' WHERE tenant_id = $1", sender.tenant
    )
    answer = await sender.customer.post("/api/messages/reaction", reaction)
    assert answer.status == 202, answer.body
    assert await accepted(gateway, sender) == LIMIT
    played = await gateway.sender()
    for way in WAYS:
        assert (await say(played, **way)).status == 202
    assert await accepted(gateway, played) == 0


async def test_a_month_ends_when_it_does_in_the_organizations_zone(gateway: Gateway) -> None:
    zone = ZoneInfo("Pacific/Kiritimati")
    sender = await metered(gateway, used=LIMIT, timezone=zone.key)
    assert (await sender.text()).code == "QUOTA_EXCEEDED"
    ends = month_at(gateway.clock.now(), zone).ends
    gateway.clock.move(ends - gateway.clock.now() + timedelta(seconds=1))
    assert (await sender.text()).status == 202
    months = await gateway.sql.fetch(
        "SELECT month, accepted FROM gateway.message_usage WHERE tenant_id = $1 ORDER BY month",
        sender.tenant,
    )
    assert [row["accepted"] for row in months] == [LIMIT, 1]
    assert months[1]["month"] == ends.astimezone(zone).date()


async def test_a_larger_plan_counts_at_once_and_what_others_accepted_soon(
    gateway: Gateway,
) -> None:
    sender = await metered(gateway, used=LIMIT)
    assert (await sender.text()).code == "QUOTA_EXCEEDED"
    await gateway.sql.execute(
        "UPDATE gateway.organizations SET plan = 'pro' WHERE id = $1", sender.tenant
    )
    gateway.clock.move(timedelta(seconds=6))
    assert (await sender.text()).status == 202
    await use(gateway, sender, PLANS["pro"].messages)
    gateway.clock.move(timedelta(seconds=6))
    assert (await sender.text()).code == "QUOTA_EXCEEDED"


@pytest.fixture
def warnings(gateway: Gateway) -> WarnOfQuotas:
    """The loop that warns, of another replica, to be stepped by hand."""
    metrics = GatewayMetrics(CollectorRegistry())
    relay = Relay(
        database=gateway.database,
        broker=gateway.broker,
        schema="gateway",
        clock=gateway.clock,
        metrics=metrics,
    )
    return WarnOfQuotas(
        database=gateway.database, relay=relay, clock=gateway.clock, metrics=metrics
    )


async def test_a_tenant_is_told_once_when_most_is_used(
    gateway: Gateway, warnings: WarnOfQuotas
) -> None:
    ada, registered = await gateway.register()
    tenant = UUID(registered["organization"]["id"])
    instance = await an_instance(gateway.sql, tenant, engine="whatsmeow")
    sender = Sender((await gateway.key(instance, tenant))[0], instance, tenant)
    await use(gateway, sender, LIMIT * 8 // 10 - 2)
    await sender.text()
    assert await warnings.step() == 0
    await sender.text()
    path = "/api/events?types=quota.warning&wait=5"
    told = await ada.get(path)
    [event] = told.data
    assert event["data"]["used"] == LIMIT * 8 // 10
    assert (event["data"]["resource"], event["data"]["limit"]) == ("messages", LIMIT)
    await sender.text()
    assert await warnings.step() == 0
    usage = (await ada.get("/api/organization")).data["usage"]["messages"]
    assert (usage["used"], usage["limit"]) == (LIMIT * 8 // 10 + 1, LIMIT)


async def test_a_larger_plan_is_warned_of_anew_and_no_plan_twice(
    gateway: Gateway, warnings: WarnOfQuotas
) -> None:
    ada, registered = await gateway.register()
    tenant = UUID(registered["organization"]["id"])
    instance = await an_instance(gateway.sql, tenant, engine="whatsmeow")
    sender = Sender((await gateway.key(instance, tenant))[0], instance, tenant)
    operator = await gateway.operator()

    async def has(plan: str, used: int) -> None:
        path = f"/api/admin/organizations/{tenant}"
        assert (await operator.call("PUT", path, json={"plan": plan})).status == 200
        await use(gateway, sender, used)
        await warnings.step()

    async def told() -> bool:
        answer = await ada.get("/api/events?types=quota.warning")
        limits = [event["data"]["limit"] for event in answer.data]
        return limits == [PLANS[plan].messages for plan in ("basic", "pro", "max")]

    await has("basic", 8_000)
    await has("pro", 39_999)
    await has("pro", 40_000)
    await has("basic", 40_000)
    await has("pro", 40_001)
    await has("max", 80_000)
    await eventually(told)


async def test_a_warning_that_was_missed_is_found_and_given_by_one_replica(
    gateway: Gateway, warnings: WarnOfQuotas
) -> None:
    sender = await metered(gateway, used=LIMIT)
    # Of a larger plan, it is not much yet.
    await metered(gateway, used=LIMIT, plan="max")
    # Of a month that is over, nobody wants to know any more.
    other = await metered(gateway, used=0)
    await gateway.sql.execute(
        "UPDATE gateway.message_usage SET accepted = 10000, month = month - 31"
        " WHERE tenant_id = $1",
        other.tenant,
    )
    await asyncio.gather(warnings.step(), warnings.step())

    async def warned() -> bool:
        # The gateway looks when it starts, and may be about to give the warning itself.
        rows = await gateway.sql.fetch(
            "SELECT tenant_id FROM gateway.message_usage"
            " WHERE warned_at IS NOT NULL AND month >= $1",
            month_at(gateway.clock.now(), ZoneInfo("UTC")).first,
        )
        return [row["tenant_id"] for row in rows] == [sender.tenant]

    await eventually(warned)
    assert await warnings.step() == 0


async def test_two_replicas_count_together(gateway: Gateway, database_url: str) -> None:
    sender = await metered(gateway, used=LIMIT - 40)
    async with running(database_url) as second:
        elsewhere = Customer(second.http, second.url, sender.customer.headers)
        there = Sender(elsewhere, sender.instance, sender.tenant)
        answers = await asyncio.gather(
            *(say(sender if n % 2 else there, **WAYS[n // 2 % 2]) for n in range(40))
        )
        assert {answer.status for answer in answers} == {202}
        assert await accepted(gateway, sender) == LIMIT
        # Whoever was not there at the last commit learns of it within seconds.
        for replica in (gateway, second):
            replica.clock.move(timedelta(seconds=6))
        assert {(await one.text()).code for one in (sender, there)} == {"QUOTA_EXCEEDED"}


async def test_analytics_and_administration_have_narrower_limits(database_url: str) -> None:
    async with running(database_url, limit_analytics_minute=2) as gateway:
        ada, _ = await gateway.register()
        for _ in range(2):
            assert (await ada.get("/api/analytics/storage")).status == 200
        refused = await ada.get("/api/analytics/storage")
        assert (refused.status, refused.code) == (429, "RATE_LIMIT_EXCEEDED")
        assert refused.headers["RateLimit-Limit"] == "2"
        assert int(refused.headers["Retry-After"]) > 0
        assert (await ada.get("/api/auth/me")).status == 200


async def test_what_a_narrower_limit_refuses_uses_up_nothing_of_the_wider(
    database_url: str,
) -> None:
    async with running(database_url, limit_analytics_minute=2, limit_user_minute=4) as gateway:
        gateway.clock.stand_still()
        ada, _ = await gateway.register()
        asked = [(await ada.get("/api/analytics/storage")).status for _ in range(5)]
        assert asked == [200, 200, 429, 429, 429]
        assert [(await ada.get("/api/auth/me")).status for _ in range(3)] == [200, 200, 429]


async def test_what_the_wider_limit_refuses_uses_up_nothing_of_a_narrower(
    database_url: str,
) -> None:
    async with running(database_url, limit_admin_hour=2, limit_user_minute=1) as gateway:
        gateway.clock.stand_still()
        operator = await gateway.operator()
        asked = [(await operator.get("/api/admin/organizations")).status for _ in range(3)]
        assert asked == [200, 429, 429]
        gateway.clock.move(timedelta(minutes=2))
        assert (await operator.get("/api/admin/organizations")).status == 200


@pytest.mark.parametrize("narrower", ["limit_admin_hour", "limit_analytics_minute"])
async def test_analytics_of_the_platform_count_as_administration_too(
    database_url: str, narrower: str
) -> None:
    settings: dict[str, Any] = {narrower: 2}
    async with running(database_url, **settings) as gateway:
        operator = await gateway.operator()
        asked = [await operator.get("/api/admin/analytics") for _ in range(3)]
        assert [answer.status for answer in asked] == [200, 200, 429]
        assert asked[-1].headers["RateLimit-Limit"] == "2"
