"""How much is posted at once: to one endpoint, for one tenant, in all."""

from datetime import timedelta
from typing import Final

from services.webhooks.domain.delivery import Verdict

# An endpoint starts with this many posts at once and earns more, or loses them, with its answers.
FIRST_LIMIT: Final = 8
# No more is claimed for an endpoint than can be posted in this time, nor than this many.
AHEAD: Final = timedelta(seconds=10)
MOST_WAITING: Final = 256
# A tenant may always use this part of all slots, and beyond it only what lies idle.
TENANT_SHARE: Final = 4
_SHORTEST: Final = 0.01
_AHEAD: Final = AHEAD.total_seconds()


def limit_after(verdict: Verdict, limit: int, *, most: int) -> int:
    """How many posts an endpoint may have at once after this one."""
    if verdict is Verdict.DELIVERED:
        return min(limit + 1, most)
    if verdict in {Verdict.UNREACHABLE, Verdict.THROTTLED}:
        return max(1, limit // 2)
    return limit


def room(*, limit: int, held: int, latency: float) -> int:
    """How many deliveries more to take for an endpoint that has ``held``, posting and waiting.

    ``latency`` is how long it usually takes to answer, in seconds.
    """
    ahead = min(MOST_WAITING, int(limit * _AHEAD / max(latency, _SHORTEST)))
    return max(0, limit + ahead - held)


def may_start(*, tenant: int, used: int, total: int) -> bool:
    """Whether a tenant with ``tenant`` of the ``used`` slots may have one more.

    Half of all slots are for whoever comes first; the other half only for tenants that hold less
    than their share, so that a tenant whose endpoints all hang leaves room for the others.
    """
    if used >= total:
        return False
    return used < total // 2 or tenant < max(1, total // TENANT_SHARE)
