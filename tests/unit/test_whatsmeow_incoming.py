"""What neonize's events tell, and what strangers cannot make them tell."""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from services.sessions.engines.port import (
    EngineEvent,
    MessageEdited,
    MessageReceived,
    MessageRevoked,
    Reaction,
    StatusChanged,
)
from services.sessions.engines.whatsmeow.worker import incoming, media
from services.sessions.engines.whatsmeow.worker.shapes import Proto
from shared.contracts.content import ContactCard, Location, Media, Poll, PollVote, Text
from shared.errors import Rejected, Transient
from shared.ids import new_id
from tests.support.builders import NOON
from tests.support.neonize_client import (
    ADA,
    ADA_LID,
    BEN,
    BEN_LID,
    GROUP,
    OUR_LID,
    OURS,
    NeonizeClient,
    heard,
    protos,
    raised,
    receipt,
)

INSTANCE = new_id()
BY_NUMBER, BY_LID = f"{ADA}@s.whatsapp.net", f"{ADA_LID}@lid"
IN_GROUP: dict[str, Any] = {"chat": GROUP, "sender": BY_NUMBER}


async def told(event: Proto, *, client: NeonizeClient | None = None) -> list[EngineEvent]:
    """What an event tells."""
    events = await incoming.heard(client or NeonizeClient(), event, instance_id=INSTANCE, at=NOON)
    return list(events)


async def received(said: Mapping[str, object], **more: Any) -> MessageReceived:
    """The message that something said is."""
    client = more.pop("client", None)
    (event,) = await told(heard(said, **more), client=client)
    assert isinstance(event, MessageReceived)
    return event


def file(**more: object) -> dict[str, object]:
    return {
        "mimetype": "image/jpeg",
        "directPath": "/v/f",
        "mediaKey": b"k" * 32,
        "fileSHA256": b"s" * 32,
        "fileEncSHA256": b"e" * 32,
        "fileLength": 7,
        **more,
    }


async def test_a_size_that_cannot_be_true_is_not_passed_on() -> None:
    event = await received({"imageMessage": file(fileLength=2**63)})
    assert isinstance(event.content, Media)
    assert event.content.size is None


@pytest.mark.parametrize("said", [{"conversation": "Hi"}, {"extendedTextMessage": {"text": "Hi"}}])
async def test_words_come_in_two_forms(said: dict[str, object]) -> None:
    event = await received(said)
    assert event.content == Text(text="Hi")
    assert (event.engine_message_id, event.reply_to, event.media) == ("3EB0AA", None, None)


@pytest.mark.parametrize(
    "wrapper",
    [
        "ephemeralMessage",
        "viewOnceMessage",
        "viewOnceMessageV2",
        "viewOnceMessageV2Extension",
        "documentWithCaptionMessage",
        "associatedChildMessage",
        "groupMentionedMessage",
        "deviceSentMessage",
    ],
)
async def test_what_is_wrapped_is_unwrapped(wrapper: str) -> None:
    inside = {"ephemeralMessage": {"message": {"conversation": "Hi"}}}
    assert (await received({wrapper: {"message": inside}})).content == Text(text="Hi")


async def test_wrappers_without_end_end() -> None:
    said: dict[str, object] = {"conversation": "Hi"}
    for _ in range(50):
        said = {"ephemeralMessage": {"message": said}}
    assert await told(heard(said)) == []


@pytest.mark.parametrize(
    ("field", "kind", "more", "caption"),
    [
        ("imageMessage", "image", {"caption": "Look"}, "Look"),
        ("videoMessage", "video", {"caption": "Look", "seconds": 3}, "Look"),
        ("ptvMessage", "video", {"seconds": 3}, None),
        ("audioMessage", "audio", {"seconds": 3}, None),
        ("audioMessage", "voice", {"seconds": 3, "PTT": True}, None),
        ("documentMessage", "document", {"caption": "Look", "fileName": "a.pdf"}, "Look"),
        ("stickerMessage", "sticker", {}, None),
    ],
)
async def test_files_come_with_the_handle_to_fetch_them_by(
    field: str, kind: str, more: dict[str, object], caption: str | None
) -> None:
    event = await received({field: file(**more)})
    content = event.content
    assert isinstance(content, Media)
    assert (content.kind, content.mime_type, content.size) == (kind, "image/jpeg", 7)
    assert (content.caption, content.sha256) == (caption, (b"s" * 32).hex())
    assert content.seconds == more.get("seconds")
    assert content.filename == more.get("fileName")
    assert event.media is not None
    assert event.media["direct_path"] == "/v/f"
    assert event.media["length"] == "7"
    assert all(isinstance(value, str) for value in event.media.values())


