"""What is said to neonize for each kind of content, and what becomes of its errors."""

import hashlib
from pathlib import Path

import pytest

from services.sessions.engines.port import NotOnWhatsApp, Refused, Retryable, SessionDown
from services.sessions.engines.whatsmeow.worker import errors
from services.sessions.engines.whatsmeow.worker.incoming import heard
from services.sessions.engines.whatsmeow.worker.outgoing import say
from services.sessions.engines.whatsmeow.worker.said import Said
from services.sessions.engines.whatsmeow.worker.shapes import Message
from shared.contracts.content import (
    ContactCard,
    Edit,
    Location,
    Media,
    Poll,
    Reaction,
    Revoke,
    Sendable,
    Text,
)
from shared.errors import Forbidden, PlatformError, Rejected, Throttled, Unconfirmed
from shared.ids import new_id
from tests.support import neonize_client
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
    raised,
)

TO = f"{ADA}@s.whatsapp.net"


async def said(content: Sendable, *, client: NeonizeClient | None = None, to: str = TO) -> Message:
    """The message that a content became."""
    client = client or NeonizeClient()
    await say(client, Said(to, content, None, None))
    return client.said[-1][1]


async def test_a_text_that_refers_to_nothing_is_only_words() -> None:
    client = NeonizeClient()
    assert await say(client, Said(f"+{ADA}", Text(text="Hi"), None, None)) == "3EB00001"
    ((to, message),) = client.said
    assert (to, message.conversation) == (TO, "Hi")
    assert not message.HasField("extendedTextMessage")


async def test_a_link_is_only_marked_and_nothing_is_fetched() -> None:
    message = await said(Text(text="See https://example.org/a?b=c. Yes", link_preview=True))
    assert message.extendedTextMessage.matchedText == "https://example.org/a?b=c"
    assert not message.extendedTextMessage.HasField("title")
    assert (await said(Text(text="No link", link_preview=True))).conversation == "No link"


async def test_an_answer_names_who_wrote_what_it_answers() -> None:
    theirs = await said(Text(text="Yes", reply_to="3EB0AA", reply_to_sender=f"+{ADA}"))
    context = theirs.extendedTextMessage.contextInfo
    assert (context.stanzaID, context.participant) == ("3EB0AA", TO)
    ours = await said(Text(text="Yes", reply_to="3EB0AA"))
    assert ours.extendedTextMessage.contextInfo.participant == f"{OURS}@s.whatsapp.net"


async def test_an_answer_carries_the_words_that_it_answers() -> None:
    client = NeonizeClient()
    event = neonize_client.heard({"conversation": "x" * 1000}, message_id="3EB0AA")
    await heard(client, event, instance_id=new_id(), at=NOON)
    answer = Text(text="Yes", reply_to="3EB0AA", reply_to_sender=TO)
    context = (await said(answer, client=client)).extendedTextMessage.contextInfo
    assert context.quotedMessage.conversation == "x" * 300  # type: ignore[attr-defined]


async def test_somebody_elses_id_does_not_put_words_into_ones_mouth() -> None:
    client = NeonizeClient()
    forged = neonize_client.heard({"conversation": "I owe you"}, message_id="3EB0AA")
    await heard(client, forged, instance_id=new_id(), at=NOON)
    ours = Text(text="See above", reply_to="3EB0AA")
    context = (await said(ours, client=client)).extendedTextMessage.contextInfo
    assert context.quotedMessage.conversation == ""  # type: ignore[attr-defined]


async def test_mentions_are_named_by_their_addresses() -> None:
    message = await said(Text(text=f"@{BEN}", mentions=(f"+{BEN}",)), to=GROUP)
    assert list(message.extendedTextMessage.contextInfo.mentionedJID) == [f"{BEN}@s.whatsapp.net"]


async def test_a_place_and_a_card_are_said_field_by_field() -> None:
    place = (await said(Location(latitude=1.5, longitude=-2.5, name="Here"))).locationMessage
    assert (place.degreesLatitude, place.degreesLongitude, place.name) == (1.5, -2.5, "Here")
    card = (await said(ContactCard(name="A; B, C", phones=(f"+{BEN}", "?")))).contactMessage
    assert card.displayName == "A; B, C"
    assert "FN:A\\; B\\, C" in card.vcard
    assert card.vcard.count("TEL;") == 1
    assert f"waid={BEN}:+{BEN}" in card.vcard


