"""Reading the audit log: whose entries, which of them, in which form, and for how long."""

import csv
import io
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from prometheus_client import CollectorRegistry

from services.gateway.domain.auditing import SYSTEM, Actor, ActorKind, Entry
from services.gateway.loops.forgetting import Forget
from services.gateway.metrics import GatewayMetrics
from services.gateway.store import audit
from shared.ids import new_id
from tests.support.builders import NOON, an_instance
from tests.support.customer import Customer
from tests.support.gateway import Gateway

PATH = "/api/audit-logs"


def an_entry(tenant: UUID | None, **given: Any) -> Entry:
    """Something that Waypost itself did to an instance."""
    return Entry(
        **{
            "id": new_id(),
            "at": NOON,
            "tenant_id": tenant,
            "actor": SYSTEM,
            "action": "instance.created",
            "resource_type": "instance",
            "resource_id": str(new_id()),
            **given,
        }
    )


async def add(gateway: Gateway, *entries: Entry) -> None:
    async with gateway.database.tx() as tx:
        await audit.add(tx, *entries)


async def an_account(gateway: Gateway, email: str) -> tuple[Customer, UUID, UUID]:
    """An administrator with an empty log, their tenant and their id."""
    customer, account = await gateway.register(email)
    await gateway.sql.execute("DELETE FROM gateway.audit_logs")
    return customer, UUID(account["organization"]["id"]), UUID(account["user"]["id"])


def ids(answer: Any) -> list[str]:
    assert answer.status == 200, answer.body
    return [entry["id"] for entry in answer.body["data"]]


async def test_an_entry_says_who_what_to_what_whence_and_when(gateway: Gateway) -> None:
    ada, tenant, user = await an_account(gateway, "ada@example.com")
    made = await ada.post("/api/instances", {"name": "Shop", "engine": "sandbox"})
    [entry] = (await ada.get(PATH)).data
    assert entry.pop("id")
    assert entry.pop("at")
    assert entry.pop("after")["name"] == "Shop"
    assert entry == {
        "action": "instance.created",
        "actor": {
            "type": "user",
            "userId": str(user),
            "keyId": None,
            "email": "ada@example.com",
        },
        "resource": {"type": "instance", "id": made.data["id"]},
        "before": None,
        "address": "127.0.0.1",
        "requestId": made.headers["X-Request-Id"],
        "organizationId": str(tenant),
        "times": 1,
    }


async def test_everybody_sees_their_own_organization_and_an_operator_all(gateway: Gateway) -> None:
    operator = await gateway.operator()
    ada, ours, _ = await an_account(gateway, "ada@example.com")
    bob, theirs, _ = await an_account(gateway, "bob@example.com")
    mine, his, nobodys = an_entry(ours), an_entry(theirs), an_entry(None)
    await add(gateway, mine, his, nobodys)
    assert ids(await ada.get(PATH)) == [str(mine.id)]
    assert ids(await ada.get(f"{PATH}?tenantId={ours}")) == [str(mine.id)]
    assert ids(await bob.get(PATH)) == [str(his.id)]
    refused = await ada.get(f"{PATH}?tenantId={theirs}")
    assert (refused.status, refused.code) == (403, "FORBIDDEN")
    assert ids(await operator.get(f"{PATH}?tenantId={theirs}")) == [str(his.id)]
    assert set(ids(await operator.get(PATH))) >= {str(e.id) for e in (mine, his, nobodys)}
    lines = (await ada.get(f"{PATH}?format=csv")).body.decode()
    assert str(mine.id) in lines
    assert str(his.id) not in lines


async def test_only_who_may_view_audit_logs_sees_any(gateway: Gateway) -> None:
    ada, tenant, _ = await an_account(gateway, "ada@example.com")
    keyed, _ = await gateway.key(await an_instance(gateway.sql, tenant), tenant)
    assert (await keyed.get(PATH)).status == 403
    assert (await gateway.stranger().get(PATH)).status == 401
    for role in ("manager", "agent", "viewer"):
        await gateway.sql.execute("UPDATE gateway.users SET role = $1", role)
        gateway.clock.move(timedelta(seconds=10))
        assert (await ada.get(PATH)).status == 403, role


