"""The same key with the same body is done once."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg

from tests.support import gateway as gateway_support
from tests.support.builders import an_instance
from tests.support.customer import Answer
from tests.support.eventually import eventually
from tests.support.gateway import Gateway, Sender

KEY = {"Idempotency-Key": "order-1042"}


async def text(sender: Sender, message: str = "once", **more: Any) -> Answer:
    return await sender.text(message=message, headers={**KEY, **more})


async def test_a_text_that_is_sent_again_is_answered_as_the_first_time(
    gateway: Gateway, sender: Sender
) -> None:
    first = await text(sender)
    again = await text(sender)
    assert first.status == again.status == 202
    assert again.body == first.body
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    assert await gateway.count("dispatcher.messages") == 1


async def test_another_body_under_the_same_key_is_refused(gateway: Gateway, sender: Sender) -> None:
    await text(sender)
    for message in ("twice", "once "):
        refused = await text(sender, message)
        assert (refused.status, refused.code) == (422, "IDEMPOTENCY_MISMATCH")
    assert await gateway.count("dispatcher.messages") == 1


async def test_the_same_meaning_in_other_words_is_the_same_body(sender: Sender) -> None:
    first = await text(sender)
    raw = b'{ "message" : "once",\n "to": "+1 202 555 0199" }'
    again = await sender.customer.call(
        "POST", "/api/messages/text", data=raw, headers={**KEY, "Content-Type": "application/json"}
    )
    assert again.data == first.data


async def test_a_key_on_another_route_is_another_request(gateway: Gateway, sender: Sender) -> None:
    await text(sender)
    refused = await sender.customer.post(
        "/api/webhook", {"url": "http://127.0.0.1:9999/hook"}, headers=KEY
    )
    assert (refused.status, refused.code) == (422, "IDEMPOTENCY_MISMATCH")
    assert await gateway.count("gateway.webhooks") == 0


async def test_while_the_first_is_in_flight_others_are_told_so(
    gateway: Gateway, sender: Sender
) -> None:
    answers = await asyncio.gather(*(text(sender) for _ in range(10)))
    assert {answer.status for answer in answers} <= {202, 409}
    accepted = {answer.data["id"] for answer in answers if answer.status == 202}
    assert len(accepted) == 1
    assert {answer.code for answer in answers if answer.status == 409} <= {"CONFLICT"}
    assert await gateway.count("dispatcher.messages") == 1


async def test_two_replicas_accept_one_of_two(database_url: str, gateway: Gateway) -> None:
    sender = await gateway.sender()
    async with gateway_support.running(database_url) as other:
        elsewhere = Sender(
            other.stranger().with_key(sender.customer.headers["X-API-Key"]),
            sender.instance,
            sender.tenant,
        )
        for number in range(5):
            answers = await asyncio.gather(
                *(
                    who.text(headers={"Idempotency-Key": f"both-{number}"})
                    for who in (sender, elsewhere, sender, elsewhere)
                )
            )
            assert {answer.status for answer in answers} <= {202, 409}
            assert len({answer.data["id"] for answer in answers if answer.status == 202}) == 1
            assert await gateway.count("dispatcher.messages") == number + 1


async def test_keys_of_two_instances_are_two_keys(gateway: Gateway) -> None:
    first = await gateway.sender()
    instance = await an_instance(gateway.sql, first.tenant)
    customer, _ = await gateway.key(instance, first.tenant)
    second = Sender(customer, instance, first.tenant)
    assert (await text(first)).data["id"] != (await text(second)).data["id"]


async def test_tenants_do_not_share_keys(gateway: Gateway, sender: Sender) -> None:
    other = await gateway.sender()
    assert (await text(sender)).data["id"] != (await text(other)).data["id"]


async def test_a_key_is_forgotten_after_a_day(gateway: Gateway, sender: Sender) -> None:
    first = await text(sender)
    gateway.clock.move(timedelta(hours=23))
    assert (await text(sender)).data == first.data
    gateway.clock.move(timedelta(hours=2))
    later = await text(sender, "something else")
    assert later.status == 202
    assert later.data["id"] != first.data["id"]
    assert (await text(sender, "something else")).data == later.data


async def test_the_first_answer_stands_although_the_instance_is_gone_since(
    gateway: Gateway, sender: Sender
) -> None:
    first = await text(sender)
    await gateway.sql.execute("UPDATE sessions.session_states SET status = 'banned'")
    gateway.clock.move(timedelta(seconds=2))
    assert (await text(sender)).data == first.data
    assert (await sender.text(headers={"Idempotency-Key": "new"})).status == 409


async def test_what_was_refused_may_be_tried_again_under_its_key(
    gateway: Gateway, sender: Sender
) -> None:
    refused = await sender.text(to="nobody", headers=KEY)
    assert refused.status == 422
    assert (await text(sender)).status == 202


async def test_a_key_must_be_printable_and_short(gateway: Gateway, sender: Sender) -> None:
    for key in ("x" * 256, "ü", "a\tb"):
        refused = await sender.text(headers={"Idempotency-Key": key})
        assert (refused.status, refused.code) == (400, "BAD_REQUEST")
    assert await gateway.count("dispatcher.messages") == 0


async def test_a_row_that_cannot_be_stored_fails_its_own_request_alone(
    gateway: Gateway, sender: Sender
) -> None:
    await gateway.sql.execute(
        "ALTER TABLE dispatcher.messages ADD CONSTRAINT picky CHECK (recipient <> '+12025550142')"
    )
    answers = await asyncio.gather(
        *(sender.text(to=f"+120255501{number}") for number in range(40, 50))
    )
    assert sorted(answer.status for answer in answers) == [202] * 9 + [500]
    failed = next(answer for answer in answers if answer.status == 500)
    assert failed.code == "INTERNAL_SERVER_ERROR"
    assert "picky" not in str(failed.body)
    assert await gateway.count("dispatcher.messages") == 9


async def test_while_another_transaction_holds_the_key_the_answer_is_conflict(
    database_url: str, gateway: Gateway
) -> None:
    ada, account = await gateway.register()
    instance = await an_instance(gateway.sql, UUID(account["organization"]["id"]))
    path, headers = f"/api/instances/{instance}/keys", {"Idempotency-Key": "k"}
    held = await asyncpg.connect(database_url)
    try:
        async with held.transaction():
            # The row of the instance is locked, so the first request waits in its transaction.
            await held.execute("SELECT FROM gateway.instances FOR UPDATE")
            first = asyncio.create_task(ada.post(path, {"name": "a"}, headers=headers))
            await eventually(
                lambda: held.fetchval(
                    "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted"
                )
            )
            second = await ada.post(path, {"name": "a"}, headers=headers)
            assert (second.status, second.code) == (409, "CONFLICT")
        assert (await first).status == 201
    finally:
        await held.close()
