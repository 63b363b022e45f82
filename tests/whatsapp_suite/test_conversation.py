"""A customer's Waypost talks with a contact of an independent implementation, over WhatsApp.

Waypost is the one that ``make run`` starts, its engine the unmodified neonize, and the contact is
Baileys; only the server between them is ours. What is checked is what each side was told: the
contact by WhatsApp, the customer by the API and by signed webhooks.
"""

import base64
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
import standardwebhooks

from tests.support import system as systems
from tests.support.customer import Customer, Sink
from tests.support.eventually import eventually
from tests.support.system import System
from tests.support.whatsapp import WhatsApp, linked, ready, waypost_environment
from tests.support.whatsapp_contact import Contact
from tests.support.whatsapp_files import (
    AUDIO,
    DOCUMENT,
    IMAGE,
    SAMPLES,
    STICKER,
    VIDEO,
    VOICE,
    Sample,
)

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

ADA, BEN, OURS, OTHER = "12025550171", "12025550172", "12025550180", "12025550181"
WITHIN = timedelta(seconds=30)

Data = dict[str, Any]


@dataclass(frozen=True)
class Talk:
    """The customer with an instance on one side, Ada on the other."""

    whatsapp: WhatsApp
    owner: Customer
    instance: Data
    customer: Customer
    sink: Sink
    secret: str
    ada: Contact

    async def hook(
        self, event: str, matching: Callable[[Data], bool] = lambda data: True, **facts: object
    ) -> Data:
        """The data of the first webhook with these facts; its signature has been verified."""

        async def come() -> Data | None:
            for (headers, payload), raw in zip(self.sink.got, self.sink.raw, strict=True):
                data = payload["data"]
                if payload["event"] != event or not matching(data):
                    continue
                if all(data.get(name) == value for name, value in facts.items()):
                    standardwebhooks.Webhook(self.secret).verify(raw, headers)
                    return dict(data)
            return None

        found = await eventually(come, within=WITHIN)
        assert found is not None
        return found

    async def say(self, path: str, body: Data) -> str:
        """Send by the API; returns Waypost's id of the message."""
        answer = await self.customer.post(f"/api/messages/{path}", {"to": f"+{ADA}", **body})
        assert answer.status == 202, answer.body
        return str(answer.data["id"])

    async def hear(self, message: str, **facts: Any) -> Data:
        """What Ada heard of a message that was sent by the API, once it is known as sent."""
        sent = await self.hook("message.sent", messageId=message)
        return await self.ada.next("message", id=sent["engineMessageId"], **facts)

    async def received(self, engine_message_id: str) -> Data:
        """The webhook for something that Ada said."""
        return await self.hook("message.received", engineMessageId=engine_message_id)

    async def status_is(self, message: str, status: str) -> None:
        """Return once a message has come so far."""

        async def so() -> bool:
            shown = (await self.customer.get(f"/api/messages/{message}")).data
            assert shown["status"] == status, shown
            return True

        await eventually(so, within=WITHIN)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def whatsapp(
    contacts_installed: None, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[WhatsApp]:
    async with WhatsApp.running(tmp_path_factory.mktemp("whatsapp")) as server:
        yield server
        # Baileys tells a name that it does not have yet while it is being paired.
        assert set(await server.unknown()) <= {'<presence name=""/>'}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def waypost(
    whatsapp: WhatsApp, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[System]:
    folder = tmp_path_factory.mktemp("waypost")
    async with systems.embedded(folder, **waypost_environment(whatsapp)) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def everything(whatsapp: WhatsApp, waypost: System) -> AsyncIterator[Talk]:
    async with (
        whatsapp.contact("ada", ADA) as ada,
        Customer.of(waypost.url) as owner,
        Sink.listening() as sink,
    ):
        instance = await linked(owner, whatsapp, OURS)
        hook = await owner.webhook(instance["id"], sink.url)
        customer = owner.with_key(instance["key"])
        yield Talk(whatsapp, owner, instance, customer, sink, hook["secret"], ada)


@pytest_asyncio.fixture(loop_scope="module")
async def talk(everything: Talk) -> AsyncIterator[Talk]:
    """The talk, with nothing of earlier tests in Ada's ears."""
    everything.ada.heard.clear()
    yield everything
    assert everything.ada.all_heard("broken") == []
    assert everything.ada.all_heard("undecryptable") == []


async def test_an_instance_is_paired_by_qr(talk: Talk) -> None:
    assert talk.instance["phoneNumber"] == f"+{OURS}"
    status = await ready(talk.owner, talk.instance["id"])
    assert status["phoneNumber"] == f"+{OURS}"
    (device,) = (await talk.whatsapp.phone(OURS))["devices"]
    assert device["connected"] is True
    paired = await talk.whatsapp.happenings("paired", phone=OURS)
    assert [one["by"] for one in paired] == ["qr"]


async def test_an_instance_is_paired_by_code_and_unlinked_by_the_phone(talk: Talk) -> None:
    other = await linked(talk.owner, talk.whatsapp, OTHER, by="code")
    hook = await talk.owner.webhook(other["id"], talk.sink.url, "instance.*")
    assert hook["events"] == ["instance.*"]
    paired = await talk.whatsapp.happenings("paired", phone=OTHER)
    assert [one["by"] for one in paired] == ["code"]
    (device,) = (await talk.whatsapp.phone(OTHER))["devices"]
    await talk.whatsapp.unlink(OTHER, device["device"])

    async def logged_out() -> bool:
        shown = (await talk.owner.get(f"/api/instances/{other['id']}/status")).data
        assert shown["status"] == "logged_out", shown
        return True

    await eventually(logged_out, within=WITHIN)


async def test_who_connects_at_once_after_disconnecting_is_connected(talk: Talk) -> None:
    at = f"/api/instances/{talk.instance['id']}"
    for path in ("disconnect", "connect", "disconnect", "connect"):
        assert (await talk.owner.post(f"{at}/{path}")).status in {200, 202}
    message = await talk.say("text", {"message": "Back again"})
    assert (await talk.hear(message))["text"] == "Back again"
    (device,) = (await talk.whatsapp.phone(OURS))["devices"]
    assert device["connected"] is True


async def test_a_text_goes_all_the_way_to_read(talk: Talk) -> None:
    message = await talk.say("text", {"message": "Good morning, Ada"})
    heard = await talk.hear(message)
    assert (heard["kind"], heard["text"]) == ("text", "Good morning, Ada")
    assert heard["phone"] == OURS
    delivered = await talk.hook("message.delivered", messageId=message)
    assert delivered["to"] == f"+{ADA}"
    await talk.ada.do("read", ids=[heard["id"]])
    await talk.hook("message.read", messageId=message)
    await talk.status_is(message, "read")


async def test_a_text_that_comes_in_is_told_with_who_wrote_it(talk: Talk) -> None:
    said = await talk.ada.text(OURS, "Good evening")
    told = await talk.received(said)
    assert told["messageType"] == "text"
    assert told["content"]["text"] == "Good evening"
    assert told["from"] == f"+{ADA}"
    assert told["identity"]["phone"] == f"+{ADA}"
    assert told["identity"]["pushName"] == "Ada"
    assert "groupId" not in told
    await talk.ada.receipt("delivered", said)


async def test_an_answer_quotes_what_it_answers_both_ways(talk: Talk) -> None:
    said = await talk.ada.text(OURS, "Lunch?")
    told = await talk.received(said)
    answer = await talk.say(
        "text",
        {"message": f"With @{BEN}", "replyTo": told["messageId"], "mentions": [f"+{BEN}"]},
    )
    heard = await talk.hear(answer)
    assert heard["quoted"] == said
    assert heard["mentions"] == [f"{BEN}@s.whatsapp.net"]
    replied = await talk.ada.text(OURS, "Fine", reply=heard["id"])
    # What it answers is named as the customer knows it.
    assert (await talk.received(replied))["replyTo"] in {answer, heard["id"]}


async def _uploaded(talk: Talk, sample: Sample) -> Data:
    form = aiohttp.FormData()
    form.add_field("file", sample.data, filename=sample.name, content_type=sample.mime_type)
    answer = await talk.customer.call("POST", "/api/media", data=form)
    return dict(answer.data)


@pytest.mark.parametrize("sample", [IMAGE, DOCUMENT, STICKER], ids=lambda sample: sample.kind)
async def test_a_file_is_sent_as_a_form(talk: Talk, sample: Sample) -> None:
    form = aiohttp.FormData()
    form.add_field("to", f"+{ADA}")
    if sample is not STICKER:
        form.add_field("caption", "Look")
    form.add_field(sample.kind, sample.data, filename=sample.name, content_type=sample.mime_type)
    answer = await talk.customer.call("POST", f"/api/messages/{sample.kind}", data=form)
    assert answer.status == 202, answer.body
    heard = await talk.hear(answer.data["id"])
    assert heard["kind"] == sample.kind
    assert heard["media"]["sha256"] == sample.sha256
    if sample is not STICKER:
        assert heard["caption"] == "Look"
    if sample is DOCUMENT:
        assert heard["media"]["filename"] == sample.name


async def test_a_film_is_sent_in_base64(talk: Talk) -> None:
    message = await talk.say("video", {"base64": base64.b64encode(VIDEO.data).decode()})
    heard = await talk.hear(message)
    assert (heard["kind"], heard["media"]["sha256"]) == ("video", VIDEO.sha256)


async def test_a_song_is_sent_from_what_was_uploaded_before(talk: Talk) -> None:
    media = await _uploaded(talk, AUDIO)
    message = await talk.say("audio", {"mediaId": media["id"]})
    heard = await talk.hear(message)
    assert (heard["kind"], heard["media"]["sha256"]) == ("audio", AUDIO.sha256)


async def test_a_voice_note_is_sent_as_one(talk: Talk) -> None:
    media = await _uploaded(talk, VOICE)
    message = await talk.say("voice", {"mediaId": media["id"]})
    heard = await talk.hear(message)
    assert (heard["kind"], heard["media"]["sha256"]) == ("voice", VOICE.sha256)
    assert heard["media"]["seconds"] == 1


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.kind)
async def test_a_file_that_comes_in_is_stored_and_can_be_fetched(
    talk: Talk, tmp_path: Path, sample: Sample
) -> None:
    path = str(sample.written(tmp_path))
    said = await talk.ada.send(sample.kind, OURS, path=path, mimeType=sample.mime_type)
    told = await talk.received(said)
    assert told["messageType"] == sample.kind
    media = f"/api/media/{told['content']['mediaId']}"

    async def stored() -> bool:
        shown = (await talk.customer.get(media)).data
        assert shown["status"] == "stored", shown
        return True

    await eventually(stored, within=WITHIN)
    fetched = await talk.customer.get(f"{media}/download")
    assert (fetched.status, fetched.body) == (200, sample.data)


async def test_a_place_and_a_card_go_both_ways(talk: Talk) -> None:
    place = {"latitude": 52.52, "longitude": 13.405, "name": "Berlin", "address": "Mitte"}
    heard = await talk.hear(await talk.say("location", place), kind="location")
    assert (heard["latitude"], heard["longitude"]) == (52.52, 13.405)
    assert (heard["place"], heard["address"]) == ("Berlin", "Mitte")
    card = {"name": "Ben", "phones": [f"+{BEN}"]}
    heard = await talk.hear(await talk.say("contact", card), kind="contact")
    assert (heard["person"], heard["phones"]) == ("Ben", [BEN])
    said = await talk.ada.send("location", OURS, **place)
    told = await talk.received(said)
    assert told["content"]["latitude"] == 52.52
    assert told["content"]["name"] == "Berlin"
    said = await talk.ada.send("contact", OURS, **card)
    told = await talk.received(said)
    assert told["content"]["name"] == "Ben"
    assert told["content"]["phones"] == [f"+{BEN}"]


async def test_a_poll_of_ours_is_voted_on(talk: Talk) -> None:
    poll = await talk.say("poll", {"question": "When?", "options": ["Today", "Tomorrow"]})
    heard = await talk.hear(poll)
    assert (heard["question"], heard["options"]) == ("When?", ["Today", "Tomorrow"])
    vote = (await talk.ada.do("vote", poll=heard["id"], options=["Tomorrow"]))["id"]
    told = await talk.received(vote)
    assert told["messageType"] == "poll_vote"
    assert told["content"]["pollId"] == heard["id"]
    assert told["content"]["options"] == ["Tomorrow"]


async def test_a_poll_that_comes_in_is_told_with_its_options(talk: Talk) -> None:
    said = await talk.ada.send("poll", OURS, question="Where?", options=["Here", "There"])
    told = await talk.received(said)
    assert told["content"]["question"] == "Where?"
    assert told["content"]["options"] == ["Here", "There"]


async def test_reactions_go_both_ways_and_are_taken_back(talk: Talk) -> None:
    said = await talk.ada.text(OURS, "I have passed!")
    told = await talk.received(said)
    for emoji in ("🎉", ""):
        answer = await talk.customer.post(
            "/api/messages/reaction", {"messageId": told["messageId"], "emoji": emoji}
        )
        assert answer.status == 202, answer.body
        assert (await talk.ada.next("reaction", target=said))["emoji"] == emoji
    message = await talk.say("text", {"message": "Congratulations"})
    heard = await talk.hear(message)
    for emoji in ("❤️", ""):
        await talk.ada.do("reaction", target=heard["id"], emoji=emoji)
        await talk.hook("message.reaction", messageId=message, emoji=emoji)


async def test_what_was_said_is_edited_and_revoked_both_ways(talk: Talk) -> None:
    message = await talk.say("text", {"message": "Se you"})
    heard = await talk.hear(message)
    edited = await talk.customer.call(
        "PUT", f"/api/messages/{message}", json={"message": "See you"}
    )
    assert edited.status == 202, edited.body
    assert (await talk.ada.next("edited", target=heard["id"]))["text"] == "See you"
    revoked = await talk.customer.call("DELETE", f"/api/messages/{message}")
    assert revoked.status == 202, revoked.body
    await talk.ada.next("revoked", target=heard["id"])
    said = await talk.ada.text(OURS, "Until Monday")
    told = await talk.received(said)
    await talk.ada.do("edit", target=said, text="Until Tuesday")
    changed = await talk.hook("message.edited", messageId=told["messageId"])
    assert changed["content"]["text"] == "Until Tuesday"
    await talk.ada.do("revoke", target=said)
    await talk.hook("message.revoked", messageId=told["messageId"])


async def test_reading_and_typing_are_shown_to_who_wrote(talk: Talk) -> None:
    said = await talk.ada.text(OURS, "Are you there?")
    told = await talk.received(said)
    read = await talk.customer.post("/api/messages/read", {"messageIds": [told["messageId"]]})
    assert read.status < 300, read.body
    await talk.ada.receipt("read", said)
    for state in ("typing", "recording"):
        shown = await talk.customer.post("/api/chats/presence", {"to": f"+{ADA}", "state": state})
        assert shown.status < 300, shown.body
        assert (await talk.ada.next("presence", state=state))["phone"] == OURS


async def test_numbers_are_checked(talk: Talk) -> None:
    answer = await talk.customer.post(
        "/api/contacts/check", {"numbers": [f"+{ADA}", "+12025550199", "nonsense"]}
    )
    found = [(one["valid"], one["onWhatsApp"]) for one in answer.data]
    assert found == [(True, True), (True, False), (False, False)]


async def test_who_is_not_on_whatsapp_gets_nothing(talk: Talk) -> None:
    answer = await talk.customer.text("+12025550199", "Anybody?")
    failed = await talk.hook("message.failed", messageId=answer.data["id"])
    assert failed["error"]["code"] == "NOT_ON_WHATSAPP"


async def test_a_group_is_written_to_and_heard_from(talk: Talk) -> None:
    group = (await talk.ada.do("createGroup", subject="Lunch", members=[OURS]))["id"]
    said = await talk.ada.text(group, "Who comes?")
    told = await talk.received(said)
    assert told["content"]["text"] == "Who comes?"
    assert told["groupId"] == group
    assert told["identity"]["phone"] == f"+{ADA}"
    answer = await talk.say("text", {"to": group, "message": "We do"})
    heard = await talk.hear(answer)
    assert (heard["chat"], heard["group"], heard["text"]) == (group, True, "We do")


async def test_what_came_while_waypost_was_away_is_told_once(talk: Talk) -> None:
    id_ = talk.instance["id"]
    before = await talk.whatsapp.last()
    assert (await talk.owner.post(f"/api/instances/{id_}/disconnect")).status == 202
    await talk.whatsapp.happening("disconnected", phone=OURS, after=before)

    async def away() -> bool:
        status = (await talk.owner.get(f"/api/instances/{id_}/status")).data
        return bool(status["status"] == "disconnected")

    await eventually(away, within=WITHIN)
    said = [await talk.ada.text(OURS, f"number {number}") for number in range(5)]
    assert (await talk.owner.post(f"/api/instances/{id_}/connect")).status == 202
    for one in said:
        await talk.received(one)
    keys = [
        payload["data"]["engineMessageId"]
        for _, payload in talk.sink.got
        if payload["event"] == "message.received"
    ]
    assert [keys.count(one) for one in said] == [1] * 5


async def test_nothing_was_put_on_the_wire_twice(talk: Talk) -> None:
    assert {one["sends"] for one in await talk.whatsapp.messages(OURS)} == {1}
    assert [one["replaced_by"] for one in await talk.whatsapp.connections()].count(None) == len(
        await talk.whatsapp.connections()
    )