async def test_a_name_cannot_add_lines_to_a_card() -> None:
    card = (await said(ContactCard(name="A\nTEL:+1\r\nEND:VCARD"))).contactMessage
    assert card.vcard.splitlines()[-1] == "END:VCARD"
    assert card.vcard.count("\n") == 4


async def test_a_poll_has_a_secret_of_its_own() -> None:
    poll = Poll(question="Tea?", options=("yes", "no"), selectable=0)
    one, two = await said(poll), await said(poll)
    assert [option.optionName for option in one.pollCreationMessage.options] == ["yes", "no"]
    assert one.pollCreationMessage.selectableOptionsCount == 0
    secrets = {m.messageContextInfo.messageSecret for m in (one, two)}  # type: ignore[attr-defined]
    assert {len(secret) for secret in secrets} == {32}
    assert len(secrets) == 2


@pytest.mark.parametrize(
    ("sender", "from_me"),
    [(None, True), (f"+{OURS}", True), (f"{OUR_LID}@lid", True), (f"+{ADA}", False)],
)
async def test_a_reaction_says_whose_message_it_is_about(
    sender: str | None, *, from_me: bool
) -> None:
    reaction = Reaction(target_id="3EB0AA", target_sender=sender, emoji="👍")
    part = (await said(reaction)).reactionMessage
    assert (part.key.ID, part.key.fromMe, part.text) == ("3EB0AA", from_me, "👍")
    assert (part.key.remoteJID, part.key.participant) == (TO, "")


@pytest.mark.parametrize("by_lid", [False, True])
async def test_in_a_group_members_are_named_as_the_group_names_them(*, by_lid: bool) -> None:
    client = NeonizeClient(pairs={ADA: ADA_LID, BEN: BEN_LID, OURS: OUR_LID}, by_lid=by_lid)
    reaction = Reaction(target_id="3EB0AA", target_sender=f"+{BEN}", emoji="👍")
    part = (await said(reaction, client=client, to=GROUP)).reactionMessage
    assert part.key.participant == (f"{BEN_LID}@lid" if by_lid else f"{BEN}@s.whatsapp.net")
    answer = await said(Text(text="Yes", reply_to="3EB0BB"), client=client, to=GROUP)
    own = f"{OUR_LID}@lid" if by_lid else f"{OURS}@s.whatsapp.net"
    assert answer.extendedTextMessage.contextInfo.participant == own
    assert client.asked.count("get_group_info") == 1


async def test_an_edit_and_a_revocation_name_our_message() -> None:
    edited = await said(Edit(target_id="3EB0AA", text="Hello"))
    change = edited.editedMessage.message.protocolMessage  # type: ignore[attr-defined]
    assert (change.type, change.key.ID, change.key.fromMe) == (14, "3EB0AA", True)
    assert change.editedMessage.conversation == "Hello"
    change = (await said(Revoke(target_id="3EB0AA"))).protocolMessage
    assert (change.type, change.key.ID, change.key.fromMe) == (0, "3EB0AA", True)


async def test_a_file_is_uploaded_and_told_of(tmp_path: Path) -> None:
    client, path = NeonizeClient(), tmp_path / "a"
    path.write_bytes(b"%PDF-1.4")
    media = Media(kind="document", mime_type="x/y", filename="a.pdf", caption="Read")
    await say(client, Said(TO, media, str(path), "application/pdf"))
    assert client.uploaded == [(b"%PDF-1.4", "MediaDocument")]
    paper = client.said[0][1].documentMessage
    assert (paper.fileName, paper.caption, paper.mimetype) == ("a.pdf", "Read", "application/pdf")
    assert (paper.directPath, paper.mediaKey, paper.fileLength) == ("/f", b"k" * 32, 8)


async def test_a_message_whose_file_was_not_uploaded_was_not_sent(tmp_path: Path) -> None:
    client, path = NeonizeClient(), tmp_path / "a"
    path.write_bytes(b"%PDF-1.4")
    client.fails["upload"] = raised("UploadError", "upload failed with status code 500")
    media = Said(TO, Media(kind="document", mime_type="x/y"), str(path), "application/pdf")
    with pytest.raises(Retryable):
        await say(client, media)
    client.fails["upload"] = raised("UploadError", "websocket not connected")
    with pytest.raises(SessionDown):
        await say(client, media)
    assert client.said == []


