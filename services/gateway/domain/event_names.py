"""Which events somebody wants: names, families of names (``message.*``) or all (``*``)."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from shared.contracts.events import EVENTS

EVERYTHING: Final = "*"

NAMES: Final = frozenset(EVENTS)
FAMILIES: Final = frozenset(name.partition(".")[0] + ".*" for name in EVENTS if "." in name)


class UnknownEventName(ValueError):
    """No event is called that; the message lists what there is."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Wanted events. ``families`` are beginnings of names, such as ``message.``."""

    names: frozenset[str] = frozenset()
    families: frozenset[str] = frozenset()
    everything: bool = True

    def takes(self, name: str) -> bool:
        """Whether the event of this name is wanted."""
        if self.everything or name in self.names:
            return True
        return any(name.startswith(family) for family in self.families)


def selection(patterns: Iterable[str]) -> Selection:
    """What ``patterns`` select; everything if there are none. Raises ``UnknownEventName``."""
    chosen = checked(patterns)
    if not chosen or EVERYTHING in chosen:
        return Selection()
    return Selection(
        names=frozenset(pattern for pattern in chosen if not pattern.endswith(".*")),
        families=frozenset(pattern[:-1] for pattern in chosen if pattern.endswith(".*")),
        everything=False,
    )


def checked(patterns: Iterable[str]) -> list[str]:
    """The patterns, each once; raises ``UnknownEventName``, since a typo would match nothing."""
    chosen = list(dict.fromkeys(patterns))
    for pattern in chosen:
        if pattern != EVERYTHING and pattern not in NAMES and pattern not in FAMILIES:
            known = ", ".join([EVERYTHING, *sorted(FAMILIES), *sorted(NAMES)])
            raise UnknownEventName(f"has no event {pattern[:80]!r}; there are: {known}")
    return chosen
