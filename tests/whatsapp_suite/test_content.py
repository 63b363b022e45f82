"""What a worker says, hears and asks, on the real neonize, with contacts that are Baileys."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tests.support.whatsapp import WhatsApp
from tests.support.whatsapp_contact import Contact
from tests.support.whatsapp_files import SAMPLES, STICKER, Sample
from tests.whatsapp_suite.driving_neonize import Clients, Refusal, clients

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

ADA, BEN, OURS, NOBODY = "491510000071", "491510000072", "491510000080", "491510000099"
CAPTIONED = ("image", "video", "document")

Facts = dict[str, Any]


@dataclass(frozen=True)
class Talk:
    """A worker's session on one side, Ada on the other, and Ben."""

    whatsapp: WhatsApp
    clients: Clients
    folder: Path
    ada: Contact
    ben: Contact

    async def say(self, content: Facts, *, to: str = ADA, sample: Sample | None = None) -> str:
        """Say something; WhatsApp's id of it."""
        file: Facts = {}
        if sample is not None:
            file = {"path": str(sample.written(self.folder)), "mime": sample.mime_type}
        address = to if "@" in to else f"{to}@s.whatsapp.net"
        return str(await self.clients.do("ours", "say", to=address, content=content, **file))

    async def heard(self, kind: str, **facts: Any) -> Facts:
        """The next thing that the session tells."""
        return await self.clients.heard("ours", "event", **{"is": kind, **facts})

    async def ask(self, kind: str, **question: Any) -> Facts:
        """Ask something."""
        return dict(await self.clients.do("ours", "ask", kind=kind, **question))

    async def group_of_adas(self, *, by_lid: bool) -> str:
        """A group that Ada runs, with Ben and us in it; its address."""
        admin = f"http://127.0.0.1:{self.whatsapp.ready.admin}/groups"
        wanted = {"by": ADA, "subject": "All", "members": [BEN, OURS], "byLid": by_lid}
        async with aiohttp.ClientSession() as http, http.post(admin, json=wanted) as answer:
            assert answer.status == 201, await answer.text()
            return str((await answer.json())["group"])

    async def greeted(self) -> str:
        """A text of Ada's that the session has heard; its id."""
        said = await self.ada.text(OURS, "Good morning")
        await self.heard("MessageReceived", engine_message_id=said)
        return said


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def everybody(
    contacts_installed: None, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Talk]:
    folder = tmp_path_factory.mktemp("content")
    async with (
        WhatsApp.running(folder, "--trace") as whatsapp,
        clients(whatsapp, program="tests.whatsapp_suite.content_clients") as process,
        whatsapp.contact("ada", ADA) as ada,
        whatsapp.contact("ben", BEN) as ben,
    ):
        await linked(whatsapp, process, folder, "ours")
        yield Talk(whatsapp, process, folder, ada, ben)
        # Baileys tells a name that it does not have yet while it is being paired.
        assert set(await whatsapp.unknown()) <= {'<presence name=""/>'}


async def linked(whatsapp: WhatsApp, process: Clients, folder: Path, name: str) -> None:
    """Another device of our phone, connected."""
    await whatsapp.add_phone(OURS, pushName="Ours")
    proxy = f"http://127.0.0.1:{whatsapp.ready.proxy}"
    await process.do(name, "open", store=str(folder / f"{name}.db"), proxy=proxy)
    await whatsapp.scan(OURS, (await process.heard(name, "qr"))["qr"])
    await process.heard(name, "connected")


@pytest_asyncio.fixture(loop_scope="module")
async def talk(everybody: Talk) -> AsyncIterator[Talk]:
    yield everybody
    await everybody.whatsapp.clear_faults()
    for contact in (everybody.ada, everybody.ben):
        assert contact.all_heard("broken") == []
        assert contact.all_heard("undecryptable") == []
        contact.heard.clear()


