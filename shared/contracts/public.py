"""How customers are told of an event: the same to a webhook as to a live client."""

from collections.abc import Mapping
from uuid import UUID


def public_event(
    *,
    event_id: UUID | str,
    name: str,
    instance_id: UUID | None,
    instance_name: str | None,
    data: Mapping[str, object],
    timestamp: str,
) -> dict[str, object]:
    """An event as customers see it. ``instance`` is null for what concerns no instance."""
    instance = None
    if instance_id is not None:
        instance = {"id": str(instance_id), "name": instance_name}
    return {
        "id": str(event_id),
        "event": name,
        "instance": instance,
        "data": data,
        "timestamp": timestamp,
    }
