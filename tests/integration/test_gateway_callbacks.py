"""Callbacks of WhatsApp: whose they are, who is believed, and what is kept of them."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from uuid import UUID

import orjson
import pytest
from aiohttp import FormData

from services.gateway.api import callbacks
from shared.broker.topology import shard_queue
from shared.contracts.commands import TakeCallbacks
from shared.security.sealing import Place
from tests.support import gateway as gateway_support
from tests.support.customer import Answer, Customer
from tests.support.eventually import eventually
from tests.support.gateway import Gateway
from tests.support.keys import RING
from tests.support.meta import (
    APP_SECRET,
    BUSINESS,
    VERIFY_TOKEN,
    Json,
    Meta,
    a_callback,
    a_text,
    a_value,
    signature_of,
    signed,
)

PATH = "/api/webhooks/whatsapp"
SECRETS = ("an-example-token", APP_SECRET, VERIFY_TOKEN)


@dataclass
class World:
    """A gateway, and organizations with numbers at Meta."""

    gateway: Gateway
    admins: int = 0

    async def admin(self) -> Customer:
        """The administrator of an organization of their own."""
        self.admins += 1
        admin, _ = await self.gateway.register(f"admin{self.admins}@example.com")
        return admin

    async def instance(self, admin: Customer, number: str, **settings: Any) -> UUID:
        """An instance that has a number."""
        given = {**Meta().settings(number), **settings}
        made = await admin.post(
            "/api/instances", {"name": "Cloud", "engine": "cloud_api", "settings": given}
        )
        return UUID(made.data["id"])

    async def post(self, body: Json, secret: str = APP_SECRET, **headers: str) -> Answer:
        """A callback, signed with a secret."""
        raw, signature = signed(body, secret)
        return await self.raw(raw, {**signature, **headers})

    async def raw(self, raw: bytes | FormData, headers: dict[str, str]) -> Answer:
        """A callback as it is."""
        return await self.gateway.stranger().call("POST", PATH, data=raw, headers=headers)

    async def challenge(self, token: str | None, mode: str = "subscribe") -> Answer:
        """Meta asks whether the URL is ours."""
        asked = {"hub.mode": mode, "hub.challenge": "1158201444"}
        if token is not None:
            asked["hub.verify_token"] = token
        return await self.gateway.stranger().call("GET", PATH, params=asked)

    async def stored(self) -> list[tuple[UUID, Any]]:
        """What waits for instances, in its order."""
        rows = await self.gateway.sql.fetch("SELECT * FROM sessions.callbacks ORDER BY sequence")
        return [
            (
                row["instance_id"],
                orjson.loads(
                    RING.open(
                        row["sealed"],
                        Place(row["tenant_id"], "sessions.callbacks", str(row["id"])),
                    )
                )["values"],
            )
            for row in rows
        ]

    async def seen(self) -> list[dict[str, Any]]:
        """What the audit log tells of forged callbacks."""
        rows = await self.gateway.sql.fetch(
            "SELECT * FROM gateway.audit_logs WHERE action = 'security.callback_forged' ORDER BY at"
        )
        return [dict(row) for row in rows]


@pytest.fixture
async def world(gateway: Gateway) -> World:
    return World(gateway)


# Meta asks whether the URL is ours


async def test_the_challenge_is_answered_to_whoever_knows_an_instances_token(world: World) -> None:
    await world.instance(await world.admin(), "11111")
    answer = await world.challenge(VERIFY_TOKEN)
    assert (answer.status, answer.body) == (200, b"1158201444")
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert answer.headers["Cache-Control"] == "no-store"


async def test_the_challenge_is_not_answered_to_anybody_else(world: World) -> None:
    instance = await world.instance(admin := await world.admin(), "11111")
    refused = [
        await world.challenge(None),
        await world.challenge(""),
        await world.challenge("another token"),
        await world.challenge(VERIFY_TOKEN, mode="unsubscribe"),
    ]
    assert (await admin.call("DELETE", f"/api/instances/{instance}")).status == 200
    refused.append(await world.challenge(VERIFY_TOKEN))
    assert [(one.status, one.code) for one in refused] == [(403, "WEBHOOK_VERIFICATION_FAILED")] * 5


async def test_the_platforms_own_token_is_known_beside_those_of_instances(
    database_url: str,
) -> None:
    async with gateway_support.running(database_url, verify_token="platform token") as gateway:
        world = World(gateway)
        assert (await world.challenge("platform token")).body == b"1158201444"
        assert (await world.challenge("platform-token")).status == 403


async def test_a_token_that_was_replaced_is_not_known_any_more(world: World) -> None:
    instance = await world.instance(admin := await world.admin(), "11111")
    new = {"phoneNumberId": "11111", "businessAccountId": BUSINESS, "verifyToken": "the new token"}
    changed = await admin.call("PUT", f"/api/instances/{instance}", json={"settings": new})
    assert changed.status == 200, changed.body
    assert (await world.challenge(VERIFY_TOKEN)).status == 403
    assert (await world.challenge("the new token")).status == 200
    del new["verifyToken"]
    taken = {**new, "verifyToken": None}
    await admin.call("PUT", f"/api/instances/{instance}", json={"settings": taken})
    assert (await world.challenge("the new token")).status == 403


# Who is believed


async def test_what_is_signed_is_stored_sealed_and_told_to_the_shards_owner(world: World) -> None:
    instance = await world.instance(await world.admin(), "11111")
    value = a_value("11111", messages=[a_text("A secret of Ada's")])
    answer = await world.post(a_callback(value))
    assert (answer.status, answer.data) == (200, {"stored": 1})
    assert await world.stored() == [(instance, [value])]
    row = await world.gateway.row("SELECT * FROM sessions.callbacks")
    assert b"secret" not in row["sealed"]
    shard = await world.gateway.sql.fetchval("SELECT shard FROM gateway.instances")
    command = await world.gateway.heard.next(TakeCallbacks, queue=shard_queue(shard))
    assert command == TakeCallbacks(shard=shard)
    assert world.gateway.metric("waypost_gateway_callbacks_total", outcome="stored") == 1


async def test_what_is_not_signed_by_the_instances_secret_is_refused_and_nothing_of_it_kept(
    world: World,
) -> None:
    instance = await world.instance(await world.admin(), "11111")
    body = a_callback(a_value("11111", messages=[a_text()]))
    raw, headers = signed(body)
    signature = headers["X-Hub-Signature-256"]
    plain = {"Content-Type": "application/json"}
    refused = [
        await world.post(body, "another secret"),
        await world.raw(raw + b" ", headers),
        await world.raw(raw, plain),
        await world.raw(raw, {**plain, "X-Hub-Signature-256": ""}),
        await world.raw(raw, {**plain, "X-Hub-Signature-256": signature[:-1] + "é"}),
        await world.raw(raw, {**plain, "X-Hub-Signature": signature}),
        await world.post(a_callback(a_value("99999", messages=[a_text()]))),
        await world.post(a_callback(a_value("11111"), business="5") | {"entry": []}),
    ]
    for one in refused:
        assert (one.status, one.code) == (403, "WEBHOOK_VERIFICATION_FAILED"), one.body
        assert str(instance) not in str(one.body)
    assert await world.stored() == []
    assert world.gateway.metric("waypost_gateway_callbacks_total", outcome="refused") == 8


async def test_an_organization_is_told_of_callbacks_that_were_forged_in_whatsapps_name(
    world: World,
) -> None:
    admin = await world.admin()
    instance = await world.instance(admin, "11111")
    body = a_callback(a_value("11111", messages=[a_text()]))
    for _ in range(3):
        await world.post(body, "another secret")

    async def told() -> Any:
        return (await admin.get("/api/events?types=security.violation")).data

    [event] = await eventually(told)
    assert event["data"]["violation"] == "callback_forged"
    assert (event["data"]["resourceType"], event["data"]["resourceId"]) == (
        "instance",
        str(instance),
    )

    async def noted() -> Any:
        return await world.seen()

    entry = (await eventually(noted))[0]
    assert (entry["resource_id"], entry["actor_type"]) == (str(instance), "stranger")
    assert entry["address"] == "127.0.0.1"


async def test_an_instance_gets_its_own_and_only_what_its_own_secret_has_signed(
    world: World,
) -> None:
    ada, eve = await world.admin(), await world.admin()
    mine = await world.instance(ada, "11111")
    other = await world.instance(ada, "22222")
    # Somebody else claims the same number, with a secret of their own.
    theirs = await world.instance(eve, "11111", appSecret="secret of eve")
    one, two = (a_value(number, messages=[a_text()]) for number in ("11111", "22222"))
    assert (await world.post(a_callback(one, two))).data == {"stored": 2}
    assert dict(await world.stored()) == {mine: [one], other: [two]}
    forged = a_value("11111", messages=[a_text("Forged")])
    assert (await world.post(a_callback(forged, two), "secret of eve")).data == {"stored": 1}
    assert (await world.stored())[2:] == [(theirs, [forged])]


async def test_a_batch_is_kept_whole_and_in_its_order(world: World) -> None:
    instance = await world.instance(await world.admin(), "11111")
    values = [a_value("11111", messages=[a_text(str(n)), a_text(f"{n}b")]) for n in range(4)]
    body = a_callback(*values[:2])
    body["entry"] += a_callback(*values[2:])["entry"]
    assert (await world.post(body)).data == {"stored": 1}
    assert await world.stored() == [(instance, values)]


async def test_the_same_callback_again_is_stored_once(world: World) -> None:
    await world.instance(await world.admin(), "11111")
    body = a_callback(a_value("11111", messages=[a_text()]))
    answers = await asyncio.gather(*(world.post(body) for _ in range(5)))
    assert sorted(one.data["stored"] for one in answers) == [0, 0, 0, 0, 1]
    assert len(await world.stored()) == 1
    assert world.gateway.metric("waypost_gateway_callbacks_total", outcome="doubled") == 4


async def test_what_concerns_no_message_is_taken_and_not_kept(world: World) -> None:
    await world.instance(await world.admin(), "11111")
    account = a_callback({"event": "PARTNER_ADDED"})
    account["entry"][0]["changes"][0]["field"] = "account_update"
    history = a_callback(a_value("11111", history=[]))
    history["entry"][0]["changes"][0]["field"] = "history"
    for body in (account, history):
        answer = await world.post(body)
        assert (answer.status, answer.data) == (200, {"stored": 0})
    assert await world.stored() == []
    assert (await world.post(account, "another secret")).status == 403


async def test_what_is_no_callback_is_refused_before_anything_is_asked(world: World) -> None:
    signature = {"X-Hub-Signature-256": "sha256=00"}
    headers = {**signature, "Content-Type": "application/json"}
    for raw in (b"", b"{", b"[]", b'{"object": 1, "entry": []}', b'{"object": "x"}'):
        assert (await world.raw(raw, headers)).code == "BAD_REQUEST"
    plain = await world.raw(b"{}", {**signature, "Content-Type": "text/plain"})
    assert plain.code == "UNSUPPORTED_MEDIA_TYPE"


async def test_what_meta_adds_one_day_is_kept_for_who_can_read_it(world: World) -> None:
    instance = await world.instance(await world.admin(), "11111")
    value = a_value("11111", messages=[a_text()], of_tomorrow={"a": [1, None]})
    body = {**a_callback(value), "new": True}
    body["entry"][0]["time"] = 1768478400
    assert (await world.post(body)).data == {"stored": 1}
    assert await world.stored() == [(instance, [value])]


async def test_words_that_no_database_takes_do_not_stop_a_callback(world: World) -> None:
    await world.instance(await world.admin(), "11111")
    texts = [a_text("a\x00b"), a_text(id="wamid.\x00")]
    assert (await world.post(a_callback(a_value("11111", messages=texts)))).status == 200
    numberless = a_callback(a_value("1\x001", messages=[a_text()]), business="1\x00")
    assert (await world.post(numberless)).status == 403


async def test_numbers_of_any_size_do_not_stop_a_callback(world: World) -> None:
    instance = await world.instance(await world.admin(), "11111")
    value = a_value("11111", messages=[a_text()], size=10**30)
    raw = json.dumps(a_callback(value)).encode()
    answer = await world.raw(raw, signature_of(raw))
    assert (answer.status, answer.data) == (200, {"stored": 1})
    [row] = await world.gateway.sql.fetch("SELECT * FROM sessions.callbacks")
    place = Place(row["tenant_id"], "sessions.callbacks", str(row["id"]))
    assert json.loads(RING.open(row["sealed"], place)) == {"values": [value]}
    assert row["instance_id"] == instance


async def test_a_stranger_cannot_have_a_gateway_look_for_ever(world: World) -> None:
    many = [a_value(str(number)) for number in range(10_000, 11_001)]
    answer = await world.post(a_callback(*many))
    assert (answer.status, answer.code) == (400, "BAD_REQUEST")


async def test_a_stranger_cannot_have_a_gateway_hash_for_ever(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin = await world.admin()
    for number in range(3):
        await world.instance(admin, "11111", appSecret=f"secret {number}")
    body = a_callback(a_value("11111", messages=[a_text()]))
    assert (await world.post(body, "secret 2")).status == 200
    monkeypatch.setattr(callbacks, "MOST_HASHED", 3 * len(signed(body)[0]) - 1)
    assert (await world.post(body, "secret 2")).code == "BAD_REQUEST"


@pytest.fixture
async def strict(database_url: str) -> AsyncIterator[World]:
    async with gateway_support.running(
        database_url,
        callback_max_body=64 * 1024,
        limit_callbacks_minute=6,
        limit_address_minute=3,
    ) as gateway:
        yield World(gateway)


async def test_a_callback_that_is_too_large_is_not_read(strict: World) -> None:
    body = a_callback(a_value("11111", messages=[a_text("x" * 70_000)]))
    answer = await strict.post(body)
    assert (answer.status, answer.code) == (413, "PAYLOAD_TOO_LARGE")


async def test_forgeries_are_limited_by_address_and_whatsapp_is_not_kept_out_by_them(
    strict: World,
) -> None:
    await strict.instance(await strict.admin(), "11111")
    body = a_callback(a_value("11111", messages=[a_text()]))
    refused = [await strict.post(body, "another secret") for _ in range(3)]
    # The account was made by a stranger too.
    assert [one.status for one in refused] == [403, 403, 429]
    assert (await strict.post(body)).status == 200
    assert (await strict.post(body)).headers["RateLimit-Limit"] == "6"
    assert (await strict.post(body)).status == 200
    late = await strict.post(body)
    assert (late.status, late.code) == (429, "RATE_LIMIT_EXCEEDED")
    assert int(late.headers["Retry-After"]) >= 1


async def test_nothing_is_answered_that_was_not_committed(world: World) -> None:
    await world.instance(await world.admin(), "11111")
    await world.gateway.sql.execute("REVOKE INSERT ON sessions.callbacks FROM waypost_gateway")
    answer = await world.post(a_callback(a_value("11111", messages=[a_text()])))
    assert answer.status == 500
    assert await world.gateway.count("gateway.outbox") == 0


# The settings that all this rests on


async def test_secrets_are_sealed_and_never_seen_again(world: World) -> None:
    admin = await world.admin()
    instance = await world.instance(admin, "11111")
    kept = await world.gateway.sql.fetchval("SELECT settings::text FROM gateway.instances")
    shown = (await admin.get(f"/api/instances/{instance}")).data
    config = (await admin.get(f"/api/instances/{instance}/config")).data
    assert shown["settings"] == {"phoneNumberId": "11111", "businessAccountId": BUSINESS}
    assert config["settings"] == shown["settings"] | dict.fromkeys(
        ("accessToken", "appSecret", "verifyToken"), "***"
    )
    audited = await world.gateway.sql.fetch("SELECT * FROM gateway.audit_logs")
    for text in (kept, str(shown), str(config), str([dict(row) for row in audited])):
        assert not any(secret in text for secret in SECRETS)
        assert sha256(VERIFY_TOKEN.encode()).hexdigest() not in text


async def test_a_deleted_instance_keeps_no_secret(world: World) -> None:
    admin = await world.admin()
    instance = await world.instance(admin, "11111")
    assert (await admin.call("DELETE", f"/api/instances/{instance}")).status == 200
    kept = await world.gateway.sql.fetchval("SELECT settings FROM gateway.instances")
    assert orjson.loads(kept) == {"phoneNumberId": "11111", "businessAccountId": BUSINESS}


async def test_a_secret_from_before_there_was_a_ring_is_sealed_when_settings_change(
    world: World,
) -> None:
    admin = await world.admin()
    instance = await world.instance(admin, "11111")
    await world.gateway.sql.execute(
        'UPDATE gateway.instances SET settings = settings || \'{"appSecret": "in the clear"}\''
    )
    same = {"phoneNumberId": "11111", "businessAccountId": BUSINESS}
    changed = await admin.call("PUT", f"/api/instances/{instance}", json={"settings": same})
    assert changed.status == 200
    kept = await world.gateway.sql.fetchval("SELECT settings::text FROM gateway.instances")
    assert "in the clear" not in kept
    body = a_callback(a_value("11111", messages=[a_text()]))
    assert (await world.post(body, "in the clear")).data == {"stored": 1}


async def test_secrets_that_are_left_out_stay_as_they_are(world: World) -> None:
    admin = await world.admin()
    instance = await world.instance(admin, "11111")
    moved = {"phoneNumberId": "22222", "businessAccountId": BUSINESS}
    path = f"/api/instances/{instance}"
    assert (await admin.call("PUT", path, json={"settings": moved})).status == 200
    body = a_callback(a_value("22222", messages=[a_text()]))
    assert (await world.post(body)).data == {"stored": 1}
    new = {**moved, "appSecret": "quite another"}
    assert (await admin.call("PUT", path, json={"settings": new})).status == 200
    assert (await world.post(body)).status == 403
    assert (await world.post(body, "quite another")).status == 200
    changes = await world.gateway.sql.fetch(
        "SELECT after FROM gateway.audit_logs WHERE action = 'instance.changed' ORDER BY at"
    )
    moving, replacing = [orjson.loads(row["after"]) for row in changes]
    assert moving["settings"]["phoneNumberId"] == "22222"
    assert moving.keys() == {"settings"}
    assert replacing == {"settingsReplaced": ["appSecret"]}


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"phoneNumberId": "+12025550142"}, "phoneNumberId"),
        ({"phoneNumberId": None}, "phoneNumberId"),
        ({"businessAccountId": ""}, "businessAccountId"),
        ({"accessToken": ""}, "accessToken"),
        ({"appSecret": None}, "appSecret"),
        ({"verifyToken": "short"}, "verifyToken"),
        ({"autoScan": True}, "autoScan"),
    ],
)
async def test_settings_that_no_number_has_are_refused(
    world: World, wrong: Json, field: str
) -> None:
    given = {**Meta().settings("11111"), **wrong}
    answer = await (await world.admin()).post(
        "/api/instances", {"name": "Cloud", "engine": "cloud_api", "settings": given}
    )
    assert (answer.status, answer.code) == (422, "VALIDATION_FAILED")
    assert list(answer.body["error"]["data"]["fields"]) == [f"settings.{field}"]


async def test_callbacks_from_one_network_of_ipv6_count_together(database_url: str) -> None:
    async with gateway_support.running(
        database_url, limit_callbacks_minute=2, trusted_proxies=1
    ) as gateway:
        whatsapp = gateway.stranger()

        async def ask(address: str) -> int:
            headers = {"X-Forwarded-For": address}
            return (await whatsapp.post("/api/webhooks/whatsapp", {}, headers=headers)).status

        assert [await ask(f"2001:db8::{n:x}") for n in range(1, 4)] == [403, 403, 429]
        assert await ask("2001:db8:0:1::1") == 403