async def test_a_text_arrives_and_comes_back_read(talk: Talk) -> None:
    said = await talk.say({"kind": "text", "text": "Hello\nyou"})
    heard = await talk.ada.next("message", id=said)
    assert (heard["text"], heard["phone"], heard.get("quoted")) == ("Hello\nyou", OURS, None)
    await talk.heard("StatusChanged", engine_message_id=said, status="delivered")
    await talk.ada.do("read", ids=[said])
    await talk.heard("StatusChanged", engine_message_id=said, status="read")


async def test_an_answer_leads_to_what_it_answers(talk: Talk) -> None:
    theirs = await talk.greeted()
    answer = {"kind": "text", "text": "Same to you", "reply_to": theirs, "reply_to_sender": ADA}
    said = await talk.say(answer)
    heard = await talk.ada.next("message", id=said)
    assert (heard["text"], heard["quoted"]) == ("Same to you", theirs)
    assert heard["quotedBy"].startswith(ADA)
    back = await talk.ada.text(OURS, "Thank you", reply=said)
    event = await talk.heard("MessageReceived", engine_message_id=back)
    assert event["reply_to"] == said
    assert event["content"]["reply_to_sender"] is None


async def test_mentions_arrive_both_ways(talk: Talk) -> None:
    said = await talk.say({"kind": "text", "text": f"Ask @{BEN}", "mentions": [f"+{BEN}"]})
    assert (await talk.ada.next("message", id=said))["mentions"] == [f"{BEN}@s.whatsapp.net"]
    back = await talk.ada.text(OURS, f"Not @{BEN}", mentions=[BEN])
    event = await talk.heard("MessageReceived", engine_message_id=back)
    assert event["content"]["mentions"] == [f"+{BEN}"]


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.kind)
async def test_a_file_arrives_as_it_was_sent(talk: Talk, sample: Sample) -> None:
    media: Facts = {"kind": sample.kind, "mime_type": sample.mime_type, "filename": sample.name}
    said = await talk.say({**media, "caption": "Look"}, sample=sample)
    heard = await talk.ada.next("message", id=said)
    assert heard["kind"] == sample.kind
    assert heard["media"]["sha256"] == sample.sha256
    assert heard["media"]["mimeType"] == sample.mime_type
    assert heard.get("caption") == ("Look" if sample.kind in CAPTIONED else None)
    if sample.kind == "document":
        assert heard["media"]["filename"] == sample.name
    if sample.kind in {"voice", "video"}:
        assert heard["media"]["seconds"] == 1


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.kind)
async def test_a_file_is_fetched_as_it_was_said(talk: Talk, sample: Sample) -> None:
    path = str(sample.written(talk.folder))
    theirs = await talk.ada.send(
        sample.kind, OURS, path=path, mimeType=sample.mime_type, caption="Look"
    )
    event = await talk.heard("MessageReceived", engine_message_id=theirs)
    content = event["content"]
    assert (content["kind"], content["mime_type"]) == (sample.kind, sample.mime_type)
    assert (content["size"], content["sha256"]) == (len(sample.data), sample.sha256)
    assert content["caption"] == ("Look" if sample.kind in CAPTIONED else None)
    into = talk.folder / f"fetched-{sample.kind}"
    await talk.clients.do("ours", "fetch", handle=event["media"], into=str(into))
    assert into.read_bytes() == sample.data


async def test_a_picture_becomes_a_sticker(talk: Talk) -> None:
    image = next(sample for sample in SAMPLES if sample.kind == "image")
    said = await talk.say({"kind": "sticker", "mime_type": image.mime_type}, sample=image)
    heard = await talk.ada.next("message", id=said)
    assert (heard["kind"], heard["media"]["mimeType"]) == ("sticker", STICKER.mime_type)


async def test_a_file_that_whatsapp_has_deleted_is_gone(talk: Talk) -> None:
    image = next(sample for sample in SAMPLES if sample.kind == "image")
    theirs = await talk.ada.send("image", OURS, path=str(image.written(talk.folder)))
    event = await talk.heard("MessageReceived", engine_message_id=theirs)
    await talk.whatsapp.fault("media_404")
    with pytest.raises(Refusal, match="MEDIA_GONE"):
        await talk.clients.do(
            "ours", "fetch", handle=event["media"], into=str(talk.folder / "gone")
        )


