"""What is read in Meta's callbacks: each kind, people without a number, and nonsense."""

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from services.sessions.engines.cloud_api.incoming import Read, Unreadable, read
from services.sessions.engines.port import MessageReceived, Reaction, StatusChanged
from shared.contracts.content import ContactCard, Location, Media, Text
from shared.ids import new_id
from tests.support import meta as metas
from tests.support.meta import Sent, a_message, a_status, a_text, a_value

INSTANCE = new_id()
NOW = datetime(2026, 2, 1, tzinfo=UTC)
SENT = Sent("1", "wamid.ours", {"to": "12025550142", "biz_opaque_callback_data": "3EB0AA"})


def told(*values: metas.Json) -> Read:
    return read(orjson.dumps({"values": values}), instance_id=INSTANCE, at=NOW)


def heard(message: metas.Json, **given: Any) -> MessageReceived:
    (event,) = told({**a_value("1", messages=[message]), **given}).events
    assert isinstance(event, MessageReceived)
    return event


def test_a_text_names_who_wrote_it_when_and_what_it_answers() -> None:
    event = heard(a_text("Hi", id="wamid.1", context={"from": "1202", "id": "wamid.0"}))
    assert event.content == Text(text="Hi", reply_to="wamid.0")
    assert (event.engine_message_id, event.reply_to) == ("wamid.1", "wamid.0")
    assert event.chat == "12025550142@s.whatsapp.net"
    assert event.sender.phone == "+12025550142"
    assert event.sender.lid == "US.12025550142@lid"
    assert event.sender.push_name == "Ada"
    assert event.at == datetime(2026, 1, 15, 12, tzinfo=UTC)
    assert event.stanza_key == "message|wamid.1"


FILE = {"id": "77", "mime_type": "audio/ogg; codecs=opus", "sha256": "not base64", "url": "x"}


@pytest.mark.parametrize(
    ("kind", "said", "known_as"),
    [
        ("image", {**FILE, "mime_type": "image/jpeg", "caption": "Look"}, "image"),
        ("video", FILE, "video"),
        ("audio", FILE, "audio"),
        ("audio", {**FILE, "voice": True}, "voice"),
        ("document", {**FILE, "filename": "a.pdf"}, "document"),
        ("sticker", {**FILE, "animated": False}, "sticker"),
    ],
)
def test_a_file_comes_with_what_it_takes_to_fetch_it(
    kind: str, said: metas.Json, known_as: str
) -> None:
    event = heard(a_message(kind, said))
    assert isinstance(event.content, Media)
    assert event.content.kind == known_as
    assert event.content.caption == said.get("caption")
    assert event.content.filename == said.get("filename")
    assert event.content.mime_type == said["mime_type"].partition(";")[0]
    assert event.media == {"id": "77"}


def test_a_files_digest_is_told_as_everywhere_else() -> None:
    said = {**FILE, "sha256": "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="}
    content = heard(a_message("image", said)).content
    assert isinstance(content, Media)
    assert content.sha256 == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.parametrize(
    ("kind", "said", "content"),
    [
        (
            "location",
            {"latitude": 52.5, "longitude": 13.4, "name": "Berlin"},
            Location(latitude=52.5, longitude=13.4, name="Berlin"),
        ),
        (
            "contacts",
            [
                {"name": {"formatted_name": "Ada"}, "phones": [{"phone": "1", "wa_id": "12"}]},
                {"name": {"formatted_name": "Bob"}, "phones": [{"phone": "+1 34"}]},
            ],
            ContactCard(name="Ada, Bob", phones=("+12", "+1 34")),
        ),
        ("button", {"payload": "P", "text": "Yes"}, Text(text="Yes")),
        (
            "interactive",
            {"type": "button_reply", "button_reply": {"id": "1", "title": "No"}},
            Text(text="No"),
        ),
        (
            "interactive",
            {"type": "list_reply", "list_reply": {"id": "1", "title": "Tea"}},
            Text(text="Tea"),
        ),
    ],
)
def test_every_kind_is_heard_as_it_was_said(kind: str, said: Any, content: object) -> None:
    assert heard(a_message(kind, said)).content == content


