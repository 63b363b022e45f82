"""The ledger: what came of attempts, written in batches together with what follows from them."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from services.webhooks.domain.delivery import Attempt, Verdict
from services.webhooks.domain.endpoint import TEST, Endpoint
from services.webhooks.domain.health import Announcement, Health, after_attempt
from services.webhooks.domain.schedule import ONCE, SCHEDULE, TryAgain, after_failure
from services.webhooks.metrics import WebhooksMetrics
from services.webhooks.sender.lanes import Lanes
from services.webhooks.store import deliveries, results
from services.webhooks.store.results import Written
from shared.clock import Clock
from shared.contracts.envelope import Emitted
from shared.contracts.events import WebhookDisabled, WebhookRecovered
from shared.db.database import Database, HotConnection
from shared.db.group_commit import GroupCommit
from shared.errors import Transient
from shared.ids import id_of
from shared.log import get_logger
from shared.messaging import outbox
from shared.messaging.outbox import Relay
from shared.security.sealing import KeyRing

log = get_logger()

# Nobody waits for what is written here, so it can wait for company.
LINGER: Final = timedelta(milliseconds=20)
# Posts stop when this many results are not written: the database is slower than the endpoints.
MOST_UNWRITTEN: Final = 2000
# A healthy endpoint's row need not be looked at for every batch; also how exact last_success_at is.
TRUSTED: Final = timedelta(seconds=5)
AGAIN_AFTER: Final = timedelta(seconds=1)
END_LIMIT: Final = 1000


class Ledger:
    """Writes attempts down. An attempt that cannot be written in time is made again by others."""

    def __init__(
        self,
        *,
        database: Database,
        ring: KeyRing,
        relay: Relay,
        lanes: Lanes,
        clock: Clock,
        metrics: WebhooksMetrics,
        worker: str,
        jitter: Callable[[], float],
    ) -> None:
        self._database = database
        self._ring = ring
        self._relay = relay
        self._lanes = lanes
        self._clock = clock
        self._metrics = metrics
        self._worker = worker
        self._jitter = jitter
        self._unwritten = asyncio.Semaphore(MOST_UNWRITTEN)
        metrics.unwritten.set_function(lambda: float(self._waiting))
        self._waiting = 0
        self._nothing_waits = asyncio.Event()
        self._nothing_waits.set()
        self._trusted: dict[UUID, float] = {}
        self._commits: GroupCommit[Attempt, None] = GroupCommit(
            self._flush, name="webhook-attempts", max_batch=500, linger=LINGER
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Write for as long as the context is open; on exit everything is written first."""
        async with self._commits.running():
            yield

    async def record(self, attempt: Attempt) -> None:
        """Have an attempt written soon; waits only if far too many are waiting."""
        await self._unwritten.acquire()
        self._waiting += 1
        self._nothing_waits.clear()
        self._put(attempt)

    async def written(self) -> None:
        """Return once nothing waits to be written."""
        await self._nothing_waits.wait()

    def _put(self, attempt: Attempt) -> None:
        try:
            future = self._commits.put(attempt)
        except Transient:  # closing: the claim runs out, and the attempt is made again
            self._done()
            return
        future.add_done_callback(lambda done: self._settled(attempt, done))

    def _settled(self, attempt: Attempt, done: asyncio.Future[None]) -> None:
        error = None if done.cancelled() else done.exception()
        if isinstance(error, Transient) and self._clock.monotonic() < attempt.delivery.good_until:
            loop = asyncio.get_running_loop()
            loop.call_later(AGAIN_AFTER.total_seconds(), self._put, attempt)
            return
        if error is not None:
            log.error(
                "webhook_attempt_not_written",
                delivery_id=str(attempt.delivery.id),
                exc_info=error,
            )
        self._done()

    def _done(self) -> None:
        self._waiting -= 1
        if not self._waiting:
            self._nothing_waits.set()
        self._unwritten.release()

    async def _flush(self, attempts: Sequence[Attempt]) -> list[None]:
        now = self._clock.now()
        doubted = self._doubted(attempts)
        if not doubted:  # every day's case, and worth its own path: one round trip, not four
            written = [self._result(attempt, {}, now=now) for attempt in attempts]
            # What a crash takes back is posted again when its claim runs out, under the same id.
            async with self._database.hot(durable=False) as connection:
                counted = await results.write(
                    connection, written, ring=self._ring, worker=self._worker, now=now
                )
            self._take_note(attempts, written, {}, counted=counted)
            return [None] * len(attempts)
        async with self._database.hot_tx() as connection:
            healths, said = await self._examine(connection, attempts, doubted, now=now)
            written = [self._result(attempt, healths, now=now) for attempt in attempts]
            counted = await results.write(
                connection, written, ring=self._ring, worker=self._worker, now=now
            )
            disabled = [e.id for e, what, _ in said if what is Announcement.DISABLED]
            if disabled:
                await deliveries.end_waiting(connection, disabled, limit=END_LIMIT, now=now)
            rows = [outbox.event(_emitted(*one, now=now)) for one in said]
            await outbox.add_hot(connection, "webhooks", rows, now=now)
        if said:
            self._relay.wake()
        self._take_note(attempts, written, healths, counted=counted)
        return [None] * len(attempts)

    async def _examine(
        self,
        connection: HotConnection,
        attempts: Sequence[Attempt],
        doubted: set[UUID],
        *,
        now: datetime,
    ) -> tuple[dict[UUID, Health], list[tuple[Endpoint, Announcement, Health]]]:
        """How the attempts leave the endpoints that may not be as well as they were."""
        before = await results.lock_health(connection, doubted)
        after: dict[UUID, Health] = {id_: before.get(id_, Health()) for id_ in doubted}
        said: list[tuple[Endpoint, Announcement, Health]] = []
        for attempt in attempts:
            id_ = attempt.endpoint.id
            if id_ not in after:
                continue
            health = after[id_]
            after[id_], what = after_attempt(
                health, attempt.answer.verdict, probe=attempt.delivery.probe, now=now
            )
            if what is Announcement.DISABLED:
                said.append((attempt.endpoint, what, after[id_]))
            elif what is Announcement.RECOVERED:
                said.append((attempt.endpoint, what, health))
            if after[id_].opened > health.opened:
                self._metrics.breakers_opened.inc()
        await results.save_health(connection, after)
        return after, said

    def _doubted(self, attempts: Sequence[Attempt]) -> set[UUID]:
        now = self._clock.monotonic()
        return {
            attempt.endpoint.id
            for attempt in attempts
            if attempt.answer.verdict is not Verdict.DELIVERED
            or self._trusted.get(attempt.endpoint.id, 0.0) <= now
        }

    def _result(self, attempt: Attempt, healths: dict[UUID, Health], *, now: datetime) -> Written:
        delivery, answer = attempt.delivery, attempt.answer
        state, next_at = "delivered", None
        if answer.verdict is not Verdict.DELIVERED:
            then = after_failure(
                delivery.attempts + 1,
                now=now,
                jitter=self._jitter(),
                hint=answer.retry_after,
                schedule=ONCE if delivery.event_type == TEST else SCHEDULE,
            )
            if healths[attempt.endpoint.id].disabled_at is not None:
                state = "disabled"
            elif isinstance(then, TryAgain):
                state, next_at = "pending", then.at
            else:
                state = "exhausted"
        return Written(
            delivery_id=delivery.id,
            tenant_id=attempt.endpoint.tenant_id,
            state=state,
            next_at=next_at,
            answer=answer,
        )

    def _take_note(
        self,
        attempts: Sequence[Attempt],
        written: Sequence[Written],
        healths: dict[UUID, Health],
        *,
        counted: int,
    ) -> None:
        """After the commit: tell the lanes, the metrics and the log."""
        trusted_until = self._clock.monotonic() + TRUSTED.total_seconds()
        for id_, health in healths.items():
            self._lanes.heard(id_, health)
            if health.clean:
                self._trusted[id_] = trusted_until
            else:
                self._trusted.pop(id_, None)
        if len(self._trusted) > 10_000:
            self._trusted.clear()
        states = Counter(result.state for result in written)
        for state, number in states.items():
            if state != "pending":
                self._metrics.ended.labels(state).inc(number)
        for verdict, number in Counter(attempt.answer.verdict for attempt in attempts).items():
            self._metrics.attempts.labels(verdict).inc(number)
        for attempt in attempts:
            self._metrics.post_seconds.observe(attempt.answer.duration.total_seconds())
        for attempt, result in zip(attempts, written, strict=True):
            if result.state != "delivered":
                log.info(
                    "webhook_attempt_failed",
                    delivery_id=str(attempt.delivery.id),
                    endpoint_id=str(attempt.endpoint.id),
                    attempt=attempt.delivery.attempts + 1,
                    verdict=attempt.answer.verdict,
                    status=attempt.answer.status,
                    error=attempt.answer.error,
                    state=result.state,
                )
        log.info("webhook_attempts_written", attempts=len(attempts), counted=counted, **states)


def _emitted(endpoint: Endpoint, what: Announcement, health: Health, *, now: datetime) -> Emitted:
    id_ = str(endpoint.id)
    if what is Announcement.DISABLED:
        reason = health.disabled_reason or ""
        event: WebhookDisabled | WebhookRecovered = WebhookDisabled(
            webhook_id=id_, url=endpoint.url, reason=reason
        )
    else:
        event = WebhookRecovered(webhook_id=id_, url=endpoint.url)
    return Emitted(
        # Of when it happened: the row was locked, so it happens once.
        id=id_of(event.TYPE, id_, now.isoformat()),
        event=event,
        tenant_id=endpoint.tenant_id,
        instance_id=endpoint.instance_id,
        time=now,
        subject=id_,
        partition_key=id_,
    )