async def test_places_are_heard_also_if_they_move() -> None:
    still = {"degreesLatitude": 1.5, "degreesLongitude": 2.5, "name": "Here", "address": "A 1"}
    event = await received({"locationMessage": still})
    assert event.content == Location(latitude=1.5, longitude=2.5, name="Here", address="A 1")
    moving = {"degreesLatitude": 1.5, "degreesLongitude": 2.5, "caption": "On my way"}
    event = await received({"liveLocationMessage": moving})
    assert event.content == Location(latitude=1.5, longitude=2.5, name="On my way")


async def test_cards_are_heard_also_if_there_are_several() -> None:
    card = "BEGIN:VCARD\nVERSION:3.0\nFN:Ben\\, B\nitem1.TEL;waid=4915:+49 15\nEND:VCARD"
    folded = "BEGIN:VCARD\r\nFN:Zo\r\n e\r\nTEL;TYPE=CELL:+1 202\r\nEND:VCARD"
    one = await received({"contactMessage": {"displayName": "", "vcard": card}})
    assert one.content == ContactCard(name="Ben, B", phones=("+4915",))
    several = {"contacts": [{"displayName": "Ben", "vcard": card}, {"vcard": folded}]}
    both = await received({"contactsArrayMessage": several})
    assert both.content == ContactCard(name="Ben, Zoe", phones=("+4915", "+1 202"))


@pytest.mark.parametrize("version", ["", "V2", "V3", "V5"])
async def test_polls_are_heard_in_every_version(version: str) -> None:
    poll = {"name": "Tea?", "options": [{"optionName": "yes"}, {"optionName": "no"}]}
    event = await received({f"pollCreationMessage{version}": poll})
    assert event.content == Poll(question="Tea?", options=("yes", "no"), selectable=0)


async def test_what_was_chosen_from_a_menu_is_words() -> None:
    button = {"buttonsResponseMessage": {"selectedDisplayText": "Yes"}}
    assert (await received(button)).content == Text(text="Yes")
    row = {"listResponseMessage": {"title": "The second"}}
    assert (await received(row)).content == Text(text="The second")


async def test_an_answer_and_mentions_tell_addresses_that_customers_know() -> None:
    context = {
        "stanzaID": "3EB0BB",
        "participant": f"{BEN_LID}:4@lid",
        "mentionedJID": [f"{BEN_LID}@lid", f"{ADA}@s.whatsapp.net"],
    }
    client = NeonizeClient(pairs={BEN: BEN_LID})
    event = await received(
        {"extendedTextMessage": {"text": "Hi", "contextInfo": context}}, client=client
    )
    assert event.reply_to == "3EB0BB"
    assert event.content == Text(
        text="Hi",
        mentions=(f"+{BEN}", f"+{ADA}"),
        reply_to="3EB0BB",
        reply_to_sender=f"+{BEN}",
    )


async def test_an_answer_to_us_names_nobody() -> None:
    context = {"stanzaID": "3EB0BB", "participant": f"{OUR_LID}@lid"}
    event = await received({"imageMessage": file(contextInfo=context)})
    assert isinstance(event.content, Media)
    assert (event.content.reply_to, event.content.reply_to_sender) == ("3EB0BB", None)


@pytest.mark.parametrize(
    "where",
    [
        {"sender": BY_NUMBER, "other": BY_LID},
        {"sender": BY_LID, "other": BY_NUMBER},
        {"sender": BY_NUMBER},
        {"sender": BY_LID},
    ],
)
async def test_one_person_is_one_contact_under_either_address(where: dict[str, Any]) -> None:
    client = NeonizeClient(pairs={ADA: ADA_LID})
    event = await received({"conversation": "Hi"}, client=client, **where)
    assert event.chat == BY_NUMBER
    assert event.stanza_key == f"message|{BY_NUMBER}|{BY_NUMBER}|3EB0AA"
    sender = event.sender
    assert (sender.phone, sender.lid, sender.chat_id) == (f"+{ADA}", BY_LID, BY_NUMBER)
    assert sender.push_name == "Ada"


async def test_somebody_of_whom_only_the_private_id_is_known_is_known_by_that() -> None:
    sender = (await received({"conversation": "Hi"}, sender=BY_LID)).sender
    assert (sender.phone, sender.lid, sender.chat_id) == (None, BY_LID, BY_LID)


