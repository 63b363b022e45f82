"""Two contacts of an independent implementation talk through the local server, and nobody else.

What passes here, the server did not only agree upon with ourselves.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.whatsapp import WhatsApp
from tests.support.whatsapp_contact import Contact
from tests.support.whatsapp_files import IMAGE, SAMPLES, Sample

pytestmark = pytest.mark.asyncio(loop_scope="module")

ANNA, BEN, CARA = "12025550171", "12025550172", "12025550173"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def whatsapp(
    contacts_installed: None, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[WhatsApp]:
    async with WhatsApp.running(tmp_path_factory.mktemp("whatsapp")) as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def both(whatsapp: WhatsApp) -> AsyncIterator[tuple[Contact, Contact]]:
    """Anna, who has scanned a QR code, and Ben, who has entered a pairing code."""
    async with (
        whatsapp.contact("anna", ANNA) as anna,
        whatsapp.contact("ben", BEN, by="code") as ben,
    ):
        yield anna, ben


@pytest_asyncio.fixture(loop_scope="module")
async def pair(both: tuple[Contact, Contact]) -> AsyncIterator[tuple[Contact, Contact]]:
    """The two, with nothing of earlier tests in their ears."""
    for contact in both:
        contact.heard.clear()
    yield both
    broken = [heard for contact in both for heard in contact.all_heard("broken")]
    assert broken == []
    assert [heard for contact in both for heard in contact.all_heard("undecryptable")] == []


async def test_one_pairs_by_qr_and_the_other_by_code(
    whatsapp: WhatsApp, both: tuple[Contact, Contact]
) -> None:
    anna, ben = both
    assert (anna.phone, ben.phone) == (ANNA, BEN)
    assert anna.lid.endswith("@lid")
    paired = [(one["phone"], one["by"]) for one in await whatsapp.happenings("paired")]
    assert paired == [(ANNA, "qr"), (BEN, "code")]


async def test_a_client_that_does_not_trust_the_certificate_stays_away(
    whatsapp: WhatsApp, tmp_path: Path
) -> None:
    # Only TLS: of the Noise certificates Baileys 7.0.0-rc14 asks libsignal to verify the
    # signatures and does not look at the answer. whatsmeow does.
    stranger = replace(whatsapp.reach, authority=tmp_path / "none.pem")
    async with Contact.running("dora", stranger, tmp_path) as dora:
        closed = await dora.next("connection", state="close")
    assert "certificate" in closed["reason"]


async def test_a_text_arrives_and_its_sender_hears_that_it_was_delivered_and_read(
    pair: tuple[Contact, Contact],
) -> None:
    anna, ben = pair
    said = await anna.text(BEN, "Good morning, Ben")
    heard = await ben.next("message", id=said)
    assert heard["kind"] == "text"
    assert heard["text"] == "Good morning, Ben"
    assert heard["phone"] == ANNA
    assert heard["offline"] is False
    assert (await anna.receipt("delivered", said))["phone"] == BEN
    await ben.do("read", ids=[said])
    await anna.receipt("read", said)


async def test_an_answer_quotes_and_a_mention_names(pair: tuple[Contact, Contact]) -> None:
    anna, ben = pair
    question = await anna.text(BEN, "Lunch?")
    await ben.next("message", id=question)
    answer = await ben.text(ANNA, f"With @{CARA}", reply=question, mentions=[CARA])
    heard = await anna.next("message", id=answer)
    assert heard["quoted"] == question
    assert heard["mentions"] == [f"{CARA}@s.whatsapp.net"]


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.kind)
async def test_a_file_arrives_as_it_was_sent(
    pair: tuple[Contact, Contact], tmp_path: Path, sample: Sample
) -> None:
    anna, ben = pair
    path = sample.written(tmp_path)
    said = await anna.send(sample.kind, BEN, path=str(path), mimeType=sample.mime_type)
    heard = await ben.next("message", id=said)
    assert heard["kind"] == sample.kind
    assert heard["media"]["sha256"] == sample.sha256
    assert heard["media"]["mimeType"] == sample.mime_type


async def test_a_caption_comes_with_its_picture(
    pair: tuple[Contact, Contact], tmp_path: Path
) -> None:
    anna, ben = pair
    path = str(IMAGE.written(tmp_path))
    said = await anna.send("image", BEN, path=path, caption="The sea")
    assert (await ben.next("message", id=said))["caption"] == "The sea"


async def test_a_recording_is_played(pair: tuple[Contact, Contact], tmp_path: Path) -> None:
    anna, ben = pair
    voice = next(sample for sample in SAMPLES if sample.kind == "voice")
    said = await anna.send("voice", BEN, path=str(voice.written(tmp_path)))
    await ben.next("message", id=said)
    await ben.do("played", ids=[said])
    await anna.receipt("played", said)


async def test_a_place_and_a_card_arrive(pair: tuple[Contact, Contact]) -> None:
    anna, ben = pair
    place = await anna.send("location", BEN, latitude=52.5, longitude=13.4, name="Berlin")
    heard = await ben.next("message", id=place)
    assert (heard["latitude"], heard["longitude"], heard["place"]) == (52.5, 13.4, "Berlin")
    card = await anna.send("contact", BEN, name="Cara", phones=[f"+{CARA}"])
    heard = await ben.next("message", id=card)
    assert (heard["person"], heard["phones"]) == ("Cara", [CARA])


async def test_a_poll_is_voted_on_and_a_vote_is_changed(pair: tuple[Contact, Contact]) -> None:
    anna, ben = pair
    poll = await anna.send("poll", BEN, question="When?", options=["Today", "Tomorrow"])
    heard = await ben.next("message", id=poll)
    assert (heard["question"], heard["options"]) == ("When?", ["Today", "Tomorrow"])
    await ben.do("vote", poll=poll, options=["Today"])
    assert (await anna.next("vote", poll=poll))["options"] == ["Today"]
    await ben.do("vote", poll=poll, options=[])
    assert (await anna.next("vote", poll=poll))["options"] == []


async def test_reactions_edits_and_revocations_name_what_they_change(
    pair: tuple[Contact, Contact],
) -> None:
    anna, ben = pair
    said = await anna.text(BEN, "Se you")
    await ben.next("message", id=said)
    await ben.do("reaction", target=said, emoji="👍")
    assert (await anna.next("reaction", target=said))["emoji"] == "👍"
    await ben.do("reaction", target=said, emoji="")
    assert (await anna.next("reaction", target=said))["emoji"] == ""
    await anna.do("edit", target=said, text="See you")
    assert (await ben.next("edited", target=said))["text"] == "See you"
    await anna.do("revoke", target=said)
    await ben.next("revoked", target=said)


@pytest.mark.parametrize(
    ("shown", "seen"), [("typing", "typing"), ("recording", "recording"), ("paused", "available")]
)
async def test_it_shows_who_is_typing(pair: tuple[Contact, Contact], shown: str, seen: str) -> None:
    anna, ben = pair
    await anna.do("presence", to=BEN, state=shown)
    assert (await ben.next("presence", state=seen))["phone"] == ANNA


async def test_numbers_are_known_or_not(pair: tuple[Contact, Contact]) -> None:
    anna, _ = pair
    found = (await anna.do("onWhatsApp", numbers=[BEN, "12025550199"]))["found"]
    assert found == [f"{BEN}@s.whatsapp.net"]


async def test_what_is_said_to_somebody_away_waits_in_order(pair: tuple[Contact, Contact]) -> None:
    anna, ben = pair
    await ben.do("disconnect")
    await ben.next("connection", state="close")
    said = [await anna.text(BEN, f"number {number}") for number in range(5)]
    assert anna.all_heard("receipt") == []
    await ben.do("connect")
    heard = [await ben.next("message") for _ in said]
    assert [one["id"] for one in heard] == said
    assert {one["offline"] for one in heard} == {True}
    for one in said:
        await anna.receipt("delivered", one)


async def test_a_device_is_the_same_after_its_process_was_restarted(whatsapp: WhatsApp) -> None:
    async with whatsapp.contact("cara", CARA) as cara:
        first = cara.lid
    async with whatsapp.returning("cara") as cara:
        assert cara.lid == first


async def test_a_group_talks_under_sender_keys(
    whatsapp: WhatsApp, pair: tuple[Contact, Contact], tmp_path: Path
) -> None:
    anna, ben = pair
    group = (await anna.do("createGroup", subject="Lunch", members=[BEN]))["id"]
    joined = await ben.next("group", change="joined", id=group)
    assert joined["subject"] == "Lunch"
    said = await anna.text(group, "Who comes?")
    heard = await ben.next("message", id=said)
    assert (heard["chat"], heard["group"], heard["text"]) == (group, True, "Who comes?")
    assert heard["phone"] == ANNA
    answered = await ben.text(group, "I do", reply=said)
    assert (await anna.next("message", id=answered))["quoted"] == said
    await anna.receipt("delivered", said)
    picture = await ben.send("image", group, path=str(IMAGE.written(tmp_path)))
    assert (await anna.next("message", id=picture))["media"]["sha256"] == IMAGE.sha256
    again = await anna.text(group, "Under the same key")
    assert (await ben.next("message", id=again))["text"] == "Under the same key"


async def test_who_joins_a_group_hears_it_and_who_leaves_does_not(
    whatsapp: WhatsApp, pair: tuple[Contact, Contact]
) -> None:
    anna, ben = pair
    group = (await anna.do("createGroup", subject="Dinner", members=[BEN]))["id"]
    await ben.next("group", change="joined", id=group)
    async with whatsapp.contact("eve", "12025550175") as eve:
        await anna.do("changeGroup", id=group, members=[eve.phone], change="add")
        await ben.next("group", change="add", id=group)
        said = await ben.text(group, "Welcome")
        assert (await eve.next("message", id=said))["text"] == "Welcome"
        await eve.do("leaveGroup", id=group)
        await anna.next("group", change="remove", id=group)
        later = await ben.text(group, "A pity")
        await anna.next("message", id=later)
        # What would have reached Eve is overtaken by what does.
        direct = await ben.text(eve.phone, "Call me")
        await eve.next("message", id=direct)
        assert [one["id"] for one in eve.all_heard("message")] == []


async def test_a_group_is_renamed_and_joined_by_its_link(
    whatsapp: WhatsApp, pair: tuple[Contact, Contact]
) -> None:
    anna, ben = pair
    group = (await anna.do("createGroup", subject="Tea", members=[]))["id"]
    code = (await anna.do("inviteCode", id=group))["code"]
    assert (await ben.do("joinGroup", code=code))["id"] == group
    await anna.do("renameGroup", id=group, subject="Coffee")
    assert (await ben.next("group", change="renamed", id=group))["subject"] == "Coffee"
    shown = await ben.do("group", id=group)
    assert shown["subject"] == "Coffee"
    assert len(shown["members"]) == 2


async def test_after_a_restart_of_the_server_a_client_is_back_by_itself(
    whatsapp: WhatsApp, pair: tuple[Contact, Contact]
) -> None:
    anna, ben = pair
    await whatsapp.fault("503", phone=BEN)
    assert (await ben.next("connection", state="close"))["code"] == 503
    await ben.connected()
    said = await anna.text(BEN, "Are you back?")
    await ben.next("message", id=said)


async def test_a_device_that_the_phone_removes_is_logged_out(whatsapp: WhatsApp) -> None:
    async with whatsapp.contact("fay", "12025550176") as fay:
        await whatsapp.fault("device_removed", phone=fay.phone)
        assert (await fay.next("connection", state="close"))["code"] == 401


async def test_the_same_device_twice_replaces_the_first(
    whatsapp: WhatsApp, pair: tuple[Contact, Contact]
) -> None:
    async with whatsapp.contact("gus", "12025550177") as gus, whatsapp.returning("gus"):
        assert (await gus.next("connection", state="close"))["code"] == 440


async def test_media_that_is_gone_is_told_as_gone(
    whatsapp: WhatsApp, pair: tuple[Contact, Contact], tmp_path: Path
) -> None:
    anna, ben = pair
    await whatsapp.fault("media_404")
    try:
        said = await anna.send("image", BEN, path=str(IMAGE.written(tmp_path)))
        assert "error" in (await ben.next("message", id=said))["media"]
    finally:
        await whatsapp.clear_faults()


async def test_many_messages_at_once_arrive_once_each(pair: tuple[Contact, Contact]) -> None:
    anna, ben = pair
    said = await asyncio.gather(*(anna.text(BEN, f"{number}") for number in range(30)))
    heard = [(await ben.next("message"))["id"] for _ in said]
    assert sorted(heard) == sorted(said)


async def test_nothing_was_said_that_the_server_does_not_know(whatsapp: WhatsApp) -> None:
    # Baileys tells a name that it does not have yet while it is being paired.
    assert set(await whatsapp.unknown()) <= {'<presence name=""/>'}