def test_a_reaction_names_its_message_and_without_an_emoji_takes_it_back() -> None:
    given = a_message("reaction", {"message_id": "wamid.1", "emoji": "👍"}, id="wamid.r")
    back = a_message("reaction", {"message_id": "wamid.1"}, id="wamid.s")
    first, second = told(a_value("1", messages=[given, back])).events
    assert isinstance(first, Reaction)
    assert isinstance(second, Reaction)
    assert (first.target_id, first.emoji, second.emoji) == ("wamid.1", "👍", "")
    assert first.stanza_key != second.stanza_key


def test_somebody_without_a_number_is_known_by_what_meta_calls_them() -> None:
    message = a_text(from_user_id="US.13491208655302741918")
    del message["from"]
    contact = {"profile": {"name": "Eve"}, "user_id": "US.13491208655302741918"}
    event = heard(message, contacts=[contact])
    assert event.sender.phone is None
    assert event.chat == event.sender.chat_id == event.sender.lid
    assert event.chat == "US.13491208655302741918@lid"
    assert event.sender.push_name == "Eve"


def test_somebody_is_found_among_the_contacts_if_the_message_names_nobody() -> None:
    message = a_text()
    del message["from"]
    event = heard(message, contacts=[{"profile": {}, "user_id": "DE.ENT.9a"}])
    assert event.chat == "DE.ENT.9a@lid"


def test_each_receipt_says_which_message_and_under_which_id_we_gave_it() -> None:
    statuses = ("sent", "delivered", "read", "played", "warning")
    events = told(a_value("1", statuses=[a_status(SENT, one) for one in statuses])).events
    assert [one.status for one in events if isinstance(one, StatusChanged)] == [
        "sent",
        "delivered",
        "read",
        "read",
    ]
    assert {
        (one.engine_message_id, one.client_message_id)
        for one in events
        if isinstance(one, StatusChanged)
    } == {("wamid.ours", "3EB0AA")}


def test_a_message_that_failed_says_why() -> None:
    error = {"code": 131026, "title": "Undeliverable", "error_data": {"details": "Not there."}}
    (event,) = told(a_value("1", statuses=[a_status(SENT, "failed", errors=[error])])).events
    assert isinstance(event, StatusChanged)
    assert (event.status, event.reason) == ("failed", "WhatsApp says: Not there (131026).")


def test_a_batch_is_read_whole_and_in_its_order() -> None:
    values = [
        a_value("1", messages=[a_text("one"), a_text("two", by="12025550143")]),
        a_value("1", statuses=[a_status(SENT, "read")]),
        a_value("1", messages=[a_text("three")]),
    ]
    events = told(*values).events
    texts = [one.content for one in events if isinstance(one, MessageReceived)]
    assert texts == [Text(text=text) for text in ("one", "two", "three")]
    assert isinstance(events[2], StatusChanged)


@pytest.mark.parametrize("kind", ["unsupported", "order", "system", "of_tomorrow", "text"])
def test_a_kind_that_nobody_knows_tells_nothing_and_is_not_wrong(kind: str) -> None:
    message = a_message("order", {}) | {"type": kind}
    assert told(a_value("1", messages=[message])) == Read(events=[], unreadable=0)


@pytest.mark.parametrize(
    "wrong",
    [
        "no object",
        {},
        a_text(id=""),
        a_text(id="x" * 300),
        a_text() | {"from": "nobody"},
        a_message("text", {"body": 5}),
        a_message("reaction", {"emoji": "👍"}),
        a_message("location", {"latitude": 999, "longitude": 0}),
    ],
)
def test_what_cannot_be_read_is_counted_and_takes_nothing_along(wrong: Any) -> None:
    value = a_value("1") | {"messages": [wrong, a_text("Fine")]}
    value["contacts"] = []
    said = told(value)
    assert (len(said.events), said.unreadable) == (1, 1)


def test_what_the_gateway_never_stores_is_unreadable() -> None:
    for stored in (b"", b"[]", b'{"values": 5}'):
        with pytest.raises(Unreadable):
            read(stored, instance_id=INSTANCE, at=NOW)
    assert told({"messages": "none"}).unreadable == 1


def test_words_that_no_database_takes_are_cleaned() -> None:
    assert heard(a_text("a\x00b")).content == Text(text="ab")


def test_a_time_that_is_none_or_in_the_future_is_when_it_came() -> None:
    for timestamp in ("", "soon", "99999999999", "0", "9" * 5000, "\u0661"):
        assert heard(a_text(timestamp=timestamp)).at == NOW
