"""What the gateway does by itself: tell, refresh, note, forget and erase."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy.ext.asyncio import AsyncConnection

from services.gateway.domain.plans import PLANS, month_at, warn_from
from services.gateway.metrics import GatewayMetrics
from services.gateway.store import (
    accounts,
    audit,
    dead_letters,
    events,
    idempotency,
    media,
    platform,
    usage,
)
from services.gateway.store.keys import KeyUses
from services.gateway.store.platform import Broadcast
from services.gateway.store.sightings import Sightings
from services.gateway.store.usage import MonthUsage
from shared.broker.port import Broker, Outgoing
from shared.broker.topology import COMMANDS
from shared.clock import Clock
from shared.contracts.commands import Dispatch
from shared.contracts.envelope import Emitted
from shared.contracts.events import QuotaWarning, SystemStatus
from shared.db.database import Database
from shared.db.tables.gateway import GatewayOutboxRow
from shared.errors import Transient, Unroutable
from shared.ids import id_of, new_id
from shared.log import get_logger
from shared.media.keeping import alone
from shared.media.store import MediaStore
from shared.messaging import outbox
from shared.messaging.outbox import Relay
from shared.nudge import Nudge

log = get_logger()

_FOR_LONG: Final = timedelta(hours=1)


class DispatchNews:
    """Tells the dispatcher which instances have something to send, many in one message.

    The first is told of at once; then, while that is under way and for ``pause`` after it,
    instances are collected for the next. Pure news: if it cannot be told, the dispatcher's sweep
    finds out a little later.
    """

    def __init__(
        self, *, broker: Broker, clock: Clock, pause: timedelta = timedelta(milliseconds=20)
    ) -> None:
        self._broker = broker
        self._clock = clock
        self._pause = pause
        self._instances: set[UUID] = set()
        self._nudge = Nudge()

    def tell(self, instance_id: UUID) -> None:
        """An instance has something new to send."""
        if not self._instances:
            self._nudge.set()
        self._instances.add(instance_id)

    async def run(self) -> None:
        """Tell until cancelled."""
        while True:
            await self._nudge.wait(_FOR_LONG)
            self._nudge.clear()
            try:
                await self.step()
            except (Transient, Unroutable) as error:
                log.warning("dispatch_not_told", reason=error.message)
            await self._clock.sleep(self._pause)

    async def step(self) -> int:
        """Tell of all instances that were collected; returns how many. Raises ``Transient``."""
        if not self._instances:
            return 0
        instances, self._instances = self._instances, set()
        await self._broker.publish(
            [
                Outgoing(
                    exchange=COMMANDS,
                    routing_key="dispatcher.nudges",
                    body=Dispatch(instance_ids=tuple(instances)).model_dump_json().encode(),
                    message_id=str(new_id()),
                    type=Dispatch.TYPE,
                )
            ]
        )
        return len(instances)


class KeepFresh:
    """Reads what is remembered and in use before it is too old, so that no request waits for it."""

    RHYTHM: Final = timedelta(milliseconds=100)
    AFTER_FAILURE: Final = timedelta(seconds=1)
    DEADLINE: Final = timedelta(seconds=2)

    def __init__(
        self,
        refresh: Sequence[Callable[[], Awaitable[None]]],
        *,
        clock: Clock,
        metrics: GatewayMetrics,
    ) -> None:
        self._refresh = refresh
        self._clock = clock
        self._metrics = metrics

    async def run(self) -> None:
        """Refresh until cancelled."""
        while True:
            pause = self.RHYTHM
            try:
                await self.step()
            except (TimeoutError, Transient) as error:
                log.warning("not_kept_fresh", reason=str(error) or type(error).__name__)
                pause = self.AFTER_FAILURE
            else:
                self._metrics.loop_succeeded.labels("keep_fresh").set(self._clock.now().timestamp())
            await self._clock.sleep(pause)

    async def step(self) -> None:
        """Read again what is in use and will soon be too old. Raises ``Transient``."""
        async with asyncio.timeout(self.DEADLINE.total_seconds()):
            for refresh in self._refresh:
                await refresh()


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
            try:
                more = await self.step()
            except Transient as error:
                log.warning("broadcast_not_told", reason=error.message)
                more = False
            else:
                self._metrics.loop_succeeded.labels("broadcasts").set(self._clock.now().timestamp())
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


class NoteKeyUse:
    """Writes down when keys were last used, for all of them at once."""

    RHYTHM: Final = timedelta(seconds=5)

    def __init__(self, *, uses: KeyUses, clock: Clock, metrics: GatewayMetrics) -> None:
        self._uses = uses
        self._clock = clock
        self._metrics = metrics

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._clock.sleep(self.RHYTHM)
            try:
                await self._uses.write(now=self._clock.now())
            except Transient as error:
                log.warning("key_use_not_written", reason=error.message)
                continue
            self._metrics.loop_succeeded.labels("key_use").set(self._clock.now().timestamp())


class NoteSightings:
    """Writes down what was seen without anything being changed: failed logins and the like."""

    RHYTHM: Final = timedelta(seconds=2)

    def __init__(self, *, sightings: Sightings, clock: Clock, metrics: GatewayMetrics) -> None:
        self._sightings = sightings
        self._clock = clock
        self._metrics = metrics

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._clock.sleep(self.RHYTHM)
            try:
                await self._sightings.write()
            except Transient as error:
                log.warning("sightings_not_written", reason=error.message)
                continue
            self._metrics.loop_succeeded.labels("sightings").set(self._clock.now().timestamp())


class Forget:
    """Deletes what nobody may ask for any more, in small portions."""

    RHYTHM: Final = timedelta(minutes=1)
    PORTION: Final = 5_000
    # How long it can be seen what became of a dead letter.
    HANDLED: Final = timedelta(days=7)

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
            try:
                forgotten = await self.step()
            except Transient as error:
                log.warning("nothing_forgotten", reason=error.message)
                forgotten = 0
            else:
                self._metrics.loop_succeeded.labels("forget").set(self._clock.now().timestamp())
            if forgotten < self.PORTION:
                await self._clock.sleep(self.RHYTHM)

    async def step(self) -> int:
        """Delete old events, audit entries, answers and tokens; returns how many of the most.

        Dead letters go a week after they were handled, and never before.
        """
        now = self._clock.now()
        async with self._database.tx() as tx:
            forgotten = await events.forget(
                tx, before=now - self._events_kept, at_most=self.PORTION
            )
        async with self._database.tx() as tx:
            await idempotency.forget(tx, expired_before=now)
            # Kept a day longer than they are good for, to tell a late reuse from a wrong token.
            await accounts.forget_refresh_tokens(tx, expired_before=now - timedelta(days=1))
            await dead_letters.forget(tx, handled_before=now - self.HANDLED, at_most=self.PORTION)
        async with self._database.tx() as tx:
            audited = await audit.forget(tx, before=now - self._audit_kept, at_most=self.PORTION)
        return max(forgotten, audited)


class WatchDeadLetters:
    """Measures how many dead letters wait for somebody, and how long the oldest has."""

    RHYTHM: Final = timedelta(seconds=15)

    def __init__(self, *, database: Database, clock: Clock, metrics: GatewayMetrics) -> None:
        self._database = database
        self._clock = clock
        self._metrics = metrics

    async def run(self) -> None:
        """Measure until cancelled."""
        while True:
            try:
                await self.step()
            except Transient as error:
                log.warning("dead_letters_not_measured", reason=error.message)
            await self._clock.sleep(self.RHYTHM)

    async def step(self) -> None:
        """Measure once. Raises ``Transient``."""
        async with self._database.tx() as tx:
            number, oldest = await dead_letters.waiting(tx)
        now = self._clock.now()
        age = timedelta(0) if oldest is None else now - oldest
        self._metrics.dead_letters.set(number)
        self._metrics.dead_letter_age.set(max(0.0, age.total_seconds()))
        self._metrics.loop_succeeded.labels("dead_letters").set(now.timestamp())


class EraseMedia:
    """Removes files from the media store that nothing speaks of any more.

    Those whose rows were deleted go within a minute. Those that nobody is to keep, because their
    organization keeps no content or not for so long, are marked each hour. Those that never got a
    row, because somebody died between storing and recording, are looked for once a day among all
    that is stored, and go when they are a day old.
    """

    RHYTHM: Final = timedelta(minutes=1)
    PORTION: Final = 200
    ORPHANS_AFTER_START: Final = timedelta(minutes=10)
    ORPHANS: Final = timedelta(days=1)
    OUTLIVED: Final = timedelta(hours=1)
    # A file is stored before its message is; until then nothing says that it is needed.
    PASSING: Final = timedelta(days=1)

    def __init__(
        self,
        *,
        database: Database,
        store: MediaStore,
        clock: Clock,
        metrics: GatewayMetrics,
        received_kept: timedelta,
    ) -> None:
        self._database = database
        self._store = store
        self._received_kept = received_kept
        self._clock = clock
        self._metrics = metrics

    async def run(self) -> None:
        """Erase until cancelled."""
        orphans_due = self._clock.now() + self.ORPHANS_AFTER_START
        outlived_due = self._clock.now()
        while True:
            try:
                now = self._clock.now()
                if now >= outlived_due and await self.outlive() < self.PORTION:
                    outlived_due = now + self.OUTLIVED
                erased = await self.step()
                if self._clock.now() >= orphans_due:
                    await self.orphans()
                    orphans_due = self._clock.now() + self.ORPHANS
            except Transient as error:
                log.warning("media_not_erased", reason=error.message)
                erased = 0
            else:
                now = self._clock.now()
                self._metrics.loop_succeeded.labels("erase_media").set(now.timestamp())
            if erased < self.PORTION:
                await self._clock.sleep(self.RHYTHM)

    async def step(self) -> int:
        """Erase files whose rows were deleted; returns for how many this was settled."""
        async with self._database.tx() as tx:
            files = await media.erasable(tx, at_most=self.PORTION)
        for tenant_id, sha256 in files:
            async with self._database.tx() as tx:
                if await self._erase(tx, tenant_id, sha256):
                    self._metrics.media_erased.inc()
                await media.note_erased(tx, tenant_id, sha256, now=self._clock.now())
        return len(files)

    async def outlive(self) -> int:
        """Mark files that nobody is to keep any more; returns how many, at most twice a portion."""
        now = self._clock.now()
        async with self._database.tx() as tx:
            return await media.outlive(
                tx,
                now=now,
                passing_before=now - self.PASSING,
                received_before=now - self._received_kept,
                at_most=self.PORTION,
            )

    async def orphans(self) -> int:
        """Remove what was stored over a day ago and never recorded; returns how many files."""
        before = self._clock.now() - self.ORPHANS
        removed = await self._store.forget_unfinished(before=before)
        async for page in self._store.objects():
            old = [(kept.tenant_id, kept.sha256) for kept in page if kept.stored_at < before]
            removed += await self._remove_orphans(old)
        self._metrics.media_orphans.inc(removed)
        return removed

    async def _remove_orphans(self, files: list[tuple[UUID, str]]) -> int:
        async with self._database.tx() as tx:
            lost = await media.unreferenced(tx, files)
        removed = 0
        for tenant_id, sha256 in lost:
            async with self._database.tx() as tx:
                removed += await self._erase(tx, tenant_id, sha256)
        return removed

    async def _erase(self, tx: AsyncConnection, tenant_id: UUID, sha256: str) -> bool:
        """Remove a file unless something speaks of it; nothing can begin to meanwhile."""
        await alone(tx, tenant_id, sha256)
        if not await media.unreferenced(tx, [(tenant_id, sha256)]):
            return False
        await self._store.delete(tenant_id, sha256)
        return True


class WarnOfQuotas:
    """Tells tenants that most of what their plan allows in a month is used, once for each month.

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
            try:
                warned = await self.step()
            except Transient as error:
                log.warning("quotas_not_looked_at", reason=error.message)
                warned = 0
            else:
                now = self._clock.now()
                self._metrics.loop_succeeded.labels("warn_of_quotas").set(now.timestamp())
            if warned < self.PORTION:
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
        id=id_of(QuotaWarning.TYPE, tenant, one.month),
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
