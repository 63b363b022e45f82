"""Everything that a linked device can do, between two instances of one customer."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio

from tests.support import samples
from tests.support.customer import Answer, Customer, Sink
from tests.support.eventually import eventually
from tests.support.files import download, form, upload

pytestmark = pytest.mark.asyncio(loop_scope="session")

PATIENCE = timedelta(seconds=30)
PNG = samples.png("e2e")


@dataclass
class Party:
    """One instance, and whoever acts as it."""

    id: str
    number: str
    api: Customer

    async def send(self, kind: str, **body: Any) -> str:
        """Send a message of a kind; its id."""
        return accepted(await self.api.post(f"/api/messages/{kind}", body))

    async def shown(self, message: str) -> Any:
        """A message as the API shows it."""
        return (await self.api.get(f"/api/messages/{message}")).data

    async def settled(self, message: str, *statuses: str) -> Any:
        """The same, once its status is one of these."""

        async def there() -> Any:
            found = await self.shown(message)
            assert found["error"] is None, found
            return found if found["status"] in statuses else None

        return await eventually(there, within=PATIENCE)


def accepted(answer: Answer) -> str:
    assert answer.status == 202, answer.body
    return str(answer.data["id"])


@pytest_asyncio.fixture(loop_scope="session")
async def alice(customer: Customer) -> Party:
    return await party(customer)


@pytest_asyncio.fixture(loop_scope="session")
async def bob(customer: Customer, sink: Sink) -> Party:
    """Whoever is written to; everything that is received goes to the sink."""
    made = await party(customer)
    await customer.webhook(made.id, sink.url, "message.*")
    return made


async def party(customer: Customer) -> Party:
    made = await customer.instance()
    return Party(made["id"], made["phoneNumber"], customer.with_key(made["key"]))


async def told(sink: Sink, event: str, count: int = 1) -> list[dict[str, Any]]:
    """The data of the first ``count`` events of a name."""

    async def there() -> Any:
        found = [payload["data"] for _, payload in sink.got if payload["event"] == event]
        return found if len(found) >= count else None

    found: list[dict[str, Any]] = await eventually(there, within=PATIENCE)
    return found


async def test_each_kind_of_message_arrives_as_it_was_sent(
    alice: Party, bob: Party, sink: Sink
) -> None:
    to = bob.number
    sent = {
        "text": await alice.send("text", to=to, message="Hello"),
        "location": await alice.send("location", to=to, latitude=52.5, longitude=13.4),
        "contact": await alice.send("contact", to=to, name="Ada", phones=["+12025550142"]),
        "poll": await alice.send("poll", to=to, question="When?", options=["Today", "Never"]),
    }
    for kind, message in sent.items():
        assert (await alice.settled(message, "delivered", "read"))["type"] == kind
    received = {one["messageType"]: one for one in await told(sink, "message.received", 4)}
    assert set(received) == set(sent)
    assert {one["from"] for one in received.values()} == {alice.number}
    said = {kind: one["content"] for kind, one in received.items()}
    assert said["text"]["text"] == "Hello"
    assert (said["location"]["latitude"], said["location"]["longitude"]) == (52.5, 13.4)
    assert said["contact"]["phones"] == ["+12025550142"]
    assert said["poll"]["options"] == ["Today", "Never"]


async def test_files_arrive_byte_for_byte_by_whichever_way_they_were_brought(
    alice: Party, bob: Party, sink: Sink
) -> None:
    body = form(PNG, field="image", fields={"to": bob.number, "caption": "Look"})
    image = accepted(await alice.api.call("POST", "/api/messages/image", data=body))
    uploaded = await upload(alice.api, samples.PDF, filename="offer.pdf")
    document = await alice.send("document", to=bob.number, mediaId=uploaded.data["id"])
    voice = await alice.send(
        "voice",
        to=bob.number,
        base64="T2dnUwACAAAAAAAAAAAAAAAAAAAAAAAAAAABE09wdXNIZWFkAQE4AYC7AAAAAAA=",
    )
    for message in (image, document, voice):
        await alice.settled(message, "delivered", "read")
    received = {one["messageType"]: one for one in await told(sink, "message.received", 3)}
    assert set(received) == {"image", "document", "voice"}
    assert received["image"]["content"]["caption"] == "Look"
    for kind, content in (("image", PNG), ("document", samples.PDF)):
        media = received[kind]["content"]["mediaId"]

        async def stored(media: str = media) -> bool:
            return bool((await bob.api.get(f"/api/media/{media}")).data["status"] == "stored")

        await eventually(stored, within=PATIENCE)
        assert (await download(bob.api, media)).body == content


async def test_reactions_edits_and_revocations_are_seen_on_both_sides(
    alice: Party, bob: Party, sink: Sink
) -> None:
    message = await alice.send("text", to=bob.number, message="Helo")
    await alice.settled(message, "delivered", "read")
    [received] = await told(sink, "message.received")
    theirs = received["messageId"]

    answer = await bob.send("text", to=alice.number, message="Hi", replyTo=theirs)
    await bob.settled(answer, "delivered", "read")
    reaction = await alice.send("reaction", messageId=message, emoji="👍")
    edit = accepted(
        await alice.api.call("PUT", f"/api/messages/{message}", json={"message": "Hello"})
    )
    await alice.settled(edit, "sent", "delivered", "read")
    revocation = accepted(await alice.api.call("DELETE", f"/api/messages/{message}"))
    await alice.settled(revocation, "sent", "delivered", "read")
    assert (await alice.shown(reaction))["targetId"] == message

    for party, id_ in ((alice, message), (bob, theirs)):

        async def changed(party: Party = party, id_: str = id_) -> Any:
            found = await party.shown(id_)
            return found["revokedAt"] and found["editedAt"] and found

        shown = await eventually(changed, within=PATIENCE)
        assert (shown["content"], shown["contentErased"]) == (None, True)
        hops = (await party.api.get(f"/api/messages/{id_}/timeline")).data
        assert {"edited", "revoked"} <= {hop["hop"] for hop in hops}
    [seen] = await told(sink, "message.edited")
    assert (seen["messageId"], seen["content"]["text"]) == (theirs, "Hello")
    [gone] = await told(sink, "message.revoked")
    assert gone["messageId"] == theirs
    [reacted] = await told(sink, "message.reaction")
    assert (reacted["messageId"], reacted["emoji"]) == (theirs, "👍")
    late = await alice.api.call("PUT", f"/api/messages/{message}", json={"message": "Late"})
    assert (late.status, late.code) == (409, "CONFLICT")


async def test_a_contact_that_edits_and_revokes_is_kept_up_with(
    customer: Customer, bob: Party
) -> None:
    path = f"/api/sandbox/instances/{bob.id}/inbound"
    contact = {"from": "+12025550142"}
    first = (await customer.post(path, {**contact, "message": "Helo"})).data["messageId"]

    async def received() -> Any:
        return (await bob.api.get(f"/api/messages/{first}")).status == 200

    await eventually(received, within=PATIENCE)
    for change in ({"action": "edit", "message": "Hello"}, {"action": "revoke"}):
        done = await customer.post(path, {**contact, "messageId": first, **change})
        assert done.status == 202, done.body

    async def changed() -> Any:
        found = await bob.shown(first)
        return found["revokedAt"] and found["editedAt"] and found["contentErased"]

    await eventually(changed, within=PATIENCE)
    read = await bob.api.post("/api/messages/read", {"messageIds": [first]})
    assert read.status == 202
    typing = await bob.api.post("/api/chats/presence", {"to": "+12025550142", "state": "typing"})
    assert typing.status == 202


async def test_instances_answer_about_numbers_themselves_and_their_groups(
    customer: Customer, alice: Party, bob: Party, sink: Sink
) -> None:
    checked = await alice.api.post(
        "/api/contacts/check", {"numbers": [bob.number, "+12025550101", "nobody"]}
    )
    assert [(one["valid"], one["onWhatsApp"]) for one in checked.data] == [
        (True, True),
        (True, False),
        (False, False),
    ]
    profile = await customer.get(f"/api/instances/{alice.id}/profile")
    assert profile.data["identity"]["phone"] == alice.number

    made = await alice.api.post("/api/groups", {"name": "Friends", "members": [bob.number]})
    assert made.status == 201, made.body
    group = made.data["id"]
    assert [one["id"] for one in (await bob.api.get("/api/groups")).data] == [group]
    message = await alice.send("text", to=group, message="All of you")
    await alice.settled(message, "sent", "delivered", "read")
    [received] = await told(sink, "message.received")
    assert received["from"] == alice.number
    listed = await bob.api.get(f"/api/messages?contact={group}")
    assert [one["id"] for one in listed.data] == [received["messageId"]]
    reaction = await bob.send("reaction", messageId=received["messageId"], emoji="👍")
    assert (await bob.settled(reaction, "sent", "delivered", "read"))["to"] == group
    link = await alice.api.get(f"/api/groups/{group}/invite-link")
    renewed = await alice.api.post(f"/api/groups/{group}/invite-link")
    assert link.data["url"] != renewed.data["url"]
    left = await bob.api.call("DELETE", f"/api/groups/{group}")
    assert left.status == 200, left.body
    assert (await bob.api.get(f"/api/groups/{group}")).status == 404


async def test_a_phone_is_linked_by_a_code(customer: Customer) -> None:
    made = await customer.post(
        "/api/instances",
        {"name": "By code", "engine": "sandbox", "settings": {"autoScan": False}},
    )
    at = f"/api/instances/{made.data['id']}"
    too_early = await customer.post(f"{at}/pairing-code", {"phoneNumber": "+12025550177"})
    assert (too_early.status, too_early.body["error"]["data"]) == (409, {"status": "created"})
    await customer.post(f"{at}/connect")

    async def waits() -> Any:
        return (await customer.get(f"{at}/status")).data["status"] == "qr"

    await eventually(waits, within=PATIENCE)
    code = await customer.post(f"{at}/pairing-code", {"phoneNumber": "+12025550177"})
    assert code.status == 200, code.body
    assert len(code.data["code"]) == 9
    await customer.post(f"/api/sandbox/instances/{made.data['id']}/scan")

    async def ready() -> Any:
        found = (await customer.get(f"{at}/status")).data
        return found["status"] == "ready" and found

    assert (await eventually(ready, within=PATIENCE))["phoneNumber"] == "+12025550177"
    too_late = await customer.post(f"{at}/pairing-code", {"phoneNumber": "+12025550177"})
    assert (too_late.status, too_late.body["error"]["data"]) == (409, {"status": "ready"})
    assert (await customer.get(f"{at}/qr")).code == "CONFLICT"