async def test_a_place_arrives_both_ways(talk: Talk) -> None:
    place = {"kind": "location", "latitude": 52.5, "longitude": 13.25, "name": "Gate"}
    heard = await talk.ada.next("message", id=await talk.say(place))
    assert (heard["latitude"], heard["longitude"], heard["place"]) == (52.5, 13.25, "Gate")
    theirs = await talk.ada.send("location", OURS, latitude=-1.5, longitude=2.25, address="A 1")
    content = (await talk.heard("MessageReceived", engine_message_id=theirs))["content"]
    assert (content["latitude"], content["longitude"], content["address"]) == (-1.5, 2.25, "A 1")


async def test_a_card_arrives_both_ways(talk: Talk) -> None:
    card = {"kind": "contact", "name": "Miller; Zoe, Dr.", "phones": [f"+{BEN}"]}
    heard = await talk.ada.next("message", id=await talk.say(card))
    assert (heard["person"], heard["phones"]) == ("Miller; Zoe, Dr.", [BEN])
    theirs = await talk.ada.send("contact", OURS, name="Ben", phones=[f"+{BEN}"])
    content = (await talk.heard("MessageReceived", engine_message_id=theirs))["content"]
    assert (content["name"], content["phones"]) == ("Ben", [f"+{BEN}"])


async def test_a_vote_on_our_poll_is_read_by_name(talk: Talk) -> None:
    poll = {"kind": "poll", "question": "Tea?", "options": ["yes", "no"], "selectable": 1}
    said = await talk.say(poll)
    heard = await talk.ada.next("message", id=said)
    assert (heard["question"], heard["options"]) == ("Tea?", ["yes", "no"])
    voted = await talk.ada.send("vote", OURS, poll=said, options=["no"])
    content = (await talk.heard("MessageReceived", engine_message_id=voted))["content"]
    assert (content["poll_id"], content["options"]) == (said, ["no"])
    withdrawn = await talk.ada.send("vote", OURS, poll=said, options=[])
    content = (await talk.heard("MessageReceived", engine_message_id=withdrawn))["content"]
    assert content["options"] == []


async def test_their_poll_is_heard(talk: Talk) -> None:
    theirs = await talk.ada.send("poll", OURS, question="Cake?", options=["a", "b"], selectable=2)
    content = (await talk.heard("MessageReceived", engine_message_id=theirs))["content"]
    assert content == {"kind": "poll", "question": "Cake?", "options": ["a", "b"], "selectable": 2}


async def test_reactions_find_what_they_are_about(talk: Talk) -> None:
    theirs, ours = await talk.greeted(), await talk.say({"kind": "text", "text": "Ours"})
    await talk.ada.next("message", id=ours)
    await talk.say({"kind": "reaction", "target_id": theirs, "target_sender": ADA, "emoji": "👍"})
    assert (await talk.ada.next("reaction", target=theirs))["emoji"] == "👍"
    await talk.say({"kind": "reaction", "target_id": ours, "emoji": "🙂"})
    assert (await talk.ada.next("reaction", target=ours))["emoji"] == "🙂"
    await talk.ada.do("reaction", target=ours, emoji="❤️")
    event = await talk.heard("Reaction", target_id=ours)
    assert (event["emoji"], event["author"], event["chat"]) == ("❤️", None, f"{ADA}@s.whatsapp.net")
    await talk.ada.do("reaction", target=ours, emoji="")
    assert (await talk.heard("Reaction", target_id=ours))["emoji"] == ""


