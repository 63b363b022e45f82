"""Numbers and words as those see them who are not to know them whole.

An organization that masks hides numbers from agents and viewers, and from viewers what is said:
in messages, their timelines, and events, however those are read.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from services.gateway.domain.permissions import Role
from services.gateway.domain.principal import Principal

_NUMBER: Final = re.compile(r"(?<![\w-])(\+?)(\d{7,})(?![\w-])")
_GROUP: Final = "@g.us"
_SHORT: Final = 10


# Where an event holds what somebody said: whole to whoever may read it, and to others not at all.
_SAID: Final = frozenset({"content", "emoji"})
# What has digits and is nobody's number.
_CODE: Final = "code"
# Where a CloudEvent names the chat beside its data.
_NAMING: Final = ("subject", "partitionkey")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """How a caller sees: numbers ``masked`` or not, and whether they ``read`` what is said."""

    masked: bool = False
    reads: bool = True

    @property
    def whole(self) -> bool:
        """Whether nothing is hidden."""
        return self.reads and not self.masked

    def data(self, data: Mapping[str, object]) -> dict[str, object]:
        """An event's data as they see it. What is new in an event is masked like all else."""
        if self.whole:
            return dict(data)
        return {name: self._value(name, value) for name, value in data.items()}

    def envelope(self, envelope: Mapping[str, object]) -> dict[str, object]:
        """A CloudEvent as they see it."""
        data = envelope["data"]
        shown = {**envelope, "data": self.data(data) if isinstance(data, dict) else None}
        return shown | {name: self._value(name, envelope.get(name)) for name in _NAMING}

    def _value(self, name: str, value: object) -> object:
        if name in _SAID:
            return value if self.reads else None
        if not self.masked or name == _CODE:
            return value
        match value:
            case str():
                return masked(value)
            case dict():
                return {inner: self._value(inner, more) for inner, more in value.items()}
            case list():
                return [self._value(name, more) for more in value]
            case _:
                return value


def sight_of(principal: Principal) -> Sight:
    """How ``principal`` sees. Agents read what is said: who answers people has to."""
    if not principal.masking:
        return Sight()
    return Sight(
        masked=principal.role in {Role.AGENT, Role.VIEWER},
        reads=principal.role is not Role.VIEWER,
    )


def masked(text: str) -> str:
    """``text`` with each number cut down to its ends, as ``+1202•••0108``.

    A group's id is nobody's number.
    """
    if text.endswith(_GROUP):
        return text
    return _NUMBER.sub(_ends, text)


def _ends(found: re.Match[str]) -> str:
    plus, digits = found.groups()
    kept = 4 if len(digits) > _SHORT else 2
    return f"{plus}{digits[:kept]}•••{digits[-kept:]}"
