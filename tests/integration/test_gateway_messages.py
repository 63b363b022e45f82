"""Messages as their owners find them again."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from shared.ids import new_id
from tests.support.builders import a_message_row, an_instance
from tests.support.customer import Customer
from tests.support.gateway import ALL, Gateway, Sender

T = datetime(2026, 1, 15, 12, tzinfo=UTC)


async def a_row(gateway: Gateway, owner: Sender, **given: Any) -> str:
    """A message; what the builder does not know is changed afterwards."""
    known = {name: given.pop(name) for name in ("chat", "status", "text") if name in given}
    message = await a_message_row(gateway.sql, owner.tenant, owner.instance, **known)
    for column, value in given.items():
        await gateway.sql.execute(
            f"UPDATE dispatcher.messages SET {column} = $2 WHERE id = $1",
            message,
            value,
        )
    return str(message)


async def found(customer: Customer, query: str) -> list[str]:
    answer = await customer.get(f"/api/messages?{query}")
    assert answer.status == 200, answer.body
    return [message["id"] for message in answer.data]


async def test_filters_find_what_they_name(gateway: Gateway, sender: Sender) -> None:
    ada = "12025550142@s.whatsapp.net"
    sent = await a_row(gateway, sender, status="sent", created_at=T)
    inbound = await a_row(
        gateway,
        sender,
        chat=ada,
        status="received",
        direction="inbound",
        sender="+12025550142",
        recipient="+12025550000",
        created_at=T + timedelta(days=1),
    )
    image = await a_row(gateway, sender, chat=ada, status="read", type="image", created_at=T)
    for query, expected in (
        ("", [image, inbound, sent]),
        ("direction=inbound", [inbound]),
        ("direction=outbound", [image, sent]),
        ("status=sent", [sent]),
        ("status=sent,read", [image, sent]),
        ("status=sent&status=received", [inbound, sent]),
        ("type=image", [image]),
        ("from=12025550142", [inbound]),
        ("from=%2B1%20202%20555%200142", [inbound]),
        ("to=%2B12025550199", [sent]),
        ("contact=12025550142@c.us", [image, inbound]),
        ("contact=12025550142&direction=outbound", [image]),
        ("fromDate=2026-01-16", [inbound]),
        ("toDate=2026-01-15", [image, sent]),
        ("toDate=2026-01-15T12:00:00Z", []),
        ("fromDate=2026-01-15T12:00:00%2B00:00&toDate=2026-01-16", [image, inbound, sent]),
        (f"instanceId={sender.instance}", [image, inbound, sent]),
        (f"instanceId={new_id()}", []),
        ("to=nobody", []),
    ):
        assert await found(sender.customer, query) == expected, query


WRONG: list[tuple[str, str]] = [
    ("status=lost", "status.0"),
    ("direction=up", "direction"),
    ("fromDate=yesterday", "fromDate.datetime"),
    ("limit=0", "limit"),
    ("limit=101", "limit"),
    ("page=0", "page"),
    ("instanceId=x", "instanceId"),
    ("contact=nobody", "contact"),
    ("cursor=abc", "cursor"),
    ("statuss=sent", "statuss"),
    ("direction=inbound&direction=outbound", "direction"),
]


async def test_a_filter_that_is_wrong_is_named(sender: Sender) -> None:
    for query, field in WRONG:
        refused = await sender.customer.get(f"/api/messages?{query}")
        assert (refused.status, refused.code) == (422, "VALIDATION_FAILED")
        assert field in refused.body["error"]["data"]["fields"], refused.body


async def test_pages_by_cursor_neither_repeat_nor_hide_any(
    gateway: Gateway, sender: Sender
) -> None:
    ids = [await a_row(gateway, sender) for _ in range(7)]
    seen: list[str] = []
    after = ""
    while True:
        page = await sender.customer.get(f"/api/messages?limit=3{after}")
        seen += [message["id"] for message in page.data]
        pagination = page.body["pagination"]
        assert set(pagination) == {"limit", "nextCursor", "hasMore"}
        if len(seen) == 3:
            await a_row(gateway, sender)  # what comes meanwhile does not shift the pages
        if not pagination["hasMore"]:
            assert pagination["nextCursor"] is None
            break
        after = f"&cursor={pagination['nextCursor']}"
    assert seen == ids[::-1]


async def test_pages_by_number_tell_how_many_there_are(gateway: Gateway, sender: Sender) -> None:
    ids = [await a_row(gateway, sender) for _ in range(5)][::-1]
    second = await sender.customer.get("/api/messages?page=2&limit=2")
    assert [message["id"] for message in second.data] == ids[2:4]
    assert second.body["pagination"]["page"] == 2
    assert second.body["pagination"]["total"] == 5
    offset = await sender.customer.get("/api/messages?offset=4&limit=2")
    assert [message["id"] for message in offset.data] == ids[4:]
    assert offset.body["pagination"]["total"] == 5
    assert offset.body["pagination"]["hasMore"] is False
    beyond = await sender.customer.get("/api/messages?page=9&limit=2")
    assert beyond.data == []
    mixed = await sender.customer.get(
        f"/api/messages?page=1&cursor={second.body['pagination']['nextCursor']}"
    )
    assert mixed.status == 422


async def test_a_key_lists_the_messages_of_its_instance_alone(
    gateway: Gateway, sender: Sender
) -> None:
    other = Sender(sender.customer, await an_instance(gateway.sql, sender.tenant), sender.tenant)
    own, foreign = await a_row(gateway, sender), await a_row(gateway, other)
    assert await found(sender.customer, "") == [own]
    assert (await sender.customer.get(f"/api/messages/{foreign}")).status == 404
    assert (await sender.customer.get(f"/api/messages/{own}")).status == 200


async def test_a_message_that_failed_says_why(gateway: Gateway, sender: Sender) -> None:
    failed = await a_row(
        gateway,
        sender,
        status="failed",
        error_code="NOT_ON_WHATSAPP",
        error_message="The number is not on WhatsApp.",
        failed_at=T + timedelta(seconds=2),
    )
    shown = (await sender.customer.get(f"/api/messages/{failed}")).data
    assert shown["status"] == "failed"
    assert shown["error"] == {
        "code": "NOT_ON_WHATSAPP",
        "message": "The number is not on WhatsApp.",
    }
    assert shown["failedAt"] == "2026-01-15T12:00:02.000Z"
    assert shown["content"] == {"kind": "text", "text": "Hello"}


async def test_a_webhooks_url_is_told_whole_to_those_alone_who_may_set_it(
    gateway: Gateway, sender: Sender
) -> None:
    message = UUID(await a_row(gateway, sender, status="sent", sent_at=T))
    endpoint, delivery = new_id(), new_id()
    url = "https://customer.example:8443/hooks/s3cret?token=t"
    await gateway.sql.execute(
        "INSERT INTO gateway.webhooks (id, tenant_id, instance_id, is_primary, url, events, secret,"
        " active, created_at, updated_at) VALUES ($1, $2, $3, true, $4, '{*}', 's', true, $5, $5)",
        endpoint,
        sender.tenant,
        sender.instance,
        url,
        T,
    )
    await gateway.sql.execute(
        "INSERT INTO webhooks.deliveries (id, tenant_id, instance_id, endpoint_id, event_id,"
        " event_type, message_id, body, state, attempts, next_at, created_at)"
        " VALUES ($1, $2, $3, $4, $5, 'message.sent', $6, ''::bytea, 'pending', 1, $7, $7)",
        delivery,
        sender.tenant,
        sender.instance,
        endpoint,
        new_id(),
        message,
        T,
    )
    await gateway.sql.execute(
        "INSERT INTO webhooks.attempts (delivery_id, number, at, duration_ms, status_code, error)"
        " VALUES ($1, 1, $2, 31, 500, NULL)",
        delivery,
        T,
    )
    path = f"/api/messages/{message}/timeline"
    shown = (await sender.customer.get(path)).data
    assert [hop["details"]["url"] for hop in shown if hop["hop"] == "webhook"] == [url]
    may_not, _ = await gateway.key(
        sender.instance,
        sender.tenant,
        permissions={**ALL, "webhook": {"configure": False, "test": True}},
    )
    answer = await may_not.get(path)
    assert "s3cret" not in str(answer.body)
    assert [hop["details"]["url"] for hop in answer.data if hop["hop"] == "webhook"] == [
        "https://customer.example:8443"
    ]


async def test_the_timeline_is_put_together_from_what_every_service_left(
    gateway: Gateway, sender: Sender
) -> None:
    message = UUID(await a_row(gateway, sender, status="sent", sent_at=T + timedelta(seconds=4)))
    transmission, endpoint, delivery = new_id(), new_id(), new_id()
    sql = gateway.sql
    await sql.execute(
        "INSERT INTO dispatcher.transmissions (id, message_id, instance_id, shard, attempt,"
        " created_at, published_at, paced_until, paced_by, outcome, settled_at)"
        " VALUES ($1, $2, $3, 7, 1, $4, $4, $4, 'quiet_hours', 'accepted', $5)",
        transmission,
        message,
        sender.instance,
        T + timedelta(seconds=2),
        T + timedelta(seconds=4),
    )
    await sql.execute(
        "INSERT INTO sessions.handovers (transmission_id, message_id, tenant_id, instance_id,"
        " shard, epoch, engine_message_id, handed_over_at) VALUES ($1, $2, $3, $4, 7, 1, 'x', $5)",
        transmission,
        message,
        sender.tenant,
        sender.instance,
        T + timedelta(seconds=3),
    )
    await sql.execute(
        "INSERT INTO webhooks.deliveries (id, tenant_id, instance_id, endpoint_id, event_id,"
        " event_type, message_id, body, state, attempts, next_at, created_at)"
        " VALUES ($1, $2, $3, $4, $5, 'message.sent', $6, ''::bytea, 'pending', 1, $7, $7)",
        delivery,
        sender.tenant,
        sender.instance,
        endpoint,
        new_id(),
        message,
        T,
    )
    await sql.execute(
        "INSERT INTO webhooks.attempts (delivery_id, number, at, duration_ms, status_code, error)"
        " VALUES ($1, 1, $2, 31, 500, NULL)",
        delivery,
        T + timedelta(seconds=5),
    )
    hops = (await sender.customer.get(f"/api/messages/{message}/timeline")).data
    assert [(hop["hop"], hop["at"][17:19]) for hop in hops] == [
        ("accepted", "00"),
        ("paced", "02"),
        ("dispatched", "02"),
        ("handed_over", "03"),
        ("sent", "04"),
        ("webhook", "05"),
    ]
    assert "quiet hours" in hops[1]["details"]["reason"]
    assert hops[-1]["details"] == {
        "event": "message.sent",
        "attempt": 1,
        "statusCode": 500,
        "responseTime": 31,
    }
