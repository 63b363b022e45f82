"""Sending files: brought by a form or as base64, named by an upload, or by a URL."""

import asyncio
import base64
import io
from typing import Any
from uuid import UUID

import orjson
import pytest

from shared.contracts.content import Media
from shared.ids import new_id
from tests.integration.test_gateway_kinds import CHAT, TO, a_row, row_of
from tests.support import samples
from tests.support.customer import Answer
from tests.support.files import an_inbound_file, form, sha256, upload
from tests.support.gateway import Gateway, Sender

PNG = samples.png()
FILES: list[tuple[str, bytes, str]] = [
    ("image", PNG, "image/png"),
    ("image", samples.WEBP, "image/webp"),
    ("video", samples.MP4, "video/mp4"),
    ("audio", samples.MP3, "audio/mpeg"),
    ("voice", samples.VOICE, "audio/ogg"),
    ("document", samples.PDF, "application/pdf"),
    ("sticker", samples.WEBP, "image/webp"),
]


async def send_form(
    sender: Sender,
    kind: str,
    content: bytes,
    *,
    headers: dict[str, str] | None = None,
    **fields: str,
) -> Answer:
    body = form(content, field=kind, filename="a file", fields={"to": TO, **fields})
    return await sender.customer.call("POST", f"/api/messages/{kind}", data=body, headers=headers)


async def send(sender: Sender, kind: str = "image", **body: Any) -> Answer:
    headers = body.pop("headers", None)
    return await sender.customer.post(f"/api/messages/{kind}", {"to": TO, **body}, headers=headers)


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


async def files(gateway: Gateway) -> int:
    found: int = await gateway.sql.fetchval(
        "SELECT count(*) FROM gateway.media WHERE deleted_at IS NULL"
    )
    return found


@pytest.mark.parametrize(
    ("kind", "content", "mime_type"), FILES, ids=[f"{kind}-{name}" for kind, _, name in FILES]
)
async def test_a_file_in_a_form_is_stored_and_its_message_names_it(
    gateway: Gateway, sender: Sender, kind: str, content: bytes, mime_type: str
) -> None:
    row = await row_of(gateway, await send_form(sender, kind, content, priority="high"))
    assert (row["type"], row["chat"], row["priority"]) == (kind, CHAT, 0)
    said = row["content"]
    assert isinstance(said, Media)
    assert said == Media(
        kind=kind,  # type: ignore[arg-type]
        mime_type=mime_type,
        filename=said.filename,
        size=len(content),
        sha256=sha256(content),
        media_id=said.media_id,
    )
    stored = (await sender.customer.get(f"/api/media/{said.media_id}")).data
    assert (stored["status"], stored["sha256"]) == ("stored", sha256(content))


async def test_the_fields_of_a_form_reach_the_message(gateway: Gateway, sender: Sender) -> None:
    target = await a_row(gateway, sender, status="sent")
    answer = await send_form(
        sender,
        "image",
        PNG,
        caption="Look",
        replyTo=str(target),
        metadata='{"order": "1042"}',
        onUnknown="resend",
    )
    row = await row_of(gateway, answer)
    assert row["content"].caption == "Look"
    assert row["content"].reply_to == "3EB0" + target.hex[:18].upper()
    assert orjson.loads(row["metadata"]) == {"order": "1042"}
    assert row["on_unknown"] == "resend"


async def test_a_file_as_base64_is_stored_like_one_of_a_form(
    gateway: Gateway, sender: Sender
) -> None:
    for base64_ in (encoded(PNG), f"data:image/png;base64,{encoded(PNG)}"):
        answer = await send(sender, base64=base64_, caption="Look", filename="a.png")
        said = (await row_of(gateway, answer))["content"]
        assert (said.sha256, said.caption, said.filename) == (sha256(PNG), "Look", "a.png")
    assert await files(gateway) == 2


async def test_an_uploaded_file_is_named_by_its_id(gateway: Gateway, sender: Sender) -> None:
    media = (await upload(sender.customer, PNG)).data["id"]
    first = (await row_of(gateway, await send(sender, mediaId=media)))["content"]
    assert (first.media_id, first.mime_type, first.size) == (media, "image/png", len(PNG))
    renamed = await send(sender, "document", mediaId=media, filename="offer.png")
    assert (await row_of(gateway, renamed))["content"].filename == "offer.png"
    assert await files(gateway) == 1


