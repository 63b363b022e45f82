"""A customer with a number at Meta: each kind goes out, receipts and answers come back."""

import base64
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from tests.support import samples
from tests.support.customer import Answer, Customer, Sink
from tests.support.eventually import eventually
from tests.support.files import download
from tests.support.meta import Json, Meta, Sent, a_callback, a_message, a_status, a_text, a_value
from tests.support.meta import signed as signed_by_meta
from tests.support.system import System

pytestmark = pytest.mark.asyncio(loop_scope="session")

PATIENCE = timedelta(seconds=30)
ADA = "12025550142"


@dataclass(frozen=True)
class Party:
    """An instance of the Cloud API, whoever acts as it, and the Meta that it is at."""

    id: str
    number: str
    api: Customer
    stranger: Customer
    meta: Meta

    async def send(self, kind: str, **body: Any) -> str:
        """Send Ada a message of a kind; its id."""
        answer = await self.api.post(f"/api/messages/{kind}", {"to": f"+{ADA}", **body})
        assert answer.status == 202, answer.body
        return str(answer.data["id"])

    async def settled(self, message: str, status: str) -> Any:
        """A message once it has come so far."""

        async def there() -> Any:
            found = (await self.api.get(f"/api/messages/{message}")).data
            return found if found["status"] == status else None

        return await eventually(there, within=PATIENCE)

    def sent(self) -> list[Sent]:
        """What Meta was asked to send, in order."""
        return [sent for sent in self.meta.sent if sent.number == self.number]

    async def posted(self, *values: Json, secret: str | None = None) -> Answer:
        """Meta POSTs something about the number."""
        body = a_callback(*values)
        raw, headers = signed_by_meta(body) if secret is None else signed_by_meta(body, secret)
        return await self.stranger.call("POST", "/api/webhooks/whatsapp", data=raw, headers=headers)


async def party(customer: Customer, meta: Meta) -> Party:
    """A new number, connected, with a key that may send from it."""
    number = meta.add_number()
    made = await customer.post(
        "/api/instances",
        {"name": "Shop", "engine": "cloud_api", "settings": meta.settings(number)},
    )
    at = f"/api/instances/{made.data['id']}"
    (await customer.post(f"{at}/connect")).data  # noqa: B018 - asserts success
    key = await customer.post(f"{at}/keys", {"name": "test", "rateLimit": 1_000_000})

    async def ready() -> Any:
        found = (await customer.get(f"{at}/status")).data
        assert found["lastError"] is None, found
        return found["status"] == "ready"

    await eventually(ready, within=PATIENCE)
    api = customer.with_key(key.data["key"])
    stranger = customer.with_key("")
    stranger.headers = {}
    return Party(made.data["id"], number, api, stranger, meta)


async def told(sink: Sink, event: str, count: int = 1) -> list[dict[str, Any]]:
    """The data of the first ``count`` events of a name."""

    async def there() -> Any:
        found = [payload["data"] for _, payload in sink.got if payload["event"] == event]
        return found if len(found) >= count else None

    found: list[dict[str, Any]] = await eventually(there, within=PATIENCE)
    return found


