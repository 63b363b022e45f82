"""What the README promises, as a customer sees it."""

import asyncio
import os
import sys
from datetime import timedelta
from typing import Any

import pytest
import standardwebhooks

from tests.support.customer import Customer, Sink, together
from tests.support.eventually import eventually
from tests.support.system import ROOT, System

pytestmark = pytest.mark.asyncio(loop_scope="session")

ECHO = "+12025550108"


async def test_a_message_is_sent_delivered_read_answered_told_and_counted(
    customer: Customer, sink: Sink
) -> None:
    instance = await customer.instance()
    hook = await customer.webhook(instance["id"], sink.url, "message.*")
    sender = customer.with_key(instance["key"])
    accepted = await sender.text(ECHO, "Hello")
    assert accepted.status == 202
    assert accepted.data["status"] == "queued"
    assert accepted.data["to"] == ECHO
    message = accepted.data["id"]
    assert (await sender.get(f"/api/messages/{message}")).status == 200

    async def all_told() -> bool:
        return {"message.sent", "message.delivered", "message.read"} <= set(
            sink.events(message)
        ) and "message.received" in sink.events()

    await eventually(all_told, within=timedelta(seconds=20))
    [sent] = [(h, p) for h, p in sink.got if p["event"] == "message.sent"]
    assert sent[1]["instance"]["id"] == instance["id"]
    assert sent[1]["data"]["to"] == ECHO
    [answer] = [p for _, p in sink.got if p["event"] == "message.received"]
    assert answer["data"]["from"] == ECHO
    assert answer["data"]["content"]["text"] == "Hello"
    assert answer["data"]["identity"]["phone"] == ECHO
    assert len(sink.events(message)) == 3
    assert hook["secret"].startswith("whsec_")

    shown = (await sender.get(f"/api/messages/{message}")).data
    assert shown["status"] == "read"
    listed = (await sender.get("/api/messages?direction=inbound")).data
    assert [one["id"] for one in listed] == [answer["data"]["messageId"]]

    async def counted() -> Any:
        return (await customer.get("/api/stats")).data["today"] == {"sent": 1, "received": 1}

    await eventually(counted)

    async def attempts_shown() -> Any:
        hops = (await sender.get(f"/api/messages/{message}/timeline")).data
        names = [hop["hop"] for hop in hops]
        return names[0] == "accepted" and {"sent", "delivered", "read"} <= set(names) and names

    await eventually(attempts_shown)


async def test_every_delivery_of_a_message_is_signed_so_that_others_can_verify_it(
    customer: Customer, sink: Sink
) -> None:
    instance = await customer.instance()
    hook = await customer.webhook(instance["id"], sink.url)
    tested = await customer.post(f"/api/instances/{instance['id']}/webhook/test")
    assert tested.data["success"] is True
    assert tested.data["statusCode"] == 200
    headers, payload = sink.got[-1]
    assert payload["event"] == "test"
    verifier = standardwebhooks.Webhook(hook["secret"])
    verifier.verify(sink.raw[-1], headers)
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        verifier.verify(sink.raw[-1] + b" ", headers)


async def test_two_instances_talk_to_each_other(customer: Customer, sink: Sink) -> None:
    alice, bob = await customer.instance(), await customer.instance()
    await customer.webhook(bob["id"], sink.url, "message.received")
    sender = customer.with_key(alice["key"])
    messages = [(await sender.text(bob["phoneNumber"], f"number {n}")).data["id"] for n in range(5)]

    async def read() -> bool:
        found = [(await sender.get(f"/api/messages/{id_}")).data["status"] for id_ in messages]
        return found == ["read"] * 5 and len(sink.got) == 5

    await eventually(read, within=timedelta(seconds=30))
    texts = [payload["data"]["content"]["text"] for _, payload in sink.got]
    assert sorted(texts) == [f"number {n}" for n in range(5)]
    assert {payload["data"]["from"] for _, payload in sink.got} == {alice["phoneNumber"]}
    listed = (await customer.with_key(bob["key"]).get("/api/messages?limit=50")).data
    assert [one["content"]["text"] for one in reversed(listed)] == [f"number {n}" for n in range(5)]


