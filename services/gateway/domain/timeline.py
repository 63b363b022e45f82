"""What happened to a message, hop by hop: each with its time, and why it waited."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from urllib.parse import urlsplit
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Handover:
    """One transmission of a message to an engine."""

    attempt: int
    created_at: datetime
    paced_until: datetime | None
    paced_by: str | None
    handed_over_at: datetime | None
    outcome: str | None
    code: str | None
    detail: str | None
    settled_at: datetime | None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One POST of an event about a message to a customer's URL."""

    at: datetime
    number: int
    event: str
    url: str | None
    status_code: int | None
    duration_ms: int
    error: str | None


@dataclass(frozen=True, slots=True)
class Change:
    """A message of ours about this one, taken by WhatsApp: ``kind`` is its type."""

    at: datetime
    kind: str
    message_id: UUID
    emoji: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Milestones:
    """What the message itself remembers."""

    inbound: bool
    status: str
    created_at: datetime
    sent_at: datetime | None
    delivered_at: datetime | None
    read_at: datetime | None
    failed_at: datetime | None
    error_code: str | None
    error_message: str | None
    edited_at: datetime | None = None
    revoked_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Hop:
    """One thing that happened. ``hop`` is a stable name, ``details`` depend on it."""

    at: datetime
    hop: str
    details: dict[str, object] = field(default_factory=dict)


# What can only come after what; decides among hops of the same moment.
_ORDER: Final = {
    hop: place
    for place, hop in enumerate(
        (
            "accepted",
            "received",
            "paced",
            "dispatched",
            "handed_over",
            "refused",
            "retrying",
            "unconfirmed",
            "sent",
            "delivered",
            "read",
            "reacted",
            "edited",
            "revoked",
            "failed",
            "webhook",
        )
    )
}
_CHANGED: Final = {"edit": "edited", "revoke": "revoked", "reaction": "reacted"}
_WAITED: Final = {
    "limits": "the instance's limits held it back until then",
    "pauses": "the instance's pauses held it back until then",
    "quiet_hours": "the instance's quiet hours held it back until then",
    "whatsapp": "WhatsApp asked the instance to slow down until then",
}
_ENDED: Final = {"rejected": "refused", "retryable": "retrying", "unknown": "unconfirmed"}


def timeline(
    message: Milestones,
    handovers: Sequence[Handover],
    attempts: Iterable[Attempt],
    changes: Iterable[Change] = (),
) -> list[Hop]:
    """Every hop of a message, in the order in which they happened."""
    hops = [Hop(message.created_at, "received" if message.inbound else "accepted")]
    for handover in handovers:
        hops += _handed_over(handover)
    for hop, at in (
        ("sent", message.sent_at),
        ("delivered", message.delivered_at),
        ("read", message.read_at),
    ):
        if at is not None and not message.inbound:
            hops.append(Hop(at, hop))
    if message.failed_at is not None:
        reason: dict[str, object] = {"code": message.error_code, "reason": message.error_message}
        hops.append(Hop(message.failed_at, "failed", _known(reason)))
    hops += [_changed(change) for change in changes]
    if message.inbound:
        # What the other side did to its own message.
        theirs = (("edited", message.edited_at), ("revoked", message.revoked_at))
        hops += [Hop(at, hop) for hop, at in theirs if at is not None]
    hops += [_attempted(attempt) for attempt in attempts]
    return sorted(hops, key=lambda hop: (hop.at, _ORDER[hop.hop]))


def _handed_over(handover: Handover) -> list[Hop]:
    number: dict[str, object] = {"attempt": handover.attempt}
    hops = [Hop(handover.created_at, "dispatched", number)]
    if handover.paced_until is not None:
        why = {"reason": _WAITED.get(handover.paced_by or "", _WAITED["limits"])}
        hops.append(Hop(handover.paced_until, "paced", {**number, **why}))
    if handover.handed_over_at is not None:
        hops.append(Hop(handover.handed_over_at, "handed_over", number))
    ended = _ENDED.get(handover.outcome or "")
    if ended is not None and handover.settled_at is not None:
        reason: dict[str, object] = {"code": handover.code, "reason": handover.detail}
        hops.append(Hop(handover.settled_at, ended, {**number, **_known(reason)}))
    return hops


def _changed(change: Change) -> Hop:
    details: dict[str, object] = {"messageId": str(change.message_id), "emoji": change.emoji}
    return Hop(change.at, _CHANGED[change.kind], _known(details))


def origin_of(url: str) -> str:
    """Where a URL leads, without what may be a secret in it: ``https://example.com``."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}"


def _attempted(attempt: Attempt) -> Hop:
    details: dict[str, object] = {
        "event": attempt.event,
        "url": attempt.url,
        "attempt": attempt.number,
        "statusCode": attempt.status_code,
        "responseTime": attempt.duration_ms,
        "error": attempt.error,
    }
    return Hop(attempt.at, "webhook", _known(details))


def _known(details: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in details.items() if value is not None}
