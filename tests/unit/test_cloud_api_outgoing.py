"""What Meta is asked to send: each kind of message, answers, and what it has no words for."""

from pathlib import Path
from typing import Any

import pytest

from services.sessions.engines.cloud_api.account import Account
from services.sessions.engines.cloud_api.outgoing import check, read_mark, request
from services.sessions.engines.port import Attachment, Outgoing, Refused, Unsupported
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

ADA = "12025550142@s.whatsapp.net"
MIB = 1024 * 1024


def outgoing(content: Sendable, *, to: str = ADA, **given: Any) -> Outgoing:
    return Outgoing(engine_message_id="3EB0AA", to=to, content=content, **given)


def a_file(mime_type: str, size: int = 1) -> Attachment:
    return Attachment(path=Path("file"), mime_type=mime_type, size=size, sha256="0" * 64)


def media(kind: Any, **given: Any) -> Media:
    return Media(kind=kind, mime_type="application/octet-stream", **given)


@pytest.mark.parametrize(
    ("content", "kind", "said"),
    [
        (Text(text="Hi", link_preview=True), "text", {"body": "Hi", "preview_url": True}),
        (media("image", caption="Look"), "image", {"id": "77", "caption": "Look"}),
        (media("video"), "video", {"id": "77"}),
        (media("audio", caption="lost"), "audio", {"id": "77"}),
        (media("voice"), "audio", {"id": "77", "voice": True}),
        (
            media("document", filename="a.pdf", caption="Read"),
            "document",
            {"id": "77", "caption": "Read", "filename": "a.pdf"},
        ),
        (media("sticker", filename="lost"), "sticker", {"id": "77"}),
        (
            Location(latitude=52.5, longitude=13.4, name="Berlin"),
            "location",
            {"latitude": 52.5, "longitude": 13.4, "name": "Berlin"},
        ),
        (
            Reaction(target_id="wamid.1", emoji=""),
            "reaction",
            {"message_id": "wamid.1", "emoji": ""},
        ),
        (
            ContactCard(name="Ada", phones=("+12025550199",)),
            "contacts",
            [
                {
                    "name": {"formatted_name": "Ada", "first_name": "Ada"},
                    "phones": [{"phone": "+12025550199", "type": "CELL", "wa_id": "12025550199"}],
                }
            ],
        ),
    ],
)
def test_each_kind_is_said_as_meta_documents_it(content: Sendable, kind: str, said: Any) -> None:
    assert request(outgoing(content), media_id="77") == {
        "messaging_product": "whatsapp",
        "recipient_type": "individual",
        "to": "12025550142",
        "type": kind,
        kind: said,
        "biz_opaque_callback_data": "3EB0AA",
    }


def test_an_answer_names_what_it_answers() -> None:
    for content in (Text(text="Hi", reply_to="wamid.1"), media("image", reply_to="wamid.1")):
        assert request(outgoing(content), media_id="77")["context"] == {"message_id": "wamid.1"}


def test_somebody_without_a_number_is_reached_by_what_meta_calls_them() -> None:
    body = request(outgoing(Text(text="Hi"), to="US.1349@lid"), media_id=None)
    assert body["recipient"] == "US.1349"
    assert "to" not in body


@pytest.mark.parametrize(
    ("content", "to"),
    [
        (Poll(question="Tea?", options=("Yes", "No")), ADA),
        (Edit(target_id="wamid.1", text="Hello"), ADA),
        (Revoke(target_id="wamid.1"), ADA),
        (Text(text="Hi"), "120363000000000001@g.us"),
    ],
)
def test_what_meta_has_no_words_for_is_refused_by_us(content: Sendable, to: str) -> None:
    with pytest.raises(Unsupported):
        request(outgoing(content, to=to), media_id=None)


def test_a_file_that_meta_would_not_take_is_refused_before_it_is_uploaded() -> None:
    check(outgoing(media("image"), attachment=a_file("image/png", 5 * MIB)))
    check(outgoing(media("document"), attachment=a_file("application/zip", 90 * MIB)))
    check(outgoing(Text(text="Hi")))
    for kind, file in (
        ("image", a_file("image/png", 5 * MIB + 1)),
        ("image", a_file("image/gif")),
        ("voice", a_file("audio/mpeg")),
        ("sticker", a_file("image/png")),
        ("image", None),
    ):
        with pytest.raises(Refused):
            check(outgoing(media(kind), attachment=file))


def test_reading_and_typing_are_said_about_a_message() -> None:
    read = {"messaging_product": "whatsapp", "status": "read", "message_id": "wamid.1"}
    assert read_mark("wamid.1") == read
    assert read_mark("wamid.1", typing=True) == {**read, "typing_indicator": {"type": "text"}}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"phoneNumberId": "1234567"},
        {"accessToken": "EAAG"},
        {"phoneNumberId": "1234567", "accessToken": ""},
        {"phoneNumberId": "../me", "accessToken": "EAAG"},
        {"phoneNumberId": 1234567, "accessToken": "EAAG"},
    ],
)
def test_settings_that_name_no_number_or_token_open_nothing(settings: dict[str, object]) -> None:
    with pytest.raises(Refused):
        Account.of(settings)


def test_a_token_is_in_no_log() -> None:
    account = Account.of({"phoneNumberId": "1234567", "accessToken": "EAAG"})
    assert "EAAG" not in repr(account)
