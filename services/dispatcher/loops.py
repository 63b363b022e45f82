"""Timed work that no message starts: expiry, doubt that lasts too long, repairs, and histories."""

from datetime import timedelta
from typing import Final

from services.dispatcher import settlement
from services.dispatcher.dispatching import Dispatching
from services.dispatcher.metrics import DispatcherMetrics
from services.dispatcher.store import history, upkeep
from shared.clock import Clock
from shared.db.database import Database
from shared.log import get_logger
from shared.messaging.outbox import Relay
from shared.runtime.steps import attempt
from shared.security.sealing import KeyRing

log = get_logger()

RHYTHM: Final = timedelta(seconds=1)
LIMIT: Final = 500
RETENTION_RHYTHM: Final = timedelta(minutes=10)
# Between two batches of deletions, so that whoever else needs the disk gets it.
BREATH: Final = timedelta(milliseconds=100)
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
            more = await attempt(
                self.step,
                loop="upkeep",
                failed="upkeep_postponed",
                clock=self._clock,
                metrics=self._metrics,
            )
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


class History:
    """Seals what is old, indexes what is new, and erases what nobody keeps any more."""

    def __init__(
        self, *, database: Database, ring: KeyRing, clock: Clock, metrics: DispatcherMetrics
    ) -> None:
        self._database = database
        self._ring = ring
        self._clock = clock
        self._metrics = metrics

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            more = await attempt(
                self.step,
                loop="history",
                failed="history_postponed",
                clock=self._clock,
                metrics=self._metrics,
            )
            await self._clock.sleep(BREATH if more else RHYTHM)

    async def step(self) -> bool:
        """Do a batch of each; whether there was so much that more is left."""
        async with self._database.hot_tx(durable=False) as connection:
            indexed = await history.index(connection, ring=self._ring, limit=LIMIT)
        async with self._database.hot_tx() as connection:
            sealed = await history.seal_old(connection, ring=self._ring, limit=LIMIT)
        erasing = await self.erase()
        self._metrics.history.labels("indexed").inc(indexed)
        self._metrics.history.labels("sealed").inc(sealed)
        return erasing or LIMIT in {indexed, sealed}

    async def erase(self) -> bool:
        """Erase a batch of a history that nobody keeps any more; whether more may be left."""
        now = self._clock.now()
        async with self._database.hot_tx() as connection:
            tenant_id = await history.begin_erasing(connection, now=now)
            if tenant_id is None:
                return False
            walked = await history.erase(connection, tenant_id, now=now, limit=LIMIT)
        self._metrics.history.labels("erased").inc(walked.done)
        if walked.ended:
            log.info("history_erased", tenant_id=str(tenant_id))
        return True


class Retention:
    """Deletes messages that are older than their organization wants them to be."""

    def __init__(self, *, database: Database, clock: Clock, metrics: DispatcherMetrics) -> None:
        self._database = database
        self._clock = clock
        self._metrics = metrics

    async def run(self) -> None:
        """Delete until cancelled."""
        while True:
            await attempt(
                self.round,
                loop="forgetting",
                failed="retention_postponed",
                clock=self._clock,
                metrics=self._metrics,
            )
            await self._clock.sleep(RETENTION_RHYTHM)

    async def round(self) -> int:
        """Delete all that is too old, a batch at a time; returns how many messages that were.

        A crash loses nothing: the next round walks again from the oldest that is left.
        """
        deleted = 0
        async with self._database.hot() as connection:
            wanted = await history.retentions(connection)
        for tenant_id, kept in wanted:
            before = self._clock.now() - kept
            after, ended = 0, False
            while not ended:
                async with self._database.hot_tx() as connection:
                    walked = await history.delete_old(
                        connection, tenant_id, before=before, after=after, limit=LIMIT
                    )
                after, ended = walked.upto, walked.ended
                deleted += walked.done
                self._metrics.history.labels("deleted").inc(walked.done)
                if not ended:
                    await self._clock.sleep(BREATH)
        if deleted:
            log.info("messages_deleted", count=deleted)
        return deleted
