"""What the schemas of the API are made of: camelCase outside, snake_case inside."""

from datetime import UTC, date, datetime, timedelta
from typing import Annotated, TypeVar

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
)
from pydantic.alias_generators import to_camel

from shared.web.envelope import instant

TimeT = TypeVar("TimeT", bound=date)


def _reachable(when: TimeT) -> TimeT:
    """Times are kept in UTC, and a range that includes its last day ends where the next begins: at
    the ends of the calendar there may be neither.
    """
    try:
        if isinstance(when, datetime):
            when.astimezone(UTC)
        else:
            when + timedelta(days=1)
    except OverflowError:
        raise ValueError("is outside of the calendar") from None
    return when


Moment = Annotated[AwareDatetime, AfterValidator(_reachable)]
"""A time, with any offset."""

When = Annotated[AwareDatetime | date, AfterValidator(_reachable)]
"""A time or a day, in a query."""

Day = Annotated[date, Field(ge=date(1970, 1, 1), le=date(9998, 12, 31))]
"""A day that something can be counted on: in any time zone, with days before and after it."""

Instant = Annotated[
    Moment,
    PlainSerializer(instant, return_type=str, when_used="json"),
    WithJsonSchema(
        {"type": "string", "format": "date-time", "examples": ["2026-01-15T10:30:00.000Z"]}
    ),
]
"""A time: with any offset in a request, in UTC with milliseconds in an answer."""


class ApiModel(BaseModel):
    """What a caller sends. An unknown field is an error: it is a typo more often than not.

    Bodies are read by alias only (``shared.web.body``), so the wire has one spelling;
    ``populate_by_name`` is for our own code. Inputs stay out of ``str(error)``, which gets logged.
    """

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,
    )


class ApiView(BaseModel):
    """What a caller gets. Extra fields are forbidden here too: they would be our typos."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        serialize_by_alias=True,
        extra="forbid",
        frozen=True,
    )
