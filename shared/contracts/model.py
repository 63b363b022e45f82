"""What every message on the broker is: a frozen value with a type and a version."""

from datetime import UTC, datetime
from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, PlainSerializer
from pydantic.alias_generators import to_camel


def rfc3339(at: datetime) -> str:
    """RFC 3339 in UTC with milliseconds, as every time that Waypost shows."""
    utc = at.astimezone(UTC)
    return f"{utc:%Y-%m-%dT%H:%M:%S}.{utc.microsecond // 1000:03d}Z"


Moment = Annotated[datetime, PlainSerializer(rfc3339, return_type=str, when_used="json")]


class Contract(BaseModel):
    """A value inside a message. Unknown fields are ignored, so that readers survive additions.

    What could not be read is not repeated in the error: it would end up in the log.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)


class PublicContract(Contract):
    """A value that customers see too: camelCase on the wire."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        hide_input_in_errors=True,
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
    )


class Command(Contract):
    """Tells one service what to do. ``TYPE`` is its name on the wire, ``TO`` its routing key."""

    TYPE: ClassVar[str]
    VERSION: ClassVar[int] = 1


class Event(PublicContract):
    """Tells everybody what has happened. ``TYPE`` is the public name, such as ``message.sent``."""

    TYPE: ClassVar[str]
    VERSION: ClassVar[int] = 1