async def test_a_url_is_kept_for_when_the_message_is_sent(gateway: Gateway, sender: Sender) -> None:
    answer = await send(
        sender, url="https://example.com/a/picture.jpg?size=2", mentions=["+12025550142"]
    )
    assert (await row_of(gateway, answer))["content"] == Media(
        kind="image",
        mime_type="image/jpeg",
        url="https://example.com/a/picture.jpg?size=2",
        mentions=("12025550142@s.whatsapp.net",),
    )
    unknown = await row_of(gateway, await send(sender, url="https://example.com/picture"))
    assert unknown["content"].mime_type == "application/octet-stream"
    hinted = await send(sender, "document", url="https://example.com/x", mimeType="Application/PDF")
    assert (await row_of(gateway, hinted))["content"].mime_type == "application/pdf"


WRONG: list[tuple[str, dict[str, Any], int, str | None]] = [
    ("image", {}, 422, "body"),
    ("image", {"url": "https://example.com/a", "base64": "AAAA"}, 422, "body"),
    ("image", {"url": "ftp://example.com/a"}, 422, "url"),
    ("image", {"url": "https://10.0.0.1/a"}, 422, "url"),
    ("image", {"url": "https://ada:secret@example.com/a"}, 422, "url"),
    ("image", {"base64": "not base64!"}, 422, "base64"),
    ("image", {"base64": ""}, 422, "base64"),
    ("image", {"base64": encoded(samples.PDF)}, 415, None),
    ("voice", {"base64": encoded(PNG)}, 415, None),
    ("document", {"base64": encoded(samples.PROGRAM)}, 415, None),
    ("image", {"mediaId": str(new_id())}, 422, "mediaId"),
    ("image", {"mediaId": "x"}, 422, "mediaId"),
    ("voice", {"base64": encoded(samples.VOICE), "caption": "x"}, 422, "caption"),
    ("sticker", {"base64": encoded(samples.WEBP), "caption": "x"}, 422, "caption"),
    ("image", {"base64": encoded(PNG), "caption": "x" * 1025}, 422, "caption"),
    ("image", {"base64": encoded(PNG), "replyTo": str(new_id())}, 422, "replyTo"),
    ("image", {"base64": encoded(PNG), "to": "nobody"}, 422, "to"),
]


async def test_what_is_wrong_leaves_neither_a_message_nor_a_file(
    gateway: Gateway, sender: Sender
) -> None:
    for kind, body, status, field in WRONG:
        refused = await send(sender, kind, **body)
        assert refused.status == status, (kind, body, refused.body)
        if field is not None:
            assert field in refused.body["error"]["data"]["fields"], refused.body
        assert "secret" not in orjson.dumps(refused.body).decode()
    forms: list[tuple[str, bytes, dict[str, Any], int]] = [
        ("image", samples.PDF, {}, 415),
        ("image", PNG, {"to": "nobody"}, 422),
        ("image", PNG, {"colour": "red"}, 422),
        ("image", PNG, {"metadata": "{"}, 422),
        ("image", PNG, {"replyTo": str(new_id())}, 422),
        ("voice", samples.VOICE, {"caption": "x"}, 422),
    ]
    for kind, content, fields, status in forms:
        refused = await send_form(sender, kind, content, **fields)
        assert refused.status == status, (kind, fields, refused.body)
    assert await gateway.count("dispatcher.messages") == 0
    assert await files(gateway) == 0


async def test_a_file_of_a_message_that_is_refused_is_forgotten_but_not_an_older_one(
    gateway: Gateway,
) -> None:
    sender = await gateway.sender(status="logged_out")
    media = (await upload(sender.customer, PNG)).data["id"]
    for refused in (
        await send_form(sender, "image", PNG),
        await send(sender, base64=encoded(PNG)),
        await send(sender, mediaId=media),
        await send(sender, url="https://example.com/a.png"),
    ):
        assert (refused.status, refused.code) == (409, "INSTANCE_NOT_READY")
    assert await files(gateway) == 1
    assert (await sender.customer.get(f"/api/media/{media}")).data["status"] == "stored"


async def test_a_repeated_form_under_a_key_sends_once_and_keeps_one_file(
    gateway: Gateway, sender: Sender
) -> None:
    headers = {"Idempotency-Key": "picture-1"}
    first = await send_form(sender, "image", PNG, headers=headers, caption="Look")
    again = await send_form(sender, "image", PNG, headers=headers, caption="Look")
    assert (first.status, again.data) == (202, first.data)
    assert again.headers["Idempotency-Replayed"] == "true"
    for content, caption in ((PNG, "Other"), (samples.png("other"), "Look")):
        other = await send_form(sender, "image", content, headers=headers, caption=caption)
        assert other.code == "IDEMPOTENCY_MISMATCH"
    assert await gateway.count("dispatcher.messages") == 1
    assert await files(gateway) == 1


