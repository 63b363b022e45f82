"""What the gateway does about events: it keeps them, for whoever was away."""

from collections.abc import Awaitable, Callable, Sequence

from services.gateway.metrics import GatewayMetrics
from services.gateway.store import events
from services.gateway.store.events import NewEvent
from shared.contracts.envelope import Carried
from shared.db.database import Database


class Consumers:
    """``logged`` is called after events were added to the log."""

    def __init__(
        self, *, database: Database, metrics: GatewayMetrics, logged: Callable[[], Awaitable[None]]
    ) -> None:
        self._database = database
        self._metrics = metrics
        self._logged = logged

    async def events(self, batch: Sequence[Carried]) -> None:
        """Add a batch to the log, all or nothing; those that are in it already stay."""
        await events.append(
            self._database,
            [
                NewEvent(
                    id=event.id,
                    tenant_id=event.tenant_id,
                    instance_id=event.instance_id,
                    type=event.name,
                    time=event.time,
                    body=event.encoded(),
                )
                for event in batch
            ],
        )
        self._metrics.events_logged.inc(len(batch))
        await self._logged()
