"""What the schemas of the API are made of: camelCase outside, snake_case inside."""

from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, PlainSerializer, WithJsonSchema
from pydantic.alias_generators import to_camel

from shared.web.envelope import instant

Instant = Annotated[
    AwareDatetime,
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
