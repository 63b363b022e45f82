"""Endpoints, and which events they want."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from uuid import UUID

# Made for one endpoint on request, never a subscriber's business.
TEST = "test"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A customer's URL, as it was when it was last looked up.

    ``secret`` is as it is stored: sealed, or as text where it is older than that. ``open`` says
    that its breaker was not closed then: its deliveries wait for a probe.
    """

    id: UUID
    tenant_id: UUID
    instance_id: UUID | None
    url: str
    secret: bytes = field(repr=False)
    patterns: tuple[str, ...]
    open: bool = False

    def wants(self, name: str, instance_id: UUID | None) -> bool:
        """Whether an event of this name, from this instance or none, belongs here."""
        if self.instance_id is not None and self.instance_id != instance_id:
            return False
        return name != TEST and matches(self.patterns, name)


@lru_cache(maxsize=4096)
def matches(patterns: Sequence[str], name: str) -> bool:
    """Whether a name is one of the patterns: itself, ``message.*`` for a family, ``*`` for all."""
    return any(
        pattern in {name, "*"} or (pattern.endswith(".*") and name.startswith(pattern[:-1]))
        for pattern in patterns
    )