async def test_edits_and_revocations_arrive_both_ways(talk: Talk) -> None:
    ours = await talk.say({"kind": "text", "text": "Helo"})
    await talk.ada.next("message", id=ours)
    await talk.say({"kind": "edit", "target_id": ours, "text": "Hello"})
    assert (await talk.ada.next("edited", target=ours))["text"] == "Hello"
    await talk.say({"kind": "revoke", "target_id": ours})
    await talk.ada.next("revoked", target=ours)
    theirs = await talk.greeted()
    await talk.ada.do("edit", target=theirs, text="Good evening")
    event = await talk.heard("MessageEdited", target_id=theirs)
    assert event["content"]["text"] == "Good evening"
    await talk.ada.do("revoke", target=theirs)
    assert (await talk.heard("MessageRevoked", target_id=theirs))["author"] is None


async def test_who_writes_is_known_by_both_addresses(talk: Talk) -> None:
    said = await talk.ada.text(OURS, "It is me")
    sender = (await talk.heard("MessageReceived", engine_message_id=said))["sender"]
    assert (sender["phone"], sender["lid"]) == (f"+{ADA}", talk.ada.lid)
    assert sender["chat_id"] == f"{ADA}@s.whatsapp.net"


async def test_what_comes_twice_has_one_key(talk: Talk) -> None:
    await talk.whatsapp.fault("duplicates")
    said = await talk.ada.text(OURS, "Once")
    first = await talk.heard("MessageReceived", engine_message_id=said)
    assert first["stanza_key"] == f"message|{ADA}@s.whatsapp.net|{ADA}@s.whatsapp.net|{said}"


async def test_what_our_other_device_says_is_no_news(talk: Talk) -> None:
    await linked(talk.whatsapp, talk.clients, talk.folder, "other")
    elsewhere = await talk.clients.do(
        "other", "say", to=f"{ADA}@s.whatsapp.net", content={"kind": "text", "text": "From there"}
    )
    await talk.ada.next("message", id=elsewhere)
    await talk.greeted()  # What came before it has been heard.
    received = talk.clients.overheard("ours", "event", **{"is": "MessageReceived"})
    assert elsewhere not in [event["engine_message_id"] for event in received]
    answer = {"kind": "text", "text": "And from here", "reply_to": elsewhere}
    heard = await talk.ada.next("message", id=await talk.say(answer))
    assert heard["quoted"] == elsewhere


async def test_nobody_is_not_on_whatsapp(talk: Talk) -> None:
    with pytest.raises(Refusal, match="NotOnWhatsApp NOT_ON_WHATSAPP"):
        await talk.say({"kind": "text", "text": "Anybody?"}, to=NOBODY)


@pytest.mark.parametrize(
    ("code", "meaning"),
    [(463, "Refused"), (429, "Throttled"), (479, "Retryable"), (403, "Refused")],
)
async def test_a_refusal_says_whether_to_try_again(talk: Talk, code: int, meaning: str) -> None:
    await talk.whatsapp.fault("ack_error", phone=OURS, code=code, count=1)
    with pytest.raises(Refusal, match=meaning):
        await talk.say({"kind": "text", "text": "Well?"})


async def test_numbers_are_checked(talk: Talk) -> None:
    answer = await talk.ask("check_numbers", numbers=[NOBODY, ADA])
    assert answer["numbers"] == [
        {"number": NOBODY, "on_whatsapp": False, "address": None},
        {"number": ADA, "on_whatsapp": True, "address": f"{ADA}@s.whatsapp.net"},
    ]


async def test_the_account_knows_itself(talk: Talk) -> None:
    profile = await talk.ask("tell_profile")
    assert profile["identity"]["phone"] == f"+{OURS}"
    assert profile["identity"]["push_name"] == "Ours"
    assert profile["picture_url"] is None


async def test_read_played_and_typing_are_shown(talk: Talk) -> None:
    voice = next(sample for sample in SAMPLES if sample.kind == "voice")
    theirs = await talk.ada.send("voice", OURS, path=str(voice.written(talk.folder)))
    await talk.heard("MessageReceived", engine_message_id=theirs)
    shown: Facts = {"chat": ADA, "sender": ADA, "ids": [theirs]}
    await talk.clients.do("ours", "mark_read", **shown, played=False)
    await talk.ada.receipt("read", theirs)
    await talk.clients.do("ours", "mark_read", **shown, played=True)
    await talk.ada.receipt("played", theirs)
    await talk.ada.do("subscribe", to=OURS)
    await talk.clients.do("ours", "show_presence", chat=ADA, state="recording")
    await talk.ada.next("presence", state="recording", phone=OURS)
    await talk.clients.do("ours", "show_presence", chat=ADA, state="typing")
    await talk.ada.next("presence", state="typing", phone=OURS)


