"""Timed work that no message starts: expiry, doubt that lasts too long, and repairs."""

from datetime import timedelta
from typing import Final

from services.dispatcher import settlement
from services.dispatcher.dispatching import Dispatching
from services.dispatcher.metrics import DispatcherMetrics
from services.dispatcher.store import upkeep
from shared.clock import Clock
from shared.db.database import Database
from shared.errors import Transient
from shared.log import get_logger
from shared.messaging.outbox import Relay
from shared.security.sealing import KeyRing

log = get_logger()

RHYTHM: Final = timedelta(seconds=1)
LIMIT: Final = 500
# Longer than the broker is usually away: the report itself says more than the row does.
UNREPORTED_AFTER: Final = timedelta(minutes=10)


class Upkeep:
    """Ends messages whose time is up and puts stranded ones back in line."""

    def __init__(
        self,
        *,
        database: Database,
        dispatching: Dispatching,
        relay: Relay,
        ring: KeyRing,
        clock: Clock,
        metrics: DispatcherMetrics,
    ) -> None:
        self._database = database
        self._dispatching = dispatching
        self._relay = relay
        self._ring = ring
        self._clock = clock
        self._metrics = metrics

    async def run(self) -> None:
        """Keep up until cancelled."""
        while True:
            try:
                more = await self.step()
            except Transient as error:
                log.warning("upkeep_postponed", reason=error.message)
                more = False
            else:
                self._metrics.loop_succeeded.labels("upkeep").set(self._clock.now().timestamp())
            if not more:
                await self._clock.sleep(RHYTHM)

    async def step(self) -> bool:
        """Do all of it once; whether there was so much that more is left."""
        now = self._clock.now()
        async with self._database.hot_tx() as connection:
            expired = await upkeep.lock_expired(connection, now=now, limit=LIMIT)
            freed = [
                await settlement.fail(
                    connection,
                    expired,
                    code="EXPIRED",
                    reason="The message could not be sent before it expired.",
                    now=now,
                )
            ]
        async with self._database.hot_tx() as connection:
            doubted = await upkeep.lock_unconfirmed(connection, now=now, limit=LIMIT)
            freed.append(
                await settlement.fail(
                    connection,
                    doubted,
                    code="UNCONFIRMED",
                    reason="WhatsApp never confirmed the message; it may or may not have arrived.",
                    now=now,
                )
            )
        async with self._database.hot_tx() as connection:
            unreported = await upkeep.unreported(
                connection, before=now - UNREPORTED_AFTER, limit=LIMIT
            )
            freed.append(
                await settlement.settle(
                    connection, unreported, ring=self._ring, now=now, jitter=settlement.jitter
                )
            )
        async with self._database.hot_tx() as connection:
            stranded = await upkeep.unpark_orphans(connection)
        for one in freed:
            self._relay.wake(one.told)
            self._dispatching.go_on(one)
        if stranded:
            self._dispatching.look_at(stranded)
        return len(expired) == LIMIT or len(doubted) == LIMIT
