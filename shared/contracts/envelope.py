"""Events on the wire: CloudEvents 1.0 in JSON, one by one or as a batch.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from hashlib import sha256
from uuid import UUID

import orjson

from shared.contracts.events import EVENTS
from shared.contracts.model import Event, rfc3339

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
PREFIX = "dev.waypost."


@dataclass(frozen=True, slots=True, kw_only=True)
class Emitted:
    """An event with what the envelope says about it.

    ``id`` is a function of the cause, so that a repeat is recognised. ``correlation_id`` is the id
    of the request that all this follows from.
    """

    id: UUID
    event: Event
    tenant_id: UUID
    instance_id: UUID | None
    time: datetime
    subject: str
    partition_key: str
    correlation_id: str | None = None

    @property
    def name(self) -> str:
        """The public name, such as ``message.sent``."""
        return self.event.TYPE

    @property
    def routing_key(self) -> str:
        """The key under which subscribers find it on ``waypost.events``."""
        instance = self.instance_id or "none"
        return f"ev.{self.tenant_id}.{instance}.{self.event.TYPE}.v{self.event.VERSION}"


def encode(emitted: Emitted) -> bytes:
    """One event as structured CloudEvents JSON."""
    event = emitted.event
    name = f"{PREFIX}{event.TYPE}.v{event.VERSION}"
    tenant = str(emitted.tenant_id)
    instance = str(emitted.instance_id) if emitted.instance_id else None
    id_ = str(emitted.id)
    cause = emitted.correlation_id or id_
    body: dict[str, object] = {
        "specversion": "1.0",
        "id": id_,
        "source": f"/tenants/{tenant}/instances/{instance}" if instance else f"/tenants/{tenant}",
        "type": name,
        "subject": emitted.subject,
        "time": rfc3339(emitted.time),
        "datacontenttype": "application/json",
        "dataschema": f"urn:waypost:event:{event.TYPE}:v{event.VERSION}",
        "tenantid": tenant,
        "partitionkey": emitted.partition_key,
        # Microseconds, zero-padded: sorts as text in the order in which a partition's events came.
        "sequence": f"{int(emitted.time.timestamp() * 1_000_000):020d}",
        # https://www.w3.org/TR/trace-context/: one trace for all that follows from one request.
        "traceparent": f"00-{sha256(cause.encode()).hexdigest()[:32]}-{emitted.id.hex[-16:]}-01",
        "correlationid": cause,
        "data": event.model_dump(mode="json", by_alias=True, exclude_none=True),
    }
    if instance:
        body["instanceid"] = instance
    return orjson.dumps(body)


def join(events: Sequence[bytes]) -> bytes:
    """Encoded events as one CloudEvents batch, without parsing any of them."""
    return b"[" + b",".join(events) + b"]"


class UnknownEvent(ValueError):
    """The event is of a type or version that this reader does not know."""


def decode(body: bytes) -> Emitted:
    """The event in a structured body; raises ``UnknownEvent``, or ``ValueError`` if it is none."""
    with _garbage_is_a_value_error():
        return _read(orjson.loads(body))


def decode_batch(body: bytes) -> list[Emitted]:
    """The events of a batch; those of unknown types are left out, being for newer readers.

    Raises ``ValueError`` if it is no batch.
    """
    read = []
    with _garbage_is_a_value_error():
        for item in _items(body):
            with suppress(UnknownEvent):
                read.append(_read(item))
    return read


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """An event for readers that pass it on or count it, and need not look inside.

    ``data`` is as it was told, so a reader older than the teller drops neither an event that it
    does not know nor a field. ``timestamp`` is ``time`` as it was written, ``envelope`` the whole
    event, ``data`` included.
    """

    id: UUID
    name: str
    tenant_id: UUID
    instance_id: UUID | None
    time: datetime
    timestamp: str
    data: Mapping[str, object]
    envelope: Mapping[str, object] = field(repr=False)

    def encoded(self) -> bytes:
        """The whole event as structured CloudEvents JSON."""
        return orjson.dumps(self.envelope)


def carried_batch(body: bytes) -> list[Carried]:
    """The events of a batch, their data unopened; raises ``ValueError`` if it is none.

    A version that is not ours is left out: its event is also told in the version that is.
    """
    with _garbage_is_a_value_error():
        return [carried for item in _items(body) if (carried := _carry(item)) is not None]


def _items(body: bytes) -> list[dict[str, str]]:
    items = orjson.loads(body)
    if not isinstance(items, list):
        raise TypeError("a batch is an array")
    return items


@contextmanager
def _garbage_is_a_value_error() -> Iterator[None]:
    try:
        yield
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError("this is no event") from error


def _carry(item: dict[str, str]) -> Carried | None:
    name, _, version = item["type"].removeprefix(PREFIX).rpartition(".v")
    known = EVENTS.get(name)
    if version != str(known.VERSION if known else 1):
        return None
    instance = item.get("instanceid")
    data: object = item["data"]
    if not isinstance(data, dict):
        raise ValueError("an event's data is an object")  # noqa: TRY004 - a reader's one error
    return Carried(
        id=UUID(item["id"]),
        name=name,
        tenant_id=_known_uuid(item["tenantid"]),
        instance_id=_known_uuid(instance) if instance else None,
        time=datetime.fromisoformat(item["time"]),
        timestamp=item["time"],
        data=data,
        envelope=item,
    )


# Batches repeat the same few tenants and instances over and over.
_known_uuid = lru_cache(maxsize=4096)(UUID)


def _read(item: dict[str, str]) -> Emitted:
    name, _, version = item["type"].removeprefix(PREFIX).rpartition(".v")
    event = EVENTS.get(name)
    if event is None or version != str(event.VERSION):
        raise UnknownEvent(item["type"])
    instance = item.get("instanceid")
    return Emitted(
        id=UUID(item["id"]),
        event=event.model_validate(item["data"]),
        tenant_id=UUID(item["tenantid"]),
        instance_id=UUID(instance) if instance else None,
        time=datetime.fromisoformat(item["time"]),
        subject=item["subject"],
        partition_key=item["partitionkey"],
        correlation_id=item.get("correlationid"),
    )
