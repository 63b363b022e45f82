"""Texts that are not accepted leave nothing."""

from io import BytesIO
from typing import Any
from uuid import UUID

from tests.support.gateway import Gateway, Sender

TO = "+12025550199"
# A request that has nothing unusual takes another way than one that has.
BOTH_WAYS: list[dict[str, Any]] = [{}, {"priority": "normal"}]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"to": "0151"}, "to"),
    ({"to": "status@broadcast"}, "to"),
    ({"to": 12025550199}, "to"),
    ({"to": None}, "to"),
    ({"message": ""}, "message"),
    ({"message": "x" * 4097}, "message"),
    ({"message": ["x"]}, "message"),
    ({"message": "a\x00b"}, "message"),
    ({"mesage": "x"}, "mesage"),
    ({"mentions": ["nobody"]}, "mentions.0"),
    ({"priority": "urgent"}, "priority"),
    ({"metadata": {"order": 1}}, "metadata.order"),
    ({"replyTo": str(UUID(int=7))}, "replyTo"),
    ({"instanceId": "x"}, "instanceId"),
    ({"onUnknown": "perhaps"}, "onUnknown"),
]


async def test_a_text_that_is_wrong_is_refused_by_field_and_leaves_nothing(
    gateway: Gateway, sender: Sender
) -> None:
    await sender.warm()
    before = await gateway.rows()
    for wrong, field in WRONG:
        for more in BOTH_WAYS:
            refused = await sender.post({"to": TO, "message": "Hello", **more, **wrong})
            assert (refused.status, refused.code) == (422, "VALIDATION_FAILED")
            assert list(refused.body["error"]["data"]["fields"]) == [field]
            assert refused.headers["RateLimit-Limit"] == "1000000"
        assert await gateway.rows() == before


UNREADABLE: list[tuple[bytes, str, tuple[int, str]]] = [
    (b"", "application/json", (400, "BAD_REQUEST")),
    (b'{"to": "+1202', "application/json", (400, "BAD_REQUEST")),
    (b"\xff\xfe", "application/json", (400, "BAD_REQUEST")),
    (b"[]", "application/json", (422, "VALIDATION_FAILED")),
    (b"{}", "text/plain", (415, "UNSUPPORTED_MEDIA_TYPE")),
    (b"to=1", "application/x-www-form-urlencoded", (415, "UNSUPPORTED_MEDIA_TYPE")),
    (b" " * (20 * 1024 * 1024), "application/json", (413, "PAYLOAD_TOO_LARGE")),
    (b'{"a":' * 100_000, "application/json", (400, "BAD_REQUEST")),
]


async def test_a_body_that_cannot_be_read_leaves_nothing(gateway: Gateway, sender: Sender) -> None:
    await sender.warm()
    before = await gateway.rows()
    for raw, content_type, answer in UNREADABLE:
        refused = await sender.customer.call(
            "POST",
            "/api/messages/text",
            data=BytesIO(raw),
            headers={"Content-Type": content_type},
        )
        assert (refused.status, refused.code) == answer, raw[:20]
    assert await gateway.rows() == before


READINESS: list[tuple[dict[str, Any], bool]] = [
    ({"status": "ready"}, True),
    ({"status": "disconnected"}, True),
    ({"status": "connecting"}, True),
    ({"status": None}, False),
    ({"status": "qr"}, False),
    ({"status": "pairing"}, False),
    ({"status": "logged_out"}, False),
    ({"status": "banned"}, False),
    ({"status": "failed"}, False),
    ({"status": "disconnected", "connected": False}, False),
    ({"status": "ready", "connected": False}, False),
]


async def test_only_an_instance_that_is_or_will_be_ready_takes_messages(gateway: Gateway) -> None:
    for given, takes in READINESS:
        sender = await gateway.sender(**given)
        before = await gateway.rows()
        for more in BOTH_WAYS:
            answer = await sender.post({"to": TO, "message": "x", **more})
            if takes:
                assert answer.status == 202, given
                continue
            assert (answer.status, answer.code) == (409, "INSTANCE_NOT_READY"), given
            assert await gateway.rows() == before
