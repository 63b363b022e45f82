"""Warning tenants that most of their month is used."""

from datetime import datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from services.gateway.domain.plans import PLANS, month_at, warn_from
from services.gateway.metrics import GatewayMetrics
from services.gateway.store import usage
from services.gateway.store.usage import MonthUsage
from shared.clock import Clock
from shared.contracts.envelope import Emitted
from shared.contracts.events import QuotaWarning
from shared.db.database import Database
from shared.db.tables.gateway import GatewayOutboxRow
from shared.ids import id_of
from shared.messaging import outbox
from shared.messaging.outbox import Relay
from shared.nudge import Nudge
from shared.runtime.steps import attempt


class WarnOfQuotas:
    """Tells tenants that most of what their plan allows in a month is used.

    Once for each month and plan.
    It is nudged when a commit gets somebody there, and looks by itself for whom that was missed.
    """

    RHYTHM: Final = timedelta(minutes=1)
    PORTION: Final = 100
    # No month that is anybody's current one has begun earlier.
    LONGEST_MONTH: Final = timedelta(days=33)

    def __init__(
        self, *, database: Database, relay: Relay, clock: Clock, metrics: GatewayMetrics
    ) -> None:
        self._database = database
        self._relay = relay
        self._clock = clock
        self._metrics = metrics
        self._nudge = Nudge()

    def near(self) -> None:
        """Somebody has just got there."""
        self._nudge.set()

    async def run(self) -> None:
        """Warn until cancelled."""
        while True:
            self._nudge.clear()
            warned = await attempt(
                self.step,
                loop="warn_of_quotas",
                failed="quotas_not_looked_at",
                clock=self._clock,
                metrics=self._metrics,
            )
            if (warned or 0) < self.PORTION:
                await self._nudge.wait(self.RHYTHM)

    async def step(self) -> int:
        """Warn those who are there and do not know; returns how many were looked at."""
        now = self._clock.now()
        async with self._database.tx() as tx:
            found = await usage.unwarned(
                tx,
                since=(now - self.LONGEST_MONTH).date(),
                at_least={plan.name: warn_from(plan) for plan in PLANS.values()},
                at_most=self.PORTION,
            )
            # What of an earlier month nobody was told is noted too: it is nobody's news any more.
            months = [(one.tenant_id, one.month) for one in found]
            await usage.note_warned(tx, months, now=now)
            warnings = [
                outbox.event(_quota_warning(one, now=now)) for one in found if _now(one, now)
            ]
            await outbox.add(tx, GatewayOutboxRow, warnings, now=now)
        if warnings:
            self._relay.wake()
        self._metrics.quota_warnings.inc(len(warnings))
        return len(found)


def _now(one: MonthUsage, now: datetime) -> bool:
    return month_at(now, ZoneInfo(one.timezone)).first == one.month


def _quota_warning(one: MonthUsage, *, now: datetime) -> Emitted:
    tenant = str(one.tenant_id)
    return Emitted(
        id=id_of(QuotaWarning.TYPE, tenant, one.month, one.plan),
        event=QuotaWarning(
            resource="messages",
            used=one.accepted,
            limit=PLANS[one.plan].messages,
            resets_at=month_at(now, ZoneInfo(one.timezone)).ends,
        ),
        tenant_id=one.tenant_id,
        instance_id=None,
        time=now,
        subject=tenant,
        partition_key=tenant,
    )
