"""Which endpoint wants which event, and what it is sent."""

import json
from uuid import UUID

import orjson
import pytest

from services.webhooks.domain.endpoint import Endpoint
from services.webhooks.domain.payload import message_of
from shared.contracts.public import public_event
from shared.ids import new_id

MINE, ANOTHER = new_id(), new_id()


def an_endpoint(*patterns: str, instance_id: UUID | None = None) -> Endpoint:
    return Endpoint(
        id=new_id(),
        tenant_id=new_id(),
        instance_id=instance_id,
        url="https://example.com/hook",
        secret=b"whsec_MTIz",
        patterns=patterns,
    )


@pytest.mark.parametrize(
    ("patterns", "wanted"),
    [
        (("*",), True),
        (("message.*",), True),
        (("message.sent",), True),
        (("message.read", "message.sent"), True),
        (("message.sent.*",), False),
        (("message.send",), False),
        (("message",), False),
        (("mess.*",), False),
        (("instance.*",), False),
        ((), False),
    ],
)
def test_patterns(patterns: tuple[str, ...], wanted: bool) -> None:
    assert an_endpoint(*patterns).wants("message.sent", MINE) is wanted


def test_an_endpoint_of_one_instance_wants_nothing_of_others_or_of_none() -> None:
    endpoint = an_endpoint("*", instance_id=MINE)
    assert endpoint.wants("message.sent", MINE)
    assert not endpoint.wants("message.sent", ANOTHER)
    assert not endpoint.wants("webhook.disabled", None)


def test_nobody_subscribes_to_tests() -> None:
    assert not an_endpoint("*", "test").wants("test", None)


def test_the_body_keeps_data_as_it_was_told() -> None:
    data = {"messageId": "x", "text": "ü\u2028\u0000", "later": {"field": [1, None]}}
    body = orjson.dumps(
        public_event(
            event_id=UUID(int=1),
            name="message.sent",
            instance_id=UUID(int=2),
            instance_name="Shop",
            data=data,
            timestamp="2026-01-15T12:00:00.000Z",
        )
    )
    assert json.loads(body) == {
        "id": str(UUID(int=1)),
        "event": "message.sent",
        "instance": {"id": str(UUID(int=2)), "name": "Shop"},
        "data": data,
        "timestamp": "2026-01-15T12:00:00.000Z",
    }


@pytest.mark.parametrize(
    ("data", "message_id"),
    [
        ({"messageId": str(MINE)}, MINE),
        ({"messageId": "3EB0AA"}, None),
        ({"messageId": 7}, None),
        ({}, None),
    ],
)
def test_a_delivery_knows_the_message_it_is_about(
    data: dict[str, object], message_id: UUID | None
) -> None:
    assert message_of(data) == message_id
