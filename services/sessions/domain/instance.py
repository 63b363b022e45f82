"""An instance as this service sees it, and what should become of its session."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from services.sessions.domain.lifecycle import ACTIVE, ENDS, State


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """What the tenant wants. ``wanted`` is false for one that is disconnected or deleted.

    ``proxy`` is the URL of one of the tenant's own, with its password. ``typing`` is whether a chat
    is shown that the account types before it gets a text.
    """

    id: UUID
    tenant_id: UUID
    shard: int
    engine: str
    phone_number: str | None
    settings: Mapping[str, object]
    wanted: bool
    deleted: bool
    updated_at: datetime
    proxy: str | None = None
    device_name: str | None = None
    typing: bool = False

    @property
    def unconfirmed_after(self) -> float | None:
        """Seconds after which the tenant gives up waiting for a confirmation; ``None``: default."""
        return seconds(self.settings.get("unconfirmedAfter"))


def seconds(value: object) -> float | None:
    """A setting that is a positive number of seconds, or ``None`` if it is nothing of the kind."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        return None
    return float(value)


class Step(StrEnum):
    """What to do about one instance."""

    OPEN = "open"
    CLOSE = "close"
    FORGET = "forget"
    KEEP = "keep"


def next_step(instance: Instance, state: State | None, *, live: bool) -> Step:
    """What a lost command would have said, from what is wanted and what is so.

    A session that has ended by itself, by a ban, say, is not opened again just because it is
    wanted: only if the tenant has touched the instance since. One that was ended on request is: who
    wants it now has said so after the request, though perhaps before its end.
    """
    if instance.deleted:
        known = live or (state is not None and state.status in ACTIVE)
        return Step.FORGET if known else Step.KEEP
    if not instance.wanted:
        stale = state is not None and state.status in ACTIVE
        return Step.CLOSE if live or stale else Step.KEEP
    if live:
        return Step.KEEP
    over = (
        state is not None
        and state.status in ENDS
        and state.last_error is not None
        and instance.updated_at <= state.since
    )
    return Step.KEEP if over else Step.OPEN
