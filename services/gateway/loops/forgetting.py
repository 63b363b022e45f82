"""Deleting what nobody may ask for any more."""

from datetime import timedelta
from typing import Final

from services.gateway.domain.engines import SECRETS
from services.gateway.metrics import GatewayMetrics
from services.gateway.store import (
    accounts,
    audit,
    dead_letters,
    events,
    idempotency,
    instances,
    media,
)
from shared.clock import Clock
from shared.db.database import Database
from shared.runtime.steps import attempt


class Forget:
    """Deletes what nobody may ask for any more, in small portions."""

    RHYTHM: Final = timedelta(minutes=1)
    PORTION: Final = 5_000
    # How long it can be seen what became of a dead letter.
    HANDLED: Final = timedelta(days=7)
    # How long a deleted instance's proxy stays at least, for whoever unlinks its device by it.
    UNLINKED: Final = timedelta(days=1)
    # How long the row of a file stays that is gone; its name goes at once.
    ERASED: Final = timedelta(days=1)

    def __init__(
        self,
        *,
        database: Database,
        clock: Clock,
        metrics: GatewayMetrics,
        events_kept: timedelta,
        audit_kept: timedelta,
    ) -> None:
        self._database = database
        self._clock = clock
        self._metrics = metrics
        self._events_kept = events_kept
        self._audit_kept = audit_kept

    async def run(self) -> None:
        """Forget until cancelled."""
        while True:
            forgotten = await attempt(
                self.step,
                loop="forget",
                failed="nothing_forgotten",
                clock=self._clock,
                metrics=self._metrics,
            )
            if (forgotten or 0) < self.PORTION:
                await self._clock.sleep(self.RHYTHM)

    async def step(self) -> int:
        """Delete old events, audit entries, answers and tokens; returns how many of the most.

        Dead letters go a week after they were handled, and never before. Events of a tenant that
        keeps messages for less go as soon as those do. Deleted instances lose their proxies a day
        later, and whatever secrets they have left.
        """
        now = self._clock.now()
        async with self._database.tx() as tx:
            forgotten = await events.forget(
                tx, before=now - self._events_kept, at_most=self.PORTION
            )
            brief = await accounts.retentions(tx, shorter_than=self._events_kept)
        for tenant_id, kept in brief:
            async with self._database.tx() as tx:
                gone = await events.forget_of(
                    tx, tenant_id, before=now - kept, at_most=self.PORTION
                )
            forgotten = max(forgotten, gone)
        async with self._database.tx() as tx:
            await idempotency.forget(tx, expired_before=now)
            # Kept a day longer than they are good for, to tell a late reuse from a wrong token.
            await accounts.forget_refresh_tokens(tx, expired_before=now - timedelta(days=1))
            await dead_letters.forget(tx, handled_before=now - self.HANDLED, at_most=self.PORTION)
        async with self._database.tx() as tx:
            audited = await audit.forget(tx, before=now - self._audit_kept, at_most=self.PORTION)
        async with self._database.tx() as tx:
            await media.forget(tx, erased_before=now - self.ERASED, at_most=self.PORTION)
        async with self._database.tx() as tx:
            await instances.forget_secrets(
                tx, SECRETS, deleted_before=now - self.UNLINKED, at_most=self.PORTION
            )
        return max(forgotten, audited)
