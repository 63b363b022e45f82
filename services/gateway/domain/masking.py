"""Numbers and words as those see them who are not to know them whole.

An organization that masks hides numbers from agents and viewers, and from viewers what is said:
in every answer to them, and in events, however those are read.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from services.gateway.domain.permissions import Role
from services.gateway.domain.principal import Principal
from shared.errors import PlatformError

_NUMBER: Final = re.compile(r"(?<![\w-])(\+?)(\d{7,})(?![\w-])")
# As people write them who want them to be read.
_WRITTEN: Final = re.compile(r"(\+)(\d(?:[ ().-]{0,2}\d){6,14})(?!\w)")
# In names of files anything may stand beside a number. Shorter runs of digits are dates.
_NAMING_FILES: Final = re.compile(r"()(?<!\d)(\d{9,15})(?!\d)")
_GROUP: Final = "@g.us"
# A group from before they had numbers of their own: who founded it, and when.
_FOUNDED: Final = re.compile(r"(\+?)(\d{5,20})(?=-\d{5,15}@g\.us$)")
_SHORT: Final = 10


# Where somebody has said something: whole to whoever may read it, and to others not at all.
# So is what proves what a file holds.
_SAID: Final = frozenset({"content", "emoji", "topic", "sha256"})
_FILE: Final = "filename"
# What has digits and is nobody's number.
_OTHER_DIGITS: Final = frozenset({"code", "pictureUrl"})
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
        """An event's data, or an answer, as they see it: what is new there is masked like all."""
        if self.whole:
            return dict(data)
        return {name: self._value(name, value) for name, value in data.items()}

    def envelope(self, envelope: Mapping[str, object]) -> dict[str, object]:
        """A CloudEvent as they see it."""
        data = envelope["data"]
        shown = {**envelope, "data": self.data(data) if isinstance(data, dict) else None}
        return shown | {name: self._value(name, envelope.get(name)) for name in _NAMING}

    def text(self, text: str) -> str:
        """What stands by itself as they see it."""
        return masked(text) if self.masked else text

    def hide_in(self, error: PlatformError) -> None:
        """Have an error say what they may know."""
        error.message = self.text(error.message)
        if error.data:
            error.data = self.data(error.data)

    def file(self, name: str | None) -> str | None:
        """The name of a file as they see it."""
        if name is None or not self.reads:
            return None
        return masked(_NAMING_FILES.sub(_ends, name)) if self.masked else name

    def link(self, link: str) -> str:
        """A link by which one joins a group: whoever has joined sees the numbers of all others."""
        return link.rpartition("/")[0] + "/•••" if self.masked else link

    def _value(self, name: str, value: object) -> object:
        if name in _SAID or (name == _FILE and not self.reads):
            return value if self.reads else None
        if not self.masked or name in _OTHER_DIGITS:
            return value
        match value:
            case str():
                return self.file(value) if name == _FILE else masked(value)
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

    A group's id is nobody's number, but for the founder's in those of old ones.
    """
    if text.endswith(_GROUP):
        return _FOUNDED.sub(_ends, text)
    return _WRITTEN.sub(_ends, _NUMBER.sub(_ends, text))


def _ends(found: re.Match[str]) -> str:
    plus, written = found.groups()
    digits = "".join(filter(str.isdigit, written))
    kept = 4 if len(digits) > _SHORT else 2
    return f"{plus}{digits[:kept]}•••{digits[-kept:]}"
