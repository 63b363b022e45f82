"""How an endpoint is doing: when its breaker opens, when it is given up, when it is back."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from services.webhooks.domain.delivery import Verdict

# So many failures to connect, or timeouts, in a row open the breaker.
OPENS_AFTER: Final = 5
# So many failures in a row, of any kind, and an endpoint counts as failing.
FAILING_AFTER: Final = 5
FIRST_PAUSE: Final = timedelta(seconds=30)
LONGEST_PAUSE: Final = timedelta(minutes=10)
GIVEN_UP_AFTER: Final = timedelta(hours=120)


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What is remembered about an endpoint between attempts."""

    consecutive_failures: int = 0
    consecutive_unreachable: int = 0
    failing_since: datetime | None = None
    last_success_at: datetime | None = None
    opened: int = 0
    open_until: datetime | None = None
    disabled_at: datetime | None = None
    disabled_reason: str | None = None

    @property
    def clean(self) -> bool:
        """Whether another success would change nothing but its date."""
        return self.consecutive_failures == 0 and self.opened == 0 and self.disabled_at is None


class Announcement(StrEnum):
    """What the tenant is to be told."""

    DISABLED = "disabled"
    RECOVERED = "recovered"


def after_attempt(
    health: Health, verdict: Verdict, *, probe: bool, now: datetime
) -> tuple[Health, Announcement | None]:
    """How an endpoint is doing once one more attempt has ended, and what to say about it."""
    if health.disabled_at is not None:
        return health, None
    if verdict is Verdict.DELIVERED:
        failing = health.consecutive_failures >= FAILING_AFTER
        return Health(last_success_at=now), Announcement.RECOVERED if failing else None
    failing_since = health.failing_since or now
    after = replace(
        health, consecutive_failures=health.consecutive_failures + 1, failing_since=failing_since
    )
    reason = None
    if verdict is Verdict.GONE:
        reason = "It answered 410 Gone."
    elif now - failing_since >= GIVEN_UP_AFTER:
        reason = f"It has failed for {GIVEN_UP_AFTER // timedelta(hours=1)} hours."
    if reason is not None:
        return _disabled(after, reason, now=now), Announcement.DISABLED
    return _breaker(after, verdict, probe=probe, now=now), None


def revived(health: Health) -> Health:
    """A disabled endpoint that has been switched on again: a new chance, with its past in mind.

    It counts as failing, so that its first success is announced.
    """
    return Health(
        consecutive_failures=max(health.consecutive_failures, FAILING_AFTER),
        last_success_at=health.last_success_at,
    )


def _disabled(health: Health, reason: str, *, now: datetime) -> Health:
    return replace(health, opened=0, open_until=None, disabled_at=now, disabled_reason=reason)


def _breaker(health: Health, verdict: Verdict, *, probe: bool, now: datetime) -> Health:
    if verdict is Verdict.MISCONFIGURED:
        return health  # nobody was called, so nothing is known about who would answer
    if verdict is not Verdict.UNREACHABLE:
        # It answered, if not well: it can be reached, and the schedule of each delivery decides.
        return replace(health, consecutive_unreachable=0, opened=0, open_until=None)
    count = health.consecutive_unreachable + 1
    opened = health.opened
    # Posts that were under way when the breaker opened also fail: only a probe opens it for longer.
    opens = probe if opened else count >= OPENS_AFTER
    if not opens:
        return replace(health, consecutive_unreachable=count)
    pause = min(FIRST_PAUSE * 2 ** min(opened, 16), LONGEST_PAUSE)
    return replace(
        health, consecutive_unreachable=count, opened=min(opened + 1, 1000), open_until=now + pause
    )