async def test_who_was_seen_once_is_not_asked_for_again() -> None:
    client = NeonizeClient()
    await received({"conversation": "Hi"}, client=client, sender=BY_LID, other=BY_NUMBER)
    assert (await received({"conversation": "Hi"}, client=client, sender=BY_LID)).chat == BY_NUMBER
    assert "get_pn_from_lid" not in client.asked


async def test_what_is_known_to_one_account_is_not_told_to_another() -> None:
    knows, other = NeonizeClient(), NeonizeClient()
    await received({"conversation": "Hi"}, client=knows, sender=BY_LID, other=BY_NUMBER)
    assert (await received({"conversation": "Hi"}, client=other, sender=BY_LID)).chat == BY_LID


async def test_without_its_store_nothing_is_guessed() -> None:
    client = NeonizeClient()
    client.fails["get_pn_from_lid"] = raised("GetJIDFromStoreError", "connection refused")
    with pytest.raises(Transient):
        await told(heard({"conversation": "Hi"}, sender=BY_LID), client=client)


async def test_a_group_and_a_list_tell_who_wrote() -> None:
    event = await received({"conversation": "Hi"}, **IN_GROUP)
    assert (event.chat, event.sender.chat_id) == (GROUP, BY_NUMBER)
    assert event.stanza_key == f"message|{GROUP}|{BY_NUMBER}|3EB0AA"
    listed = await received({"conversation": "Hi"}, chat="123@broadcast", sender=BY_NUMBER)
    assert listed.chat == BY_NUMBER


@pytest.mark.parametrize(
    "where",
    [
        {"from_me": True},
        {"chat": "status@broadcast"},
        {"chat": "1@newsletter", "sender": "1@newsletter"},
        {"chat": "13135550002@bot", "sender": "13135550002@bot"},
    ],
)
async def test_what_is_nobodys_concern_is_not_told(where: dict[str, Any]) -> None:
    assert await told(heard({"conversation": "Hi"}, **where)) == []


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"conversation": ""},
        {"senderKeyDistributionMessage": {"groupID": GROUP}},
        {"protocolMessage": {"type": 3, "ephemeralExpiration": 86400}},
        {"protocolMessage": {"type": 0}},
        {"protocolMessage": {"type": 14, "key": {"ID": "3EB0BB"}}},
        {"encReactionMessage": {"encPayload": b"x"}},
        {"albumMessage": {"expectedImageCount": 2}},
        {"pinInChatMessage": {"key": {"ID": "3EB0BB"}}},
    ],
)
async def test_what_only_devices_care_about_is_not_told(said: dict[str, object]) -> None:
    assert await told(heard(said)) == []
    assert await told(protos().Connected(status=True)) == []


async def test_edits_and_revocations_name_the_first_message() -> None:
    edit = {"key": {"ID": "3EB0BB"}, "type": 14, "editedMessage": {"conversation": "Hello"}}
    (event,) = await told(heard({"protocolMessage": edit}, edit="1"))
    assert isinstance(event, MessageEdited)
    assert (event.target_id, event.content) == ("3EB0BB", Text(text="Hello"))
    assert event.stanza_key == f"edit|{BY_NUMBER}|{BY_NUMBER}|3EB0AA"
    revocation = {"protocolMessage": {"key": {"ID": "3EB0BB", "fromMe": True}, "type": 0}}
    (event,) = await told(heard(revocation, edit="7"))
    assert isinstance(event, MessageRevoked)
    assert (event.target_id, event.author) == ("3EB0BB", None)


@pytest.mark.parametrize(("edit", "believed"), [("8", True), ("7", False), ("", False)])
async def test_only_administrators_revoke_what_others_wrote(edit: str, *, believed: bool) -> None:
    key = {"ID": "3EB0BB", "fromMe": False, "participant": f"{BEN}:2@s.whatsapp.net"}
    revocation = {"protocolMessage": {"key": key, "type": 0}}
    (event,) = await told(heard(revocation, edit=edit, **IN_GROUP))
    assert isinstance(event, MessageRevoked)
    author = event.author and event.author.chat_id
    assert author == (f"{BEN}@s.whatsapp.net" if believed else None)


