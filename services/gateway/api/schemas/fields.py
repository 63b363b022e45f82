"""Fields that several schemas share."""

import re
import unicodedata
from operator import attrgetter
from typing import Annotated, Final
from uuid import UUID
from zoneinfo import ZoneInfo, available_timezones

from pydantic import (
    AfterValidator,
    Field,
    PlainSerializer,
    PlainValidator,
    StringConstraints,
    WithJsonSchema,
)

from services.gateway.domain.recipients import PERSON, Address, address_of
from shared.web.schemas import ApiModel, ApiView

# One @, something before it, a dot after it: what is right beyond that only a mail can tell.
_EMAIL: Final = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s.]+")


def _address(value: object) -> Address:
    if not isinstance(value, str):
        raise ValueError("must be a string")  # noqa: TRY004 - pydantic reports ValueError
    return address_of(value)


def _number(value: object) -> str:
    found = _address(value)
    if not found.chat.endswith(PERSON):
        raise ValueError("must be a phone number, such as +4915112345678")
    return found.shown


def _email(value: str) -> str:
    # One form for what looks the same, or one address could have two accounts.
    lowered = unicodedata.normalize("NFKC", value).strip().lower()
    if not _EMAIL.fullmatch(lowered) or not lowered.isprintable():
        raise ValueError("must be an e-mail address such as ada@example.com")
    return lowered


def _zone(value: str) -> str:
    if value not in available_timezones():
        raise ValueError("must be a time zone's IANA name, such as Europe/Berlin")
    ZoneInfo(value)
    return value


Recipient = Annotated[
    Address,
    PlainValidator(_address),
    PlainSerializer(attrgetter("shown"), return_type=str),
    WithJsonSchema(
        {
            "type": "string",
            "description": "A number in international form, or a WhatsApp id (`…@s.whatsapp.net`, "
            "`…@c.us`, `…@g.us`, `…@lid`).",
            "examples": ["+4915112345678"],
        }
    ),
]
"""Whom a message is for."""

PhoneNumber = Annotated[
    str,
    PlainValidator(_number),
    WithJsonSchema({"type": "string", "examples": ["+4915112345678"]}),
]
"""A person's number, as ``+`` and digits."""

Email = Annotated[
    str,
    Field(max_length=254, examples=["ada@example.com"], json_schema_extra={"format": "email"}),
    AfterValidator(_email),
]
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100)]
Password = Annotated[
    str, Field(min_length=8, max_length=256, examples=["correct horse battery"], repr=False)
]
TimeZone = Annotated[str, Field(max_length=64, examples=["Europe/Berlin"]), AfterValidator(_zone)]


class Nothing(ApiModel):
    """No fields."""


class Deleted(ApiView):
    """What was deleted."""

    id: UUID
    deleted: bool = True
