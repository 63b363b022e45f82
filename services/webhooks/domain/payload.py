"""What the events that are posted are about."""

from collections.abc import Mapping
from uuid import UUID


def message_of(data: Mapping[str, object]) -> UUID | None:
    """The message that an event is about, so that its timeline can tell of the delivery."""
    text = data.get("messageId")
    if not isinstance(text, str):
        return None
    try:
        return UUID(text)
    except ValueError:
        return None