@pytest.mark.parametrize(
    ("key", "where", "author"),
    [
        ({"fromMe": False}, {}, None),
        ({"fromMe": True}, {}, None),
        ({"fromMe": False, "participant": f"{BEN}@s.whatsapp.net"}, IN_GROUP, BEN),
        ({"fromMe": False, "participant": f"{OUR_LID}@lid"}, IN_GROUP, None),
        ({"fromMe": False, "participant": f"{OURS}:7@s.whatsapp.net"}, IN_GROUP, None),
        ({"fromMe": False, "participant": BY_NUMBER}, IN_GROUP, None),
    ],
)
async def test_a_reaction_says_who_wrote_what_it_is_about(
    key: dict[str, object], where: dict[str, Any], author: str | None
) -> None:
    said = {"reactionMessage": {"key": {"ID": "3EB0BB", **key}, "text": "👍"}}
    (event,) = await told(heard(said, **where))
    assert isinstance(event, Reaction)
    assert (event.target_id, event.emoji) == ("3EB0BB", "👍")
    by = event.author and event.author.chat_id
    assert by == (author and f"{author}@s.whatsapp.net")


async def test_a_reaction_is_taken_back_by_an_empty_one() -> None:
    (event,) = await told(heard({"reactionMessage": {"key": {"ID": "3EB0BB"}, "text": ""}}))
    assert isinstance(event, Reaction)
    assert event.emoji == ""


YES, NO = (hashlib.sha256(option).digest() for option in (b"yes", b"no"))
POLL: dict[str, object] = {
    "pollCreationMessage": {
        "name": "Tea?",
        "options": [{"optionName": "yes"}, {"optionName": "no"}],
    }
}


def vote(**key: object) -> dict[str, object]:
    return {"pollUpdateMessage": {"pollCreationMessageKey": {"ID": "3EB0BB", **key}}}


async def test_a_vote_on_a_poll_of_theirs_is_read_by_name() -> None:
    client = NeonizeClient()
    await received(POLL, message_id="3EB0BB", client=client, **IN_GROUP)
    client.votes = [[NO, YES], []]
    participant = {"fromMe": False, "participant": BY_NUMBER}
    bens = {"chat": GROUP, "sender": f"{BEN}@s.whatsapp.net"}
    event = await received(vote(**participant), client=client, **bens)
    assert event.content == PollVote(poll_id="3EB0BB", options=("no", "yes"))
    event = await received(vote(fromMe=True), client=client, **IN_GROUP)
    assert event.content == PollVote(poll_id="3EB0BB", options=())


async def test_an_option_that_nobody_remembers_is_told_by_its_hash() -> None:
    client = NeonizeClient()
    client.votes = [[NO]]
    event = await received(vote(), client=client)
    assert event.content == PollVote(poll_id="3EB0BB", options=(NO.hex(),))


async def test_a_poll_with_somebody_elses_id_does_not_rename_the_options() -> None:
    client = NeonizeClient()
    await told(heard(POLL, message_id="3EB0BB", from_me=True, chat=BY_NUMBER), client=client)
    forged = {"pollCreationMessage": {"name": "x", "options": [{"optionName": "forged"}]}}
    await received(forged, message_id="3EB0BB", client=client)
    client.votes = [[NO]]
    event = await received(vote(fromMe=False), client=client)
    assert event.content == PollVote(poll_id="3EB0BB", options=("no",))


async def test_a_vote_is_tried_under_both_addresses_of_its_sender() -> None:
    client = NeonizeClient()
    failed = raised("DecryptPollVoteError", "failed to decrypt secret message")
    client.votes = [failed, [NO]]
    event = await received(vote(), client=client, sender=BY_NUMBER, other=BY_LID)
    assert isinstance(event.content, PollVote)
    client.votes = [failed]
    assert await told(heard(vote(), sender=BY_NUMBER), client=client) == []
    client.votes = [raised("DecryptPollVoteError", "failed to get original message secret key: x")]
    with pytest.raises(Transient):
        await told(heard(vote()), client=client)


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("DELIVERED", "delivered"),
        ("INACTIVE", "delivered"),
        ("READ", "read"),
        ("PLAYED", "read"),
        ("SENDER", None),
        ("RETRY", None),
        ("READ_SELF", None),
        ("PLAYED_SELF", None),
        ("SERVER_ERROR", None),
        ("PEER_MSG", None),
        ("HISTORY_SYNC", None),
    ],
)
async def test_receipts_tell_how_far_each_message_came(kind: str, status: str | None) -> None:
    events = await told(receipt(kind, "3EB0AA", "3EB0BB"))
    if status is None:
        assert events == []
        return
    assert all(isinstance(event, StatusChanged) for event in events)
    assert [(e.engine_message_id, e.status) for e in events if isinstance(e, StatusChanged)] == [
        ("3EB0AA", status),
        ("3EB0BB", status),
    ]


