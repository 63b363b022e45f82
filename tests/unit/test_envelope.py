"""Envelopes: what stands around an event, how it is read back, and what readers leave out."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import orjson
import pytest

from shared.contracts import envelope, events
from shared.contracts.envelope import Emitted, UnknownEvent
from shared.contracts.events import InstanceQr, WebhookDisabled
from shared.ids import id_of, new_id
from tests.support.builders import NOON

TENANT, INSTANCE = new_id(), new_id()


def an_event(**given: Any) -> Emitted:
    """An event about an instance."""
    return Emitted(
        **{
            "id": new_id(),
            "event": InstanceQr(code="2@abc", expires_at=NOON),
            "tenant_id": TENANT,
            "instance_id": INSTANCE,
            "time": NOON,
            "subject": str(INSTANCE),
            "partition_key": str(INSTANCE),
            "correlation_id": "req-1",
            **given,
        }
    )


def told(**given: Any) -> dict[str, Any]:
    """An event as it is on the wire, as an object."""
    read: dict[str, Any] = orjson.loads(envelope.encode(an_event(**given)))
    return read


def test_what_was_encoded_is_decoded_to_the_same() -> None:
    emitted = an_event()
    assert envelope.decode(envelope.encode(emitted)) == emitted


def test_an_event_is_encoded_the_same_every_time() -> None:
    # It may be published twice, and must be the same event then, to the last byte.
    emitted = an_event()
    assert envelope.encode(emitted) == envelope.encode(emitted)


def test_an_event_of_no_instance_has_none_in_its_envelope() -> None:
    event = WebhookDisabled(webhook_id="1", url="https://example.com", reason="gone")
    body = told(event=event, instance_id=None)
    assert "instanceid" not in body
    assert body["source"] == f"/tenants/{TENANT}"
    assert envelope.decode(orjson.dumps(body)).instance_id is None


def test_the_routing_key_names_tenant_instance_event_and_version() -> None:
    assert an_event().routing_key == f"ev.{TENANT}.{INSTANCE}.instance.qr.v1"
    assert an_event(instance_id=None).routing_key == f"ev.{TENANT}.none.instance.qr.v1"


def test_times_are_told_in_utc_with_milliseconds() -> None:
    berlin = timezone(timedelta(hours=1))
    at = datetime(2026, 1, 15, 13, 0, 0, 123_987, tzinfo=berlin)
    body = told(time=at, event=InstanceQr(code="2@abc", expires_at=at))
    assert body["time"] == body["data"]["expiresAt"] == "2026-01-15T12:00:00.123Z"


def test_sequences_sort_as_text_in_the_order_of_time() -> None:
    times = [
        datetime(1999, 12, 31, tzinfo=UTC),
        NOON,
        NOON + timedelta(microseconds=1),
        datetime(2999, 1, 1, tzinfo=UTC),
    ]
    sequences = [told(time=at)["sequence"] for at in times]
    assert sequences == sorted(set(sequences))


def test_all_that_follows_from_one_request_is_one_trace() -> None:
    one, other, stranger = (
        told(correlation_id=cause)["traceparent"].split("-") for cause in ("r1", "r1", "r2")
    )
    assert one[1] == other[1] != stranger[1]
    assert one[2] != other[2]
    assert [len(part) for part in one] == [2, 32, 16, 2]


def test_an_event_without_a_cause_is_a_trace_of_its_own() -> None:
    id_ = id_of("test", 1)
    assert told(id=id_, correlation_id=None)["correlationid"] == str(id_)


def test_what_is_not_known_is_left_out_and_not_null() -> None:
    event = events.Test(message="Hello")
    assert told(event=event)["data"] == {"message": "Hello"}


def test_a_batch_is_read_in_its_order() -> None:
    several = [an_event() for _ in range(5)]
    body = envelope.join([envelope.encode(event) for event in several])
    assert envelope.decode_batch(body) == several
    assert [carried.id for carried in envelope.carried_batch(body)] == [one.id for one in several]


def test_an_empty_batch_is_a_batch() -> None:
    assert envelope.join([]) == b"[]"
    assert envelope.decode_batch(b"[]") == []


UNKNOWN = ["dev.waypost.moon.landed.v1", "dev.waypost.instance.qr.v2", "com.example.other"]


@pytest.mark.parametrize("type_", UNKNOWN)
def test_an_event_of_an_unknown_type_or_version_is_told_apart_from_garbage(type_: str) -> None:
    with pytest.raises(UnknownEvent, match=type_):
        envelope.decode(orjson.dumps({**told(), "type": type_}))


@pytest.mark.parametrize("type_", UNKNOWN)
def test_events_of_unknown_types_are_left_out_of_a_batch(type_: str) -> None:
    known = an_event()
    newer = orjson.dumps({**told(), "type": type_, "data": {"of": "another shape"}})
    body = envelope.join([newer, envelope.encode(known), newer])
    assert envelope.decode_batch(body) == [known]


def test_who_only_passes_events_on_gets_those_it_does_not_know_as_well() -> None:
    newer = orjson.dumps({**told(), "type": "dev.waypost.moon.landed.v1", "data": {"who": "us"}})
    (carried,) = envelope.carried_batch(envelope.join([newer]))
    assert (carried.name, carried.data) == ("moon.landed", {"who": "us"})


def test_who_only_passes_events_on_leaves_out_versions_told_beside_ours() -> None:
    newer = orjson.dumps({**told(), "type": "dev.waypost.instance.qr.v2"})
    assert envelope.carried_batch(envelope.join([newer])) == []


def test_a_carried_event_keeps_fields_that_this_program_does_not_know() -> None:
    body = told()
    body["data"]["added"] = "later"
    (carried,) = envelope.carried_batch(envelope.join([orjson.dumps(body)]))
    assert carried.data["added"] == "later"
    assert (carried.tenant_id, carried.instance_id) == (TENANT, INSTANCE)
    assert (carried.time, carried.timestamp) == (NOON, "2026-01-15T12:00:00.000Z")


@pytest.mark.parametrize(
    "body",
    [b"", b"not json", b"[]", b"{}", b'{"type": "dev.waypost.instance.qr.v1"}', b"\xff"],
)
def test_what_is_no_event_is_an_error(body: bytes) -> None:
    with pytest.raises(ValueError, match=r".") as error:
        envelope.decode(body)
    assert not isinstance(error.value, UnknownEvent)


@pytest.mark.parametrize("body", [b"", b"3", b"{}", b"[3]", b'[{"type": 3}]', b'[{"type": "x"'])
def test_what_is_no_batch_is_an_error(body: bytes) -> None:
    for read in (envelope.decode_batch, envelope.carried_batch):
        with pytest.raises(ValueError, match=r"."):
            read(body)


def test_ids_that_are_none_are_an_error() -> None:
    with pytest.raises(ValueError, match="UUID"):
        envelope.decode(orjson.dumps({**told(), "id": "1"}))


def test_the_id_of_an_event_is_not_made_up_when_it_is_read() -> None:
    id_ = UUID("018f3b2e-0000-7000-8000-000000000001")
    assert envelope.decode(envelope.encode(an_event(id=id_))).id == id_