async def test_a_file_that_is_not_there_is_gone(tmp_path: Path) -> None:
    media = Media(kind="image", mime_type="image/png")
    for path in (None, str(tmp_path / "none")):
        with pytest.raises(Rejected) as refused:
            await say(NeonizeClient(), Said(TO, media, path, "image/png"))
        assert refused.value.code == "MEDIA_GONE"


@pytest.mark.parametrize("to", ["status@broadcast", "1@newsletter", "@g.us", "x@example.org"])
async def test_only_people_and_groups_are_written_to(to: str) -> None:
    client = NeonizeClient()
    with pytest.raises(Refused):
        await say(client, Said(to, Text(text="Hi"), None, None))
    assert client.asked == []


async def test_a_group_that_cannot_be_asked_about_is_not_written_to() -> None:
    client = NeonizeClient()
    words = "you're not participating in that group"
    client.fails["get_group_info"] = raised("GetGroupInfoError", words)
    with pytest.raises(Forbidden):
        await said(Text(text="Yes", reply_to="3EB0AA"), client=client, to=GROUP)
    assert client.said == []


async def test_a_store_that_is_away_after_the_sending_loses_nothing() -> None:
    client = NeonizeClient()
    for call in ("get_lid_from_pn", "get_pn_from_lid"):
        client.fails[call] = raised("GetJIDFromStoreError", "sql: connection refused")
    assert await say(client, Said(f"{ADA_LID}@lid", Text(text="Hi"), None, None)) == "3EB00001"


NOT_WRITTEN = "failed to send message node: websocket not connected"


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("no LID found for 4915@s.whatsapp.net from server", NotOnWhatsApp),
        (NOT_WRITTEN, SessionDown),
        ("failed to send message node: frame socket is closed", SessionDown),
        ("the store doesn't contain a device JID", SessionDown),
        ("client is nil", SessionDown),
        ("failed to get device list: failed to send usync query: info query timed out", Retryable),
        ("failed to get user info for 1 to fill LID cache: websocket not connected", SessionDown),
        ("failed to get device list: info query returned status 429: rate-overlimit", Throttled),
        ("failed to get group members: you're not participating in that group", Forbidden),
        ("can't send message to unknown server example.org", Refused),
        ("frame too large (got 17000000 bytes, max 16777216 bytes)", Refused),
        ("server returned error 400", Refused),
        ("server returned error 463", Refused),
        ("server returned error 479", Retryable),
        ("server returned error 503", Retryable),
        ("server returned error 429", Throttled),
        ("timed out waiting for message send response", Unconfirmed),
        ("websocket disconnected before message send returned response", Unconfirmed),
        ("websocket disconnected before message send (retry) returned response", Unconfirmed),
        # After a reconnect, whatsmeow writes the message a second time, and may fail at that.
        ("websocket not connected", Unconfirmed),
        ("frame socket is closed", Unconfirmed),
        ("failed to send message node: write tcp: broken pipe", Unconfirmed),
        ("something that nobody has seen yet", Unconfirmed),
    ],
)
def test_what_was_written_is_never_taken_for_unsent(words: str, kind: type[PlatformError]) -> None:
    assert type(errors.of_sending(raised("SendMessageError", words))) is kind


async def test_an_error_of_neonizes_comes_out_as_ours() -> None:
    client = NeonizeClient()
    client.fails["send_message"] = raised("SendMessageError", "server returned error 463")
    with pytest.raises(Refused, match="463"):
        await said(Text(text="Hi"), client=client)


async def test_the_options_of_our_poll_are_remembered_for_its_votes() -> None:
    client = NeonizeClient(pairs={ADA: ADA_LID})
    poll_id = await say(client, Said(TO, Poll(question="Tea?", options=("yes", "no")), None, None))
    client.votes = [[hashlib.sha256(b"no").digest()]]
    key = {"remoteJID": f"{OUR_LID}@lid", "fromMe": False, "ID": poll_id}
    vote = neonize_client.heard(
        {"pollUpdateMessage": {"pollCreationMessageKey": key}}, sender=f"{ADA_LID}@lid"
    )
    (event,) = await heard(client, vote, instance_id=new_id(), at=NOON)
    assert event.content.options == ("no",)  # type: ignore[union-attr]
