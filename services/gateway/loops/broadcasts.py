"""Telling every organization what operators have announced."""

from datetime import timedelta
from typing import Final
from uuid import UUID

from services.gateway.metrics import GatewayMetrics
from services.gateway.store import platform
from services.gateway.store.platform import Broadcast
from shared.clock import Clock
from shared.contracts.envelope import Emitted
from shared.contracts.events import SystemStatus
from shared.db.database import Database
from shared.db.tables.gateway import GatewayOutboxRow
from shared.ids import id_of
from shared.messaging import outbox
from shared.messaging.outbox import Relay
from shared.nudge import Nudge
from shared.runtime.steps import attempt


class TellEveryone:
    """Tells every organization what operators have announced, a portion in each transaction.

    A portion and how far it reaches are committed together, and an event's id is a function of the
    announcement and the organization: whoever dies in between, everybody is told, and once.
    """

    RHYTHM: Final = timedelta(seconds=10)
    PORTION: Final = 200

    def __init__(
        self, *, database: Database, relay: Relay, clock: Clock, metrics: GatewayMetrics
    ) -> None:
        self._database = database
        self._relay = relay
        self._clock = clock
        self._metrics = metrics
        self._nudge = Nudge()

    def announced(self) -> None:
        """There is something new to tell."""
        self._nudge.set()

    async def run(self) -> None:
        """Tell until cancelled."""
        while True:
            self._nudge.clear()
            more = await attempt(
                self.step,
                loop="broadcasts",
                failed="broadcast_not_told",
                clock=self._clock,
                metrics=self._metrics,
            )
            if not more:
                await self._nudge.wait(self.RHYTHM)

    async def step(self) -> bool:
        """Tell the next portion of organizations; returns whether there was anything to tell."""
        now = self._clock.now()
        async with self._database.tx() as tx:
            broadcast = await platform.lock_unfinished(tx)
            if broadcast is None:
                return False
            tenants = await platform.next_tenants(tx, after=broadcast.told_to, limit=self.PORTION)
            rows = [outbox.event(_told(broadcast, tenant)) for tenant in tenants]
            await outbox.add(tx, GatewayOutboxRow, rows, now=now)
            finished = now if len(tenants) < self.PORTION else None
            await platform.note_told(tx, broadcast.id, tenants, finished=finished)
        self._relay.wake()
        return True


def _told(broadcast: Broadcast, tenant_id: UUID) -> Emitted:
    return Emitted(
        id=id_of(SystemStatus.TYPE, broadcast.id, tenant_id),
        event=SystemStatus.model_validate(broadcast.body),
        tenant_id=tenant_id,
        instance_id=None,
        time=broadcast.created_at,
        subject=f"broadcasts/{broadcast.id}",
        partition_key=str(tenant_id),
        correlation_id=broadcast.request_id,
    )
