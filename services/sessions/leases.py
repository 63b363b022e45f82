"""Which leases this process believes to have, and until when it may believe so."""

from collections.abc import Collection
from datetime import timedelta

from services.sessions.domain.lease import Lease
from shared.clock import Clock


class Leases:
    """The leases of this process, each until its local deadline.

    The deadline is reached before the database's lease runs out, by this machine's monotonic clock,
    counted from before the request that won or renewed it. So a process that cannot reach the
    database stops sending before anybody else may start.
    """

    def __init__(self, *, clock: Clock, fence_after: timedelta) -> None:
        self._clock = clock
        self._fence_after = fence_after.total_seconds()
        self._deadlines: dict[Lease, float] = {}
        self._by_shard: dict[int, Lease] = {}

    def grant(self, leases: Collection[Lease], *, asked_at: float) -> None:
        """The database has given or prolonged these, upon a request made at ``asked_at``."""
        for lease in leases:
            self._deadlines[lease] = asked_at + self._fence_after
            self._by_shard[lease.shard] = lease

    def drop(self, lease: Lease) -> None:
        """It is over, by whatever end."""
        self._deadlines.pop(lease, None)
        if self._by_shard.get(lease.shard) == lease:
            del self._by_shard[lease.shard]

    def holds(self, lease: Lease) -> bool:
        """Whether this process may still act under ``lease``. Ask directly before acting."""
        return self._clock.monotonic() < self._deadlines.get(lease, 0.0)

    def of(self, shard: int) -> Lease | None:
        """The lease on a shard, if there is one that may be acted under."""
        lease = self._by_shard.get(shard)
        return lease if lease is not None and self.holds(lease) else None

    def all(self) -> Collection[Lease]:
        """All that were granted and not dropped, whether their deadline has passed or not."""
        return tuple(self._deadlines)
