"""Reports: what became of transmissions, recorded and told to the dispatcher in one transaction."""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Self

from services.sessions.domain.lease import Lease
from services.sessions.domain.outcomes import Verdict
from services.sessions.leases import Leases
from services.sessions.metrics import SessionsMetrics
from services.sessions.store import handovers
from services.sessions.store.fence import Fence
from services.sessions.store.handovers import Open
from shared.clock import Clock
from shared.contracts.commands import (
    SettledTransmission,
    TransmissionOutcome,
    TransmissionsSettled,
)
from shared.db.group_commit import GroupCommit
from shared.errors import Transient, Unconfirmed
from shared.log import get_logger
from shared.messaging import outbox
from shared.messaging.outbox import Stored

log = get_logger()

# A command with this many outcomes is some 100 KB.
REPORT: Final = 500
RECORD_AGAIN: Final = timedelta(milliseconds=500)

STOPPED: Final = Verdict(
    TransmissionOutcome.UNKNOWN, Unconfirmed.code, "The process that was sending it stopped."
)


@dataclass(frozen=True, slots=True)
class _Ended:
    """A transmission's outcome, to be recorded under the lease that it was handed over under."""

    lease: Lease
    settled: SettledTransmission


class Reports:
    """Records outcomes, all shards' together: one transaction and one command for a batch."""

    def __init__(
        self,
        *,
        fence: Fence,
        leases: Leases,
        clock: Clock,
        told: Callable[[Sequence[Stored]], None],
        metrics: SessionsMetrics,
    ) -> None:
        self._fence = fence
        self._leases = leases
        self._clock = clock
        self._told = told
        self._metrics = metrics
        self._commits: GroupCommit[_Ended, None] = GroupCommit(
            self._commit, name="outcomes", max_batch=REPORT
        )
        # Together, because a process that starts, or takes over, claims many shards at once.
        self._inheritances: GroupCommit[Lease, None] = GroupCommit(
            self._inherit, name="inheritances"
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Be able to record for as long as the context is open."""
        async with self._commits.running(), self._inheritances.running():
            yield self

    async def record(self, lease: Lease, settled: SettledTransmission) -> None:
        """Return once an outcome is recorded, or cannot be any more because the lease is gone."""
        while True:
            try:
                await self._commits.submit(_Ended(lease, settled))
            except Transient:
                if not self._leases.holds(lease):
                    return
                await self._clock.sleep(RECORD_AGAIN)
            else:
                return

    async def inherit(self, lease: Lease) -> None:
        """Settle as unknown what earlier owners of the shard have left open."""
        await self._inheritances.submit(lease)

    async def _inherit(self, leases: Sequence[Lease]) -> Sequence[None]:
        now = self._clock.now()
        async with self._fence.tx() as connection:
            found = await handovers.settle_inherited(connection, leases, now=now)
            settled = [settlement(handover, STOPPED, now=now) for handover in found]
            rows = [
                outbox.command(
                    TransmissionsSettled(settled=tuple(settled[start : start + REPORT])),
                    to="dispatcher",
                )
                for start in range(0, len(settled), REPORT)
            ]
            stored = await outbox.add_hot(connection, "sessions", rows, now=now)
        if stored:
            log.info("handovers_inherited", shards=len(leases), count=len(settled))
            self._told(stored)
        return [None] * len(leases)

    async def _commit(self, batch: Sequence[_Ended]) -> Sequence[None]:
        now = self._clock.now()
        ended = [(item.lease, item.settled) for item in batch]
        async with self._fence.tx() as connection:
            recorded = await handovers.settle(connection, ended, now=now)
            settled = [item.settled for item in batch if item.settled.transmission_id in recorded]
            command = TransmissionsSettled(settled=tuple(settled))
            rows = [outbox.command(command, to="dispatcher")] if settled else []
            stored = await outbox.add_hot(connection, "sessions", rows, now=now)
        if stored:
            self._told(stored)
        for outcome, count in Counter(item.outcome for item in settled).items():
            self._metrics.settled.labels(outcome.value).inc(count)
        return [None] * len(batch)


def settlement(handover: Open, said: Verdict, *, now: datetime) -> SettledTransmission:
    """The end of a handover that only the database knows of."""
    return SettledTransmission(
        transmission_id=handover.transmission_id,
        message_id=handover.message_id,
        instance_id=handover.instance_id,
        outcome=said.outcome,
        at=now,
        engine_message_id=handover.engine_message_id,
        code=said.code,
        detail=said.detail,
        unconfirmed_after=handover.unconfirmed_after,
    )
