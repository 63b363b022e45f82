"""What is posted: the exact bytes, made once and signed at every attempt."""

from collections.abc import Mapping
from uuid import UUID

import orjson


def body_of(
    *,
    event_id: UUID,
    name: str,
    instance_id: UUID | None,
    instance_name: str | None,
    data: Mapping[str, object],
    timestamp: str,
) -> bytes:
    """The body of a delivery. ``instance`` is null for what concerns no instance."""
    instance = None
    if instance_id is not None:
        instance = {"id": str(instance_id), "name": instance_name}
    return orjson.dumps(
        {
            "id": str(event_id),
            "event": name,
            "instance": instance,
            "data": data,
            "timestamp": timestamp,
        }
    )


def message_of(data: Mapping[str, object]) -> UUID | None:
    """The message that an event is about, so that its timeline can tell of the delivery."""
    text = data.get("messageId")
    if not isinstance(text, str):
        return None
    try:
        return UUID(text)
    except ValueError:
        return None