async def test_entries_are_found_by_what_is_known_of_them(gateway: Gateway) -> None:
    ada, tenant, user = await an_account(gateway, "ada@example.com")
    base = an_entry(tenant)
    deleted = replace(base, id=new_id(), action="instance.deleted", at=NOON + timedelta(hours=1))
    other = replace(
        base,
        id=new_id(),
        action="instance_key.created",
        resource_type="instance_key",
        resource_id="k",
        actor=Actor(ActorKind.USER, user),
        at=NOON + timedelta(days=1),
    )
    await add(gateway, base, deleted, other)
    first, second, third = str(base.id), str(deleted.id), str(other.id)
    for query, found in {
        "": [third, second, first],
        "action=instance.created": [first],
        "action=instance.*": [second, first],
        "action=instance_key.*": [third],
        f"userId={user}": [third],
        "resourceType=instance": [second, first],
        f"resourceType=instance&resourceId={base.resource_id}": [second, first],
        "resourceId=k": [third],
        "from=2026-01-15T13:00:00Z": [third, second],
        "to=2026-01-15T13:00:00Z": [first],
        "from=2026-01-15&to=2026-01-15": [second, first],
        "from=2026-01-16": [third],
    }.items():
        assert ids(await ada.get(f"{PATH}?{query}")) == found, query


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("action=*", "action"),
        ("action=Instance.*", "action"),
        ("action=instance.%25", "action"),
        ("userId=me", "userId"),
        ("from=yesterday", "from"),
        ("limit=101", "limit"),
        ("cursor=abc", "cursor"),
        ("format=xml", "format"),
        ("sort=at", "sort"),
    ],
)
async def test_a_query_that_is_wrong_is_refused(gateway: Gateway, query: str, field: str) -> None:
    ada, _ = await gateway.register()
    refused = await ada.get(f"{PATH}?{query}")
    assert (refused.status, refused.code) == (422, "VALIDATION_FAILED")
    fields = refused.body["error"]["data"]["fields"]
    assert {name.partition(".")[0] for name in fields} == {field}


async def test_pages_follow_by_cursor_by_number_and_by_offset(gateway: Gateway) -> None:
    ada, tenant, _ = await an_account(gateway, "ada@example.com")
    # Some of the same moment: the cursor tells them apart.
    entries = [an_entry(tenant, at=NOON + timedelta(seconds=n // 3)) for n in range(7)]
    await add(gateway, *entries)
    latest = [str(e.id) for e in sorted(entries, key=lambda e: (e.at, e.id), reverse=True)]
    seen: list[str] = []
    cursor = ""
    while True:
        answer = await ada.get(f"{PATH}?limit=3{cursor}")
        seen += ids(answer)
        if not answer.body["pagination"]["hasMore"]:
            break
        cursor = f"&cursor={answer.body['pagination']['nextCursor']}"
    assert seen == latest
    second = await ada.get(f"{PATH}?limit=3&page=2")
    assert ids(second) == latest[3:6]
    assert second.body["pagination"]["page"] == 2
    assert second.body["pagination"]["total"] == 7
    assert ids(await ada.get(f"{PATH}?limit=3&offset=6")) == latest[6:]
    both = await ada.get(f"{PATH}?page=2&cursor={second.body['pagination']['nextCursor']}")
    assert both.status == 422


async def test_a_file_holds_all_of_it_and_no_formula(gateway: Gateway) -> None:
    ada, tenant, _ = await an_account(gateway, "ada@example.com")
    entries = [
        an_entry(
            tenant,
            at=NOON + timedelta(seconds=n),
            resource_id=f'=cmd|"{n}"!A1',
            after={"name": "+1, or\n-2"},
        )
        for n in range(1203)
    ]
    await add(gateway, *entries)
    answer = await ada.get(f"{PATH}?format=csv&action=instance.*")
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert "attachment" in answer.headers["Content-Disposition"]
    rows = list(csv.DictReader(io.StringIO(answer.body.decode(), newline="")))
    assert [row["id"] for row in rows] == [str(e.id) for e in reversed(entries)]
    assert rows[0]["resourceId"] == '\'=cmd|"1202"!A1'
    assert rows[0]["after"] == '{"name":"+1, or\\n-2"}'
    assert rows[0]["at"] == "2026-01-15T12:20:02.000Z"


async def test_entries_are_forgotten_by_their_age_and_by_nobody_before_a_month(
    gateway: Gateway,
) -> None:
    _, tenant, _ = await an_account(gateway, "ada@example.com")
    now = gateway.clock.now()
    ages = (5, 29, 31, 100, 400)
    await add(gateway, *(an_entry(tenant, at=now - timedelta(days=age)) for age in ages))
    forget = Forget(
        database=gateway.database,
        clock=gateway.clock,
        metrics=GatewayMetrics(CollectorRegistry()),
        events_kept=timedelta(days=7),
        audit_kept=timedelta(days=365),
    )
    await forget.step()
    assert await gateway.count("gateway.audit_logs") == 4
    async with gateway.database.tx() as tx:
        assert await audit.forget(tx, before=now + timedelta(days=1), at_most=1) == 1
        assert await audit.forget(tx, before=now + timedelta(days=1), at_most=10) == 1
        assert await audit.forget(tx, before=now + timedelta(days=1), at_most=10) == 0
    assert await gateway.count("gateway.audit_logs") == 2
