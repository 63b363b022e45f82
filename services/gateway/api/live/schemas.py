"""What clients say over Socket.IO."""

from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, Field

from services.gateway.domain.event_names import checked
from shared.web.schemas import ApiModel

Patterns = Annotated[list[str], AfterValidator(checked)]


class Wish(ApiModel):
    """Event types, or families such as `message.*`, and instances."""

    types: Patterns = Field(default=[], max_length=50)
    instances: list[UUID] = Field(default=[], max_length=100)


class Hello(Wish):
    """What a client shows when it connects: who it is, what it wants, and from where on."""

    token: str | None = Field(default=None, max_length=4096)
    api_key: str | None = Field(default=None, max_length=256)
    after: str | None = Field(default=None, max_length=512)