async def test_what_the_accounts_own_devices_received_is_no_receipt() -> None:
    assert await told(receipt("READ", "3EB0AA", from_me=True)) == []


async def test_times_are_whatsapps_unless_they_are_impossible() -> None:
    earlier = NOON - timedelta(hours=2)
    assert (await received({"conversation": "Hi"}, at=earlier.timestamp())).at == earlier
    for wrong in (0, -62135596800, NOON.timestamp() + 3600):
        assert (await received({"conversation": "Hi"}, at=wrong)).at == NOON
    (event,) = await told(receipt("READ", "3EB0AA", at=int(earlier.timestamp())))
    assert event.at == datetime.fromtimestamp(int(earlier.timestamp()), UTC)


async def test_what_cannot_be_stored_is_not_kept_from_whoever_waits_behind_it() -> None:
    event = await received({"conversation": "a\x00b"}, name="A\x00da")
    assert event.content == Text(text="ab")
    assert event.sender.push_name == "Ada"
    long = await received({"conversation": "x" * 100_000})
    assert isinstance(long.content, Text)
    assert len(long.content.text) == 65_536


async def test_bytes_that_are_no_text_are_read_as_well_as_can_be() -> None:
    event = heard({"conversation": ""})
    broken = event.Message.__class__.FromString(b"\x0a\x03a\xff\xfe")  # type: ignore[attr-defined]
    event.Message.CopyFrom(broken)  # type: ignore[attr-defined]
    (told_,) = await told(event)
    assert isinstance(told_, MessageReceived)
    assert told_.content == Text(text="a\ufffd\ufffd")


@pytest.mark.parametrize(
    ("said", "message_id"),
    [
        ({"conversation": "Hi"}, ""),
        ({"conversation": "Hi"}, "x" * 300),
        ({"conversation": "Hi"}, "3EB0\x00"),
        ({"locationMessage": {"degreesLatitude": 91.0}}, "3EB0AA"),
        ({"locationMessage": {"degreesLatitude": float("nan")}}, "3EB0AA"),
        ({"reactionMessage": {"text": "x"}}, "3EB0AA"),
    ],
)
async def test_the_impossible_is_passed_over(said: dict[str, object], message_id: str) -> None:
    assert await told(heard(said, message_id=message_id)) == []


async def test_a_file_is_fetched_by_its_handle(tmp_path: Path) -> None:
    client = NeonizeClient()
    client.files["/v/f"] = b"data"
    handle = (await received({"imageMessage": file()})).media
    assert handle is not None
    await media.fetch(client, handle, tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == b"data"


@pytest.mark.parametrize(
    ("words", "gone"),
    [
        ("download failed with status code 403", True),
        ("download failed with status code 404", True),
        ("download failed with status code 410", True),
        ("hash of media ciphertext doesn't match", True),
        ("failed to download media from last host: download failed with status code 503", False),
        ("failed to refresh media connections: info query timed out", False),
        ("websocket not connected", False),
    ],
)
async def test_a_file_is_gone_or_may_be_tried_again(
    tmp_path: Path, words: str, *, gone: bool
) -> None:
    client = NeonizeClient()
    client.fails["download_media_with_path"] = raised("DownloadError", words)
    handle = (await received({"imageMessage": file()})).media
    assert handle is not None
    with pytest.raises(Rejected if gone else Transient) as failed:
        await media.fetch(client, handle, tmp_path / "got")
    assert not gone or failed.value.code == "MEDIA_GONE"
    assert not (tmp_path / "got").exists()


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"directPath": ""}, "MEDIA_GONE"),
        ({"directPath": "x.example.org/f"}, "MEDIA_GONE"),
        ({"fileLength": 3_000_000_000}, "MEDIA_TOO_LARGE"),
    ],
)
async def test_a_file_that_cannot_be_fetched_is_not_asked_for(
    tmp_path: Path, more: dict[str, object], code: str
) -> None:
    client = NeonizeClient()
    handle = (await received({"imageMessage": file(**more)})).media
    assert handle is not None
    with pytest.raises(Rejected) as refused:
        await media.fetch(client, handle, tmp_path / "got")
    assert refused.value.code == code
    assert client.asked == []


async def test_a_handle_that_is_none_is_refused(tmp_path: Path) -> None:
    for handle in ({}, {"direct_path": "/f", "kind": "Image", "length": "x"}):
        with pytest.raises(Rejected):
            await media.fetch(NeonizeClient(), handle, tmp_path / "got")