async def test_a_refused_form_does_not_take_the_file_that_another_under_its_key_sends(
    gateway: Gateway, sender: Sender
) -> None:
    for n in range(8):
        headers = {"Idempotency-Key": f"picture-{n}"}
        refused = [{"to": "nobody"}, {"colour": "red"}, {"replyTo": str(new_id())}]
        *others, accepted = await asyncio.gather(
            *(send_form(sender, "image", PNG, headers=headers, **fields) for fields in refused),
            send_form(sender, "image", PNG, headers=headers),
        )
        assert {answer.status for answer in others} <= {409, 422}
        if accepted.status == 409:  # One of the others was on its way under this key.
            accepted = await send_form(sender, "image", PNG, headers=headers)
        said = (await row_of(gateway, accepted))["content"]
        stored = await sender.customer.get(f"/api/media/{said.media_id}")
        assert stored.data["status"] == "stored"
        assert await files(gateway) == n + 1


async def test_of_forms_at_once_that_are_all_refused_nothing_stays(
    gateway: Gateway, sender: Sender
) -> None:
    headers = {"Idempotency-Key": "picture"}
    answers = await asyncio.gather(
        *(send_form(sender, "image", PNG, headers=headers, to="nobody") for _ in range(6)),
        *(send_form(sender, "image", PNG, to="nobody") for _ in range(2)),
    )
    assert {answer.status for answer in answers} == {422}
    assert await files(gateway) == 0


async def test_files_of_others_and_files_that_were_received_cannot_be_sent(
    gateway: Gateway, sender: Sender
) -> None:
    stranger = await gateway.sender()
    foreign = (await upload(stranger.customer, PNG)).data["id"]
    inbound = await an_inbound_file(gateway.sql, sender.tenant, sender.instance)
    for media in (foreign, inbound):
        refused = await send(sender, mediaId=media)
        assert list(refused.body["error"]["data"]["fields"]) == ["mediaId"]


@pytest.mark.parametrize(
    ("media", "kind"),
    [
        ({"base64": encoded(PNG), "type": "image"}, "image"),
        ({"base64": encoded(PNG), "mimeType": "image/png"}, "image"),
        ({"base64": encoded(PNG), "type": "document"}, "document"),
        ({"base64": encoded(samples.PDF)}, "document"),
        ({"url": "https://example.com/a.mp4"}, "video"),
        ({"url": "https://example.com/a.ogg", "type": "voice"}, "voice"),
        ({"url": "https://example.com/a"}, "document"),
    ],
)
async def test_the_generic_form_takes_a_file_with_words_under_it(
    gateway: Gateway, sender: Sender, media: dict[str, str], kind: str
) -> None:
    caption = {} if kind == "voice" else {"message": "Look"}
    answer = await sender.customer.post(
        "/api/messages/send", {"to": TO, "media": media, **caption, "priority": "low"}
    )
    row = await row_of(gateway, answer)
    assert (row["type"], row["content"].kind, row["priority"]) == (kind, kind, 2)
    assert row["content"].caption == caption.get("message")


async def test_the_generic_form_finds_out_what_an_upload_is(
    gateway: Gateway, sender: Sender
) -> None:
    for content, name, kind in ((PNG, "a.png", "image"), (samples.MP3, "a.mp3", "audio")):
        uploaded = await upload(sender.customer, content, filename=name)
        answer = await sender.customer.post(
            "/api/messages/send", {"to": TO, "media": {"mediaId": uploaded.data["id"]}}
        )
        assert (await row_of(gateway, answer))["type"] == kind
    unknown = await sender.customer.post(
        "/api/messages/send", {"to": TO, "media": {"mediaId": str(UUID(int=7))}}
    )
    assert unknown.status == 422


async def test_what_is_larger_than_allowed_is_refused_before_it_is_read(
    gateway: Gateway, sender: Sender
) -> None:
    refused = await send_form(sender, "document", b"x" * (11 * 1024 * 1024))
    assert (refused.status, refused.code) == (413, "PAYLOAD_TOO_LARGE")
    raw = b'{"to": "+12025550199", "base64": "' + base64.b64encode(bytes(11 * 1024 * 1024)) + b'"}'
    refused = await sender.customer.call(
        "POST",
        "/api/messages/document",
        data=io.BytesIO(raw),
        headers={"Content-Type": "application/json"},
    )
    assert (refused.status, refused.code) == (413, "PAYLOAD_TOO_LARGE")
    assert await gateway.count("dispatcher.messages") == 0