async def test_a_group_is_made_written_to_and_left(talk: Talk) -> None:
    made = await talk.ask("create_group", name="Tea", members=[f"+{ADA}"])
    group = made["id"]
    roles = {member["identity"]["phone"]: member["role"] for member in made["members"]}
    assert roles == {f"+{OURS}": "owner", f"+{ADA}": "member"}
    await talk.ada.next("group", change="joined", id=group)
    said = await talk.say({"kind": "text", "text": "Hello all"}, to=group)
    assert (await talk.ada.next("message", id=said))["chat"] == group
    theirs = await talk.ada.text(group, "Hello", reply=said)
    event = await talk.heard("MessageReceived", engine_message_id=theirs)
    assert (event["chat"], event["sender"]["phone"]) == (group, f"+{ADA}")
    assert (event["reply_to"], event["content"]["reply_to_sender"]) == (said, None)
    changed = await talk.ask(
        "change_members", group=group, change="add", members=[f"+{BEN}", f"+{ADA}"]
    )
    assert changed["members"][0] == {"address": f"+{BEN}", "error": None}
    assert "already" in changed["members"][1]["error"]
    assert (await talk.ask("tell_group", group=group))["size"] == 3
    link = await talk.ask("tell_invite_link", group=group)
    assert link["url"].startswith("https://chat.whatsapp.com/")
    renewed = await talk.ask("tell_invite_link", group=group, renew=True)
    assert renewed["url"] != link["url"]
    assert group in [known["id"] for known in (await talk.ask("list_groups"))["groups"]]
    await talk.ask("leave_group", group=group)
    with pytest.raises(Refusal, match="Forbidden"):
        await talk.ask("tell_group", group=group)


@pytest.mark.parametrize("by_lid", [False, True], ids=["by-number", "by-private-id"])
async def test_a_group_tells_who_wrote_what(talk: Talk, *, by_lid: bool) -> None:
    group = await talk.group_of_adas(by_lid=by_lid)
    bens = await talk.ben.text(group, "I am Ben")
    event = await talk.heard("MessageReceived", engine_message_id=bens)
    assert (event["chat"], event["sender"]["phone"]) == (group, f"+{BEN}")
    await talk.ada.next("message", id=bens)
    await talk.say(
        {"kind": "reaction", "target_id": bens, "target_sender": f"+{BEN}", "emoji": "👍"}, to=group
    )
    assert (await talk.ada.next("reaction", target=bens))["phone"] == OURS
    await talk.ada.do("reaction", target=bens, emoji="❤️")
    reaction = await talk.heard("Reaction", target_id=bens)
    assert reaction["sender"]["phone"] == f"+{ADA}"
    assert reaction["author"]["phone"] == f"+{BEN}"
    poll = {"kind": "poll", "question": "Go?", "options": ["yes", "no"], "selectable": 1}
    ours = await talk.say(poll, to=group)
    await talk.ben.next("message", id=ours)
    voted = await talk.ben.send("vote", group, poll=ours, options=["yes"])
    vote = await talk.heard("MessageReceived", engine_message_id=voted)
    assert (vote["content"]["options"], vote["sender"]["phone"]) == (["yes"], f"+{BEN}")
    await talk.ada.do("revoke", target=bens)
    revoked = await talk.heard("MessageRevoked", target_id=bens)
    assert (revoked["sender"]["phone"], revoked["author"]["phone"]) == (f"+{ADA}", f"+{BEN}")
    await talk.clients.do(
        "ours", "mark_read", chat=group, sender=f"+{BEN}", ids=[bens], played=False
    )
    await talk.ben.receipt("read", bens)
