"""A delivery while somebody works on it, and what the other side answered."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from services.webhooks.domain.endpoint import Endpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One event addressed to one endpoint, claimed by this worker.

    ``attempts`` is how many were made before. ``good_until`` is the moment, on the monotonic clock,
    after which no POST may start, because another worker might then have the delivery as well.
    A ``probe`` decides whether a breaker closes.
    """

    id: UUID
    endpoint_id: UUID
    event_id: UUID
    event_type: str
    instance_id: UUID | None
    body: bytes
    attempts: int
    good_until: float
    probe: bool = False


class Verdict(StrEnum):
    """What an attempt tells about its endpoint."""

    DELIVERED = "delivered"
    GONE = "gone"
    """Answered 410: this endpoint is no more, and says so itself."""
    THROTTLED = "throttled"
    """Answered 429 or 503: not now."""
    FAILED = "failed"
    """Answered, but neither with success nor with one of those."""
    UNREACHABLE = "unreachable"
    """No connection, or no answer in time."""
    MISCONFIGURED = "misconfigured"
    """Cannot be called at all: a private address, a bad certificate, a URL that is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one POST brought: a status, or ``error`` saying what went wrong instead."""

    verdict: Verdict
    at: datetime
    duration: timedelta
    status: int | None = None
    error: str | None = None
    excerpt: str | None = None
    retry_after: timedelta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A POST that has been made and is not written down yet."""

    delivery: Delivery
    endpoint: Endpoint
    answer: Answer


def verdict_on(status: int) -> Verdict:
    """What an HTTP status means. A redirect is a failure: it would leave through another door."""
    if 200 <= status < 300:
        return Verdict.DELIVERED
    if status == 410:
        return Verdict.GONE
    if status in {429, 503}:
        return Verdict.THROTTLED
    return Verdict.FAILED
