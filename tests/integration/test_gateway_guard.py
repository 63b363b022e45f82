"""How an instance connects: the proxy and the device name of its guard."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import orjson
import pytest
from prometheus_client import CollectorRegistry

from services.gateway.loops.forgetting import Forget
from services.gateway.metrics import GatewayMetrics
from shared.ids import new_id
from shared.security.sealing import open_text, proxy_place
from tests.support.builders import an_instance as a_row
from tests.support.builders import an_organization
from tests.support.customer import Answer, Customer
from tests.support.gateway import Gateway
from tests.support.keys import RING

PROXY = "socks5://ada:secret@proxy.example.com:1080"


def forget(gateway: Gateway) -> Forget:
    """The loop that forgets, of another replica, to be stepped by hand."""
    return Forget(
        database=gateway.database,
        clock=gateway.clock,
        metrics=GatewayMetrics(CollectorRegistry()),
        events_kept=timedelta(days=7),
        audit_kept=timedelta(days=365),
    )


async def an_instance(customer: Customer, engine: str = "whatsmeow") -> str:
    made = await customer.post("/api/instances", {"name": "Support", "engine": engine})
    assert made.status == 201, made.body
    return str(made.data["id"])


async def put(customer: Customer, instance: str, **changes: Any) -> Answer:
    return await customer.call("PUT", f"/api/instances/{instance}/guard", json=changes)


async def stored(gateway: Gateway, instance: str) -> dict[str, Any]:
    raw = await gateway.sql.fetchval(
        "SELECT guard FROM gateway.instances WHERE id = $1", UUID(instance)
    )
    found: dict[str, Any] = orjson.loads(raw)
    return found


async def test_a_linked_device_starts_with_limits_that_spare_its_number(gateway: Gateway) -> None:
    ada, _ = await gateway.register()
    instance = await an_instance(ada)
    guard = (await ada.get(f"/api/instances/{instance}/guard")).data
    assert (guard["perMinute"], guard["perHour"], guard["perDay"]) == (20, 200, 1000)
    assert (guard["proxy"], guard["deviceName"]) == (None, None)
    assert await stored(gateway, instance) == {
        "perMinute": 20,
        "perHour": 200,
        "perDay": 1000,
        "typing": False,
    }


async def test_a_proxy_is_kept_sealed_and_shown_without_its_credentials(gateway: Gateway) -> None:
    ada, registered = await gateway.register()
    instance = await an_instance(ada)
    changed = await put(ada, instance, proxy=PROXY, deviceName=" Shop ")
    assert changed.status == 200, changed.body
    shown = (await ada.get(f"/api/instances/{instance}/guard")).data
    for guard in (changed.data, shown):
        assert guard["proxy"] == "socks5://***@proxy.example.com:1080"
        assert guard["deviceName"] == "Shop"
    sealed = (await stored(gateway, instance))["proxy"]
    assert "secret" not in str(await stored(gateway, instance))
    tenant = UUID(registered["organization"]["id"])
    assert open_text(RING, sealed, proxy_place(tenant, UUID(instance))) == PROXY
    entries = await gateway.sql.fetch("SELECT before, after FROM gateway.audit_logs")
    assert "secret" not in str(entries)
    listed = await ada.get("/api/instances")
    assert "secret" not in orjson.dumps(listed.body).decode()

    await put(ada, instance, perMinute=5)
    kept = await stored(gateway, instance)
    assert (kept["proxy"], kept["deviceName"], kept["perMinute"]) == (sealed, "Shop", 5)
    await put(ada, instance, proxy=None)
    assert await stored(gateway, instance) == {
        "perMinute": 5,
        "perHour": 200,
        "perDay": 1000,
        "typing": False,
        "deviceName": "Shop",
    }


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"proxy": "ftp://example.com:21"}, "proxy"),
        ({"proxy": "http://example.com"}, "proxy"),
        ({"proxy": "http://ada:secret@10.0.0.1:3128"}, "proxy"),
        ({"proxy": "http://169.254.169.254:80"}, "proxy"),
        ({"proxy": "http://[::1]:3128"}, "proxy"),
        ({"proxy": "http://0x7f.1:3128"}, "proxy"),
        ({"proxy": "http://example.com:22"}, "proxy"),
        ({"deviceName": ""}, "deviceName"),
        ({"deviceName": "x" * 65}, "deviceName"),
        ({"deviceName": "a\tb"}, "deviceName"),
    ],
)
async def test_what_leads_inside_or_is_none_is_refused_by_its_field(
    gateway: Gateway, wrong: dict[str, str], field: str
) -> None:
    ada, _ = await gateway.register()
    instance = await an_instance(ada)
    refused = await put(ada, instance, **wrong)
    assert (refused.status, refused.code) == (422, "VALIDATION_FAILED")
    assert list(refused.body["error"]["data"]["fields"]) == [field]
    assert "secret" not in orjson.dumps(refused.body).decode()


async def test_a_network_that_was_opened_on_purpose_may_hold_the_proxy(gateway: Gateway) -> None:
    ada, _ = await gateway.register()
    instance = await an_instance(ada)
    for proxy in ("http://127.0.0.1:3128", "http://localhost:3128"):
        assert (await put(ada, instance, proxy=proxy)).status == 200


async def test_a_deleted_instance_keeps_its_proxy_until_its_device_is_unlinked(
    gateway: Gateway,
) -> None:
    ada, registered = await gateway.register()
    tenant = UUID(registered["organization"]["id"])
    instance, other = await an_instance(ada), await an_instance(ada)
    for id_ in (instance, other):
        assert (await put(ada, id_, proxy=PROXY, deviceName="Shop")).status == 200
    await gateway.sql.execute(
        "INSERT INTO sessions.session_states"
        " (instance_id, tenant_id, shard, epoch, version, status, since)"
        " VALUES ($1, $2, 7, 1, 1, 'ready', now())",
        UUID(instance),
        tenant,
    )
    await ada.call("DELETE", f"/api/instances/{instance}")
    # The device is unlinked by the way that its session took, and by no other.
    gateway.clock.move(timedelta(days=2))
    await forget(gateway).step()
    assert "proxy" in await stored(gateway, instance)
    await gateway.sql.execute("UPDATE sessions.session_states SET status = 'logged_out'")
    await forget(gateway).step()
    assert {"proxy", "proxyShown"}.isdisjoint(await stored(gateway, instance))
    assert (await stored(gateway, instance))["perMinute"] == 20
    assert "proxy" in await stored(gateway, other)


async def test_a_proxy_outlives_its_instance_by_a_day_for_whoever_unlinks_late(
    gateway: Gateway,
) -> None:
    ada, _ = await gateway.register()
    instance = await an_instance(ada)
    assert (await put(ada, instance, proxy=PROXY)).status == 200
    await ada.call("DELETE", f"/api/instances/{instance}")
    gateway.clock.move(timedelta(hours=23))
    await forget(gateway).step()
    assert "proxy" in await stored(gateway, instance)
    gateway.clock.move(timedelta(hours=2))
    await forget(gateway).step()
    assert "proxy" not in await stored(gateway, instance)


async def test_what_was_deleted_before_secrets_went_at_once_loses_them_too(
    gateway: Gateway,
) -> None:
    tenant = await an_organization(gateway.sql)
    sealed = {"phoneNumberId": "11111", "appSecret": "sealed:AgFh", "verifyTokenDigest": "c0ffee"}
    for deleted_at in (gateway.clock.now() - timedelta(days=30), None):
        await a_row(
            gateway.sql,
            tenant,
            engine="cloud_api",
            settings=sealed,
            status="disconnected",
            deleted_at=deleted_at,
        )
    await forget(gateway).step()
    rows = await gateway.sql.fetch("SELECT settings FROM gateway.instances ORDER BY deleted_at")
    assert [orjson.loads(row["settings"]) for row in rows] == [{"phoneNumberId": "11111"}, sealed]


async def test_quiet_hours_are_set_told_and_taken_away(gateway: Gateway) -> None:
    ada, _ = await gateway.register()
    instance = await an_instance(ada, "sandbox")
    now = gateway.clock.now()
    ends = (now + timedelta(hours=2)).replace(second=0, microsecond=0)
    hours = {"from": f"{now - timedelta(hours=1):%H:%M}", "to": f"{ends:%H:%M}"}
    changed = await put(ada, instance, quietHours=hours)
    assert changed.data["quietHours"] == {**hours, "timeZone": None}
    assert (await stored(gateway, instance))["quietHours"] == hours
    shown = (await ada.get(f"/api/instances/{instance}/guard")).data
    assert shown["quietHours"] == {**hours, "timeZone": None}
    assert shown["usage"]["nextSlotAt"][:16] == ends.isoformat()[:16]
    config = (await ada.get(f"/api/instances/{instance}/config")).data
    assert config["guard"]["quietHours"] == {**hours, "timeZone": None}

    # Elsewhere it is another time of day.
    await put(ada, instance, quietHours={**hours, "timeZone": "Asia/Tokyo"})
    shown = (await ada.get(f"/api/instances/{instance}/guard")).data
    assert shown["quietHours"]["timeZone"] == "Asia/Tokyo"
    assert shown["usage"]["nextSlotAt"][:16] == now.isoformat()[:16]

    await put(ada, instance, perMinute=3)
    assert "quietHours" in await stored(gateway, instance)
    assert (await put(ada, instance, quietHours=None)).data["quietHours"] is None
    assert "quietHours" not in await stored(gateway, instance)


@pytest.mark.parametrize(
    "wrong",
    [
        {"from": "22:00", "to": "22:00"},
        {"from": "24:00", "to": "07:00"},
        {"from": "7:00", "to": "08:00"},
        {"from": "22:00"},
        {"from": "22:00", "to": "07:00", "timeZone": "Berlin"},
        {"from": "22:00", "to": "07:00", "timezone": "Europe/Berlin"},
    ],
)
async def test_quiet_hours_that_are_none_are_refused(
    gateway: Gateway, wrong: dict[str, str]
) -> None:
    ada, _ = await gateway.register()
    instance = await an_instance(ada)
    refused = await put(ada, instance, quietHours=wrong)
    assert (refused.status, refused.code) == (422, "VALIDATION_FAILED")
    assert "quietHours" in next(iter(refused.body["error"]["data"]["fields"]))


async def test_a_warm_up_begins_today_and_shows_what_it_leaves_of_a_day(gateway: Gateway) -> None:
    ada, _ = await gateway.register()
    instance = await an_instance(ada)
    today = gateway.clock.now().date()
    changed = await put(ada, instance, warmUp={"days": 10, "from": 100})
    warm_up = {"days": 10, "start": today.isoformat(), "from": 100}
    assert changed.data["warmUp"] == warm_up
    assert (await stored(gateway, instance))["warmUp"] == warm_up
    path = f"/api/instances/{instance}/guard"
    shown = (await ada.get(path)).data
    assert (shown["perDay"], shown["warmUp"]) == (1000, warm_up)
    assert shown["usage"]["perDay"] == {"used": 0, "limit": 100, "remaining": 100}
    begun = (today - timedelta(days=5)).isoformat()
    await put(ada, instance, warmUp={"days": 10, "start": begun, "from": 100})
    assert (await ada.get(path)).data["usage"]["perDay"]["limit"] == 550
    await put(ada, instance, warmUp=None)
    assert (await ada.get(path)).data["usage"]["perDay"]["limit"] == 1000
    assert "warmUp" not in await stored(gateway, instance)


async def test_a_warm_up_needs_a_limit_to_grow_to(gateway: Gateway) -> None:
    ada, _ = await gateway.register()
    instance = await an_instance(ada)
    for wrong in (
        {"days": 0, "from": 1},
        {"days": 61, "from": 1},
        {"days": 1, "from": 0},
        {"days": 1, "from": 1, "start": "0001-01-01"},
        {"days": 1, "from": 1, "start": "9999-12-31"},
    ):
        assert (await put(ada, instance, warmUp=wrong)).status == 422
    refused = await put(ada, instance, warmUp={"days": 1, "from": 1}, perDay=0)
    assert list(refused.body["error"]["data"]["fields"]) == ["warmUp"]
    assert (await put(ada, instance, warmUp={"days": 1, "from": 1})).status == 200
    refused = await put(ada, instance, perDay=0)
    assert list(refused.body["error"]["data"]["fields"]) == ["perDay"]
    assert (await put(ada, instance, perDay=0, warmUp=None)).status == 200


async def test_pauses_are_told_with_the_slot_after_the_last_one(gateway: Gateway) -> None:
    ada, _ = await gateway.register()
    instance = await an_instance(ada)
    for wrong in ({"min": 2, "max": 1}, {"min": 0, "max": 301}, {"min": -1, "max": 1}, {"min": 1}):
        assert (await put(ada, instance, pauses=wrong)).status == 422
    pauses = {"min": 60, "max": 60}
    assert (await put(ada, instance, pauses=pauses)).data["pauses"] == pauses
    assert (await stored(gateway, instance))["pauses"] == pauses
    now = gateway.clock.now()
    await gateway.sql.execute(
        "INSERT INTO dispatcher.transmissions (id, message_id, instance_id, shard, attempt,"
        " created_at, published_at, outcome, settled_at)"
        " VALUES ($1, $1, $2, 7, 1, $3, $3, 'accepted', $3)",
        new_id(),
        UUID(instance),
        now,
    )
    shown = (await ada.get(f"/api/instances/{instance}/guard")).data
    assert shown["pauses"] == pauses
    expected = now + timedelta(seconds=60)
    assert shown["usage"]["nextSlotAt"][:19] == expected.isoformat()[:19]
    assert (await put(ada, instance, pauses=None)).data["pauses"] is None
    assert "pauses" not in await stored(gateway, instance)


async def test_typing_is_turned_on_and_off(gateway: Gateway) -> None:
    ada, _ = await gateway.register()
    instance = await an_instance(ada)
    assert (await put(ada, instance, typing=True)).data["typing"] is True
    assert (await put(ada, instance, perMinute=1)).data["typing"] is True
    assert (await stored(gateway, instance))["typing"] is True
    assert (await put(ada, instance, typing="yes")).status == 422
    assert (await put(ada, instance, typing=None)).data["typing"] is False
    assert (await ada.get(f"/api/instances/{instance}/guard")).data["typing"] is False