async def test_magic_numbers_do_what_the_documentation_says(customer: Customer) -> None:
    instance = await customer.instance(settings={"unconfirmedAfter": 2})
    sender = customer.with_key(instance["key"])
    expected = {
        "+12025550101": ("failed", "NOT_ON_WHATSAPP"),
        "+12025550102": ("failed", "REJECTED"),
        "+12025550103": ("read", None),
        "+12025550105": ("failed", "UNCONFIRMED"),
        "+12025550106": ("delivered", None),
        "+12025550107": ("sent", None),
        "+12025550109": ("read", None),
        "+12025550113": ("read", None),
        "+12025550199": ("read", None),
    }
    answers = await together(*(sender.text(number, "x") for number in expected))
    ids = [answer.data["id"] for answer in answers]

    async def as_expected() -> bool:
        found = []
        for id_ in ids:
            shown = (await sender.get(f"/api/messages/{id_}")).data
            found.append((shown["status"], (shown.get("error") or {}).get("code")))
        assert found == list(expected.values())
        return True

    await eventually(as_expected, within=timedelta(seconds=40))


@pytest.mark.parametrize(
    ("number", "status"), [("+12025550110", "banned"), ("+12025550111", "logged_out")]
)
async def test_numbers_that_end_the_sending_instance(
    customer: Customer, sink: Sink, number: str, status: str
) -> None:
    instance = await customer.instance()
    await customer.webhook(instance["id"], sink.url, "instance.*")
    sender = customer.with_key(instance["key"])
    message = (await sender.text(number, "x")).data["id"]

    async def ended() -> bool:
        shown = (await customer.get(f"/api/instances/{instance['id']}/status")).data
        assert shown["status"] == status
        assert (await sender.get(f"/api/messages/{message}")).data["status"] == "failed"
        return "instance.disconnected" in sink.events()

    await eventually(ended, within=timedelta(seconds=20))

    async def refused() -> bool:
        # The gateway may believe for a second more that the instance is ready; what it accepts
        # meanwhile fails as the message above did.
        answer = await sender.text("+12025550199", "x")
        return answer.status == 409 and answer.code == "INSTANCE_NOT_READY"

    await eventually(refused)


async def test_the_same_key_and_body_answer_the_same_and_send_once(customer: Customer) -> None:
    instance = await customer.instance()
    sender = customer.with_key(instance["key"])
    headers = {"Idempotency-Key": "order-1"}
    first = await sender.text("+12025550199", "once", headers=headers)
    again = await sender.text("+12025550199", "once", headers=headers)
    assert again.data == first.data
    assert again.headers["Idempotency-Replayed"] == "true"
    other = await sender.text("+12025550199", "twice", headers=headers)
    assert (other.status, other.code) == (422, "IDEMPOTENCY_MISMATCH")
    assert len((await sender.get("/api/messages")).data) == 1


async def test_a_subscriber_that_was_away_catches_up_from_its_cursor(customer: Customer) -> None:
    instance = await customer.instance()
    sender = customer.with_key(instance["key"])
    message = (await sender.text("+12025550199", "x")).data["id"]

    async def read() -> bool:
        return bool((await sender.get(f"/api/messages/{message}")).data["status"] == "read")

    await eventually(read)
    seen: list[str] = []

    async def caught_up() -> bool:
        after = ""
        seen.clear()
        while True:
            page = await customer.get(f"/api/events?types=message.*&limit=1{after}")
            seen.extend(event["type"] for event in page.data)
            if not page.body["pagination"]["hasMore"]:
                break
            after = f"&after={page.body['pagination']['nextCursor']}"
        return len(seen) == 3

    await eventually(caught_up)
    assert sorted(seen) == [
        "dev.waypost.message.delivered.v1",
        "dev.waypost.message.read.v1",
        "dev.waypost.message.sent.v1",
    ]


async def test_a_guard_paces_a_burst_and_the_timeline_says_so(customer: Customer) -> None:
    instance = await customer.instance()
    limits = {"perMinute": 2, "perHour": 0, "perDay": 0}
    set_ = await customer.call("PUT", f"/api/instances/{instance['id']}/guard", json=limits)
    assert set_.status == 200, set_.body
    sender = customer.with_key(instance["key"])
    ids = [(await sender.text(f"+1202555019{n}", "x")).data["id"] for n in range(4)]

    async def two_sent() -> bool:
        found = [(await sender.get(f"/api/messages/{id_}")).data["status"] for id_ in ids]
        assert found[2:] == ["queued", "queued"]
        return found[:2] == ["read", "read"]

    await eventually(two_sent, within=timedelta(seconds=20))
    usage = (await customer.get(f"/api/instances/{instance['id']}/guard")).data["usage"]
    assert usage["perMinute"]["used"] == 2
    assert usage["perMinute"]["remaining"] == 0


async def test_the_examples_of_the_documentation_run(system: System) -> None:
    for command in (
        [sys.executable, "docs/examples/demo.py", system.url],
        ["docs/examples/first-message.sh", system.url],
    ):
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=ROOT,
            env=dict(os.environ),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        assert process.returncode == 0, output.decode()
