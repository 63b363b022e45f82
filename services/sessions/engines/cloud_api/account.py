"""The number at Meta that an instance speaks for, out of its settings."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from services.sessions.engines.port import Refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A number at Meta, and what proves that we may use it."""

    phone_number_id: str
    access_token: str = field(repr=False)

    @classmethod
    def of(cls, settings: Mapping[str, object]) -> Self:
        """Raises ``Refused`` if the settings name no number, or no token."""
        number, token = settings.get("phoneNumberId"), settings.get("accessToken")
        # It becomes part of a path.
        if not isinstance(number, str) or not (number.isascii() and number.isdigit()):
            raise Refused("The instance's settings have no phoneNumberId; set it.")
        if not isinstance(token, str) or not token:
            raise Refused("The instance's settings have no accessToken; set it.")
        return cls(phone_number_id=number, access_token=token)
