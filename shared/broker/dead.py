"""What is known of a dead letter's end: it travels in headers, whatever the broker."""

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from shared.broker.port import Incoming

REASON: Final = "waypost-died-of"
AT: Final = "waypost-died-at"


class Reason(StrEnum):
    """Why a message could not stay in its queue."""

    # Its receiver said at once that it never will be handled.
    REFUSED = "refused"
    # It was delivered as often as the limit allows, and never handled.
    IN_VAIN = "tried_in_vain"


@dataclass(frozen=True, slots=True)
class Death:
    """Why a message became a dead letter and, if the broker says so, when; to the second."""

    reason: Reason
    at: datetime | None


def death_of(message: Incoming) -> Death:
    """The end of a message that was received from a dead-letter queue."""
    refused = message.headers.get(REASON) == Reason.REFUSED
    return Death(Reason.REFUSED if refused else Reason.IN_VAIN, _moment(message.headers.get(AT)))


def _moment(written: str | None) -> datetime | None:
    if written is None:
        return None
    try:
        at = datetime.fromisoformat(written)
    except ValueError:
        return None
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)
