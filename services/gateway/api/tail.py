"""Following the event log: once for all who wait or listen at this replica.

The log is what events are told from, to live clients as to requests that wait. It has them in the
order of their cursors, whichever replica logged them, so nobody can miss one that another has seen.
The broker only says that there is something to read, and where that is not heard it is found by
looking.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final, Protocol, Self
from uuid import UUID

from services.gateway.domain.rooms import Room, rooms_of_event
from services.gateway.metrics import GatewayMetrics
from services.gateway.store import events
from services.gateway.store.events import LoggedEvent, SealedEvent
from shared.broker.port import Broker, Incoming, Outgoing
from shared.broker.topology import NEWS
from shared.clock import Clock
from shared.db.database import Database
from shared.errors import Transient
from shared.ids import new_id
from shared.log import get_logger
from shared.nudge import Nudge
from shared.security.sealing import KeyRing

log = get_logger()

KEY: Final = "gateway.log"
"""Under which every replica hears, at the exchange ``waypost.news``, that the log has grown."""

# Seconds that the broker may take to pass the news on; others find out without it.
_PATIENCE: Final = 1.0


class Reader(Protocol):
    """Somebody who wants the events of some rooms."""

    @property
    def rooms(self) -> frozenset[Room]:
        """Whose events; the same for as long as it follows."""
        ...

    def hear(self, event: LoggedEvent) -> None:
        """Take the next event. It may neither raise nor wait: others are behind it."""
        ...

    def miss(self, event: SealedEvent) -> None:
        """Know that the next event cannot be read, and is not told again; as ``hear``."""
        ...


class Tail:
    """Reads what is added to the log and hands it to whoever follows.

    Everything up to ``position`` has been handed out, to all who followed then.
    """

    # Without news, look this often; with it, at most this often.
    RHYTHM: Final = timedelta(milliseconds=500)
    PAUSE: Final = timedelta(milliseconds=20)
    # Numbers of the log that are read at a time.
    PORTION: Final = 500

    def __init__(
        self,
        *,
        database: Database,
        ring: KeyRing,
        broker: Broker,
        clock: Clock,
        metrics: GatewayMetrics,
    ) -> None:
        self._database = database
        self._ring = ring
        self._broker = broker
        self._clock = clock
        self._metrics = metrics
        self._nudge = Nudge()
        self._readers: dict[Room, set[Reader]] = {}
        self._tenants: Counter[UUID] = Counter()
        # Held from before a portion is read until it has been handed out, and by who comes: for
        # whom a portion was not read, to them it must not count as handed out.
        self._reading = asyncio.Lock()
        self.position = 0

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Self]:
        """Hear of what other replicas log for as long as the context is open."""
        async with self._broker.listen(NEWS, KEY, self._hear):
            yield self

    async def grown(self) -> None:
        """Say that events were added to the log. Never raises: whoever looks finds them too."""
        self._nudge.set()
        news = Outgoing(
            exchange=NEWS,
            routing_key=KEY,
            body=b"",
            message_id=str(new_id()),
            type="log_grown",
            mandatory=False,
        )
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._broker.publish([news])
        except (TimeoutError, Transient) as error:
            log.debug("log_growth_not_told", reason=str(error) or type(error).__name__)

    async def join(self, reader: Reader) -> None:
        """Hand ``reader`` everything after what is ``position`` then, until it leaves.

        Raises ``Transient``.
        """
        async with self._reading:
            if not self._tenants:
                # What was logged while nobody followed is nobody's news.
                self.position = await events.head(self._database)
            for room in reader.rooms:
                self._readers.setdefault(room, set()).add(reader)
            self._tenants.update({tenant for tenant, _ in reader.rooms})

    def leave(self, reader: Reader) -> None:
        """Hand ``reader`` nothing more."""
        for room in reader.rooms:
            readers = self._readers[room]
            readers.remove(reader)
            if not readers:
                del self._readers[room]
        for tenant in {tenant for tenant, _ in reader.rooms}:
            self._tenants[tenant] -= 1
            if not self._tenants[tenant]:
                del self._tenants[tenant]

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            await self._nudge.wait(self.RHYTHM)
            self._nudge.clear()
            try:
                if await self.step():
                    self._nudge.set()
            except Transient as error:
                log.warning("log_not_followed", reason=error.message)
                await self._clock.sleep(self.RHYTHM)
                continue
            self._metrics.loop_succeeded.labels("tail").set(self._clock.now().timestamp())
            await self._clock.sleep(self.PAUSE)

    async def step(self) -> bool:
        """Hand out the next portion; whether there is more. Raises ``Transient``."""
        async with self._reading:
            if not self._tenants:
                return False
            head = await events.head(self._database)
            through = min(head, self.position + self.PORTION)
            if through > self.position:
                portion = await events.between(
                    self._database,
                    self._tenants.keys(),
                    ring=self._ring,
                    after=self.position,
                    through=through,
                )
                for event in portion:
                    self._hand_out(event)
                self.position = through
            self._metrics.log_unread.set(head - through)
            return through < head

    def _hand_out(self, event: LoggedEvent | SealedEvent) -> None:
        for room in rooms_of_event(event.tenant_id, event.instance_id):
            for reader in tuple(self._readers.get(room, ())):
                if isinstance(event, SealedEvent):
                    reader.miss(event)
                else:
                    reader.hear(event)

    def _hear(self, _message: Incoming) -> None:
        self._nudge.set()
