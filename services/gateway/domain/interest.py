"""What a live client wants to be told, of what it may see."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final
from uuid import UUID

from services.gateway.domain.event_names import NAMES, selection

# Instances that one client may name.
MOST_INSTANCES: Final = 1_000


class TooManyInstances(ValueError):
    """A client names more instances than anybody should have to remember for it."""


@dataclass(frozen=True, slots=True)
class Interest:
    """Wanted events. ``None`` is everything, as it is until the client chooses.

    ``without`` are instances that were taken away from everything.
    """

    types: frozenset[str] | None = None
    instances: frozenset[UUID] | None = None
    without: frozenset[UUID] = frozenset()

    def takes(self, name: str, instance_id: UUID | None) -> bool:
        """Whether an event is wanted; one of no instance is, unless instances were chosen."""
        if self.types is not None and name not in self.types:
            return False
        if self.instances is not None:
            return instance_id in self.instances
        return instance_id not in self.without

    def adding(self, patterns: Iterable[str], instances: Iterable[UUID]) -> "Interest":
        """The interest with more in it. What is named first is all that is wanted of its sort.

        Raises ``UnknownEventName`` and ``TooManyInstances``.
        """
        wanted, named = _names(patterns), frozenset(instances)
        types, chosen, without = self.types, self.instances, self.without - named
        if wanted:
            types = wanted | (types or frozenset())
        if named:
            # Instances that had been taken away are given back, and the rest stays wanted.
            back = bool(self.without & named)
            chosen = chosen if back else named | (chosen or frozenset())
        return _bounded(Interest(types, chosen, without))

    def removing(self, patterns: Iterable[str], instances: Iterable[UUID]) -> "Interest":
        """The interest with less in it. Raises ``UnknownEventName`` and ``TooManyInstances``."""
        unwanted, named = _names(patterns), frozenset(instances)
        made = self
        if unwanted:
            known = NAMES if self.types is None else self.types
            made = replace(made, types=known - unwanted)
        if named and self.instances is None:
            made = replace(made, without=self.without | named)
        elif named and self.instances is not None:
            made = replace(made, instances=self.instances - named)
        return _bounded(made)


def _names(patterns: Iterable[str]) -> frozenset[str]:
    chosen = list(patterns)
    if not chosen:
        return frozenset()
    wanted = selection(chosen)
    return frozenset(name for name in NAMES if wanted.takes(name))


def _bounded(interest: Interest) -> Interest:
    if max(len(interest.instances or ()), len(interest.without)) > MOST_INSTANCES:
        raise TooManyInstances(f"Name at most {MOST_INSTANCES} instances; or none, for all.")
    return interest