async def test_each_kind_goes_out_and_its_receipts_and_answers_come_back(
    customer: Customer, meta: Meta, sink: Sink
) -> None:
    shop = await party(customer, meta)
    await customer.webhook(shop.id, sink.url, "message.*")
    tested = await customer.post(f"/api/instances/{shop.id}/test-connection")
    assert tested.data["businessName"] == "Example Ltd"

    files = {
        "image": samples.png("cloud"),
        "video": samples.MP4,
        "audio": samples.MP3,
        "voice": samples.VOICE,
        "document": samples.PDF,
        "sticker": samples.WEBP,
    }
    sent = {"text": await shop.send("text", message="Hello")}
    for kind, content in files.items():
        sent[kind] = await shop.send(kind, base64=base64.b64encode(content).decode())
    sent["location"] = await shop.send("location", latitude=52.5, longitude=13.4)
    sent["contact"] = await shop.send("contact", name="Bob", phones=["+12025550199"])
    for message in sent.values():
        await shop.settled(message, "sent")
    first = (await customer.get(f"/api/messages/{sent['text']}")).data
    reaction = await customer.post(
        "/api/messages/reaction",
        {"instanceId": shop.id, "messageId": first["id"], "emoji": "👍"},
    )
    await shop.settled(reaction.data["id"], "sent")
    answer = await shop.send("text", message="Still there?", replyTo=first["id"])
    await shop.settled(answer, "sent")

    out = shop.sent()
    assert [one.body["type"] for one in out] == [
        *("text", "image", "video", "audio", "audio", "document", "sticker"),
        *("location", "contacts", "reaction", "text"),
    ]
    for one, content in zip(out[1:7], files.values(), strict=True):
        assert meta.files[one.body[one.body["type"]]["id"]][0] == content
    assert out[9].body["reaction"] == {"message_id": out[0].id, "emoji": "👍"}
    assert out[10].body["context"] == {"message_id": out[0].id}

    # Meta tells how far each came: in a batch, in the wrong order, and twice.
    statuses = [a_status(one, status) for one in out for status in ("read", "delivered", "sent")]
    for _ in range(2):
        assert (await shop.posted(a_value(shop.number, statuses=statuses))).status == 200
    for message in sent.values():
        await shop.settled(message, "read")
    assert len(await told(sink, "message.read", len(out))) == len(out)

    # Ada answers, with a picture too; Meta posts it all twice.
    picture = samples.png("from ada")
    photo = {"id": meta.add_file(picture, "image/png"), "mime_type": "image/png", "caption": "Me"}
    messages = [
        a_text("Yes", by=ADA, context={"from": "1", "id": out[10].id}),
        a_message("image", photo, by=ADA),
    ]
    for _ in range(2):
        assert (await shop.posted(a_value(shop.number, messages=messages))).status == 200
    received = await told(sink, "message.received", 2)
    assert [one["content"].get("text", one["content"].get("caption")) for one in received] == [
        "Yes",
        "Me",
    ]
    assert {one["from"] for one in received} == {f"+{ADA}"}
    assert received[0]["replyTo"] == out[10].id
    assert received[0]["identity"]["pushName"] == "Ada"
    media = received[1]["content"]["mediaId"]

    async def stored() -> bool:
        return bool((await shop.api.get(f"/api/media/{media}")).data["status"] == "stored")

    await eventually(stored, within=PATIENCE)
    assert (await download(shop.api, media)).body == picture
    listed = (await shop.api.get("/api/messages?direction=inbound")).data
    assert sorted(one["id"] for one in listed) == sorted(one["messageId"] for one in received)
    read = await shop.api.post("/api/messages/read", {"messageIds": [received[0]["messageId"]]})
    assert read.status == 202

    async def marked() -> bool:
        return any(mark["message_id"] == messages[0]["id"] for mark in meta.marks)

    await eventually(marked, within=PATIENCE)


async def test_what_meta_takes_back_fails_with_its_reason(
    customer: Customer, meta: Meta, sink: Sink
) -> None:
    shop = await party(customer, meta)
    await customer.webhook(shop.id, sink.url, "message.*")
    message = await shop.send("text", message="Hello")
    await shop.settled(message, "sent")
    error = {"code": 131047, "title": "Re-engagement message"}
    failed = a_status(shop.sent()[0], "failed", errors=[error])
    assert (await shop.posted(a_value(shop.number, statuses=[failed]))).status == 200
    shown = await shop.settled(message, "failed")
    assert shown["error"]["code"] == "REJECTED"
    assert "(131047)" in shown["error"]["message"]
    [event] = await told(sink, "message.failed")
    assert event["error"] == shown["error"]
    hops = (await shop.api.get(f"/api/messages/{message}/timeline")).data
    assert {"accepted", "handed_over", "sent", "failed"} <= {hop["hop"] for hop in hops}


async def test_nobody_but_meta_is_believed(
    customer: Customer, system: System, meta: Meta, sink: Sink
) -> None:
    shop = await party(customer, meta)
    await customer.webhook(shop.id, sink.url, "message.received")
    value = a_value(shop.number, messages=[a_text("Forged", by=ADA)])
    forged = await shop.posted(value, secret="another secret")
    assert (forged.status, forged.code) == (403, "WEBHOOK_VERIFICATION_FAILED")
    honest = a_value(shop.number, messages=[a_text("Honest", by=ADA)])
    assert (await shop.posted(honest)).status == 200
    [received] = await told(sink, "message.received")
    assert received["content"]["text"] == "Honest"


async def test_what_meta_cannot_do_is_said_before_anything_is_accepted(
    customer: Customer, meta: Meta
) -> None:
    shop = await party(customer, meta)
    poll = await shop.api.post(
        "/api/messages/poll", {"to": f"+{ADA}", "question": "Tea?", "options": ["Yes", "No"]}
    )
    assert (poll.status, poll.code) == (422, "VALIDATION_FAILED")
    assert "cannot send polls" in poll.body["error"]["message"]
    checked = await shop.api.post("/api/contacts/check", {"numbers": [f"+{ADA}"]})
    assert checked.status == 422
    code = await customer.get(f"/api/instances/{shop.id}/qr")
    assert (code.status, code.code) == (422, "VALIDATION_FAILED")
    assert "cannot be paired by a QR code" in code.body["error"]["message"]
