"""What an owner does with a shard, from taking it up to putting it down."""

from datetime import timedelta
from typing import Final

from services.sessions.ownership import Tenure
from services.sessions.reports import Reports
from services.sessions.supervisor import Supervisor
from services.sessions.transmitter import Transmitter
from shared.broker.port import Broker, Receiver, Subscription
from shared.broker.topology import shard_queue
from shared.clock import Clock
from shared.errors import Fenced, Transient
from shared.log import get_logger

log = get_logger()

# Broker messages that are taken at once; each may carry many transmissions.
BATCH: Final = 32
AFTER_FAILURE: Final = timedelta(seconds=1)


class ShardDuty:
    """Serves one shard per call, under its lease."""

    def __init__(
        self,
        *,
        broker: Broker,
        receive: Receiver,
        supervisor: Supervisor,
        transmitter: Transmitter,
        reports: Reports,
        clock: Clock,
    ) -> None:
        self._broker = broker
        self._receive = receive
        self._supervisor = supervisor
        self._transmitter = transmitter
        self._reports = reports
        self._clock = clock

    async def serve(self, tenure: Tenure) -> None:
        """Take the shard up, work until the tenure ends, put it down."""
        lease = tenure.lease
        await self._take_up(tenure)
        async with self._broker.subscribe(
            Subscription(queue=shard_queue(lease.shard), receive=self._receive, batch=BATCH)
        ):
            await tenure.ended.wait()
            if tenure.lost.is_set():
                # At once, and not after a receiver that may be waiting for the database.
                await self._abandon(tenure)
        if not tenure.lost.is_set():
            await self._transmitter.drain(lease, cut_off=tenure.lost)
            await self._supervisor.leave(lease)
        if tenure.lost.is_set():
            await self._abandon(tenure)

    async def _take_up(self, tenure: Tenure) -> None:
        while not tenure.ended.is_set():
            try:
                await self._reports.inherit(tenure.lease)
                await self._supervisor.adopt(tenure.lease)
            except Fenced:
                # The lease ran out while the database kept us waiting; somebody else's turn.
                tenure.lose()
                return
            except Transient as error:
                log.warning("shard_not_taken_up", shard=tenure.lease.shard, reason=error.message)
                await self._clock.sleep(AFTER_FAILURE)
            else:
                return

    async def _abandon(self, tenure: Tenure) -> None:
        await self._transmitter.abandon(tenure.lease)
        await self._supervisor.abandon(tenure.lease)
