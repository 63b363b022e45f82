"""The chronicle: what becomes of a session, written and told to everybody in one transaction."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

from services.sessions.domain import lifecycle
from services.sessions.domain.instance import Instance
from services.sessions.domain.lease import Lease
from services.sessions.domain.lifecycle import Change, State, Status
from services.sessions.engines.port import (
    Banned,
    Connected,
    Deaf,
    Disconnected,
    Failed,
    Hindered,
    LoggedOut,
    Paired,
    Qr,
    Replaced,
    SessionHappening,
)
from services.sessions.metrics import SessionsMetrics
from services.sessions.store import fence as fences
from services.sessions.store import states
from services.sessions.store.fence import Fence
from shared.clock import Clock
from shared.contracts.envelope import Emitted
from shared.contracts.model import rfc3339
from shared.errors import Fenced
from shared.ids import id_of
from shared.log import get_logger
from shared.messaging import outbox
from shared.messaging.outbox import Stored

log = get_logger()

REPLACED: Final = "replaced"

Decide = Callable[[State], Change | None]


class Chronicle:
    """Writes session states under the epoch; calls ``told`` when there is something to publish."""

    def __init__(
        self,
        *,
        fence: Fence,
        clock: Clock,
        told: Callable[[Sequence[Stored]], None],
        metrics: SessionsMetrics,
    ) -> None:
        self._fence = fence
        self._clock = clock
        self._told = told
        self._metrics = metrics

    async def change(self, instance: Instance, lease: Lease, decide: Decide) -> State:
        """Decide on the present state, write the next and say so, in one fenced transaction.

        Returns the state as it is then. Raises ``Fenced``.
        """
        now = self._clock.now()
        async with self._fence.tx() as connection:
            if not await fences.hold(connection, [lease]):
                raise Fenced("Another process owns this shard now.")
            before = await states.load(connection, instance.id)
            before = before or State(status=Status.CREATED, since=now)
            change = decide(before)
            if change is None:
                return before
            after = await states.save(connection, instance, lease, change.state)
            events = lifecycle.told(before, change)
            rows = [
                outbox.event(
                    Emitted(
                        id=id_of(event.TYPE, instance.id, after.version),
                        event=event,
                        tenant_id=instance.tenant_id,
                        instance_id=instance.id,
                        time=now,
                        subject=f"instances/{instance.id}",
                        partition_key=str(instance.id),
                    )
                )
                for event in events
            ]
            stored = await outbox.add_hot(connection, "sessions", rows, now=now)
        self._told(stored)
        if after.status is not before.status:
            self._metrics.status_changes.labels(after.status.value).inc()
            log.info(
                "session_status_changed",
                instance_id=str(instance.id),
                status=after.status.value,
                reason=change.reason,
            )
        return after


def ending(
    status: Status, reason: str, *, error: bool, now: datetime, detail: str | None = None
) -> Decide:
    """Decides that a session is over; ``error`` if nobody asked for that."""
    return lambda state: lifecycle.ended(
        state, status=status, reason=reason, error=error, now=now, detail=detail
    )


def after(  # noqa: C901, PLR0911 - one for each kind of event
    state: State, event: SessionHappening, *, now: datetime
) -> Change | None:
    """What an engine's word makes of a state."""
    match event:
        case Qr():
            return lifecycle.qr_shown(state, code=event.code, expires_at=event.expires_at, now=now)
        case Paired():
            return lifecycle.paired(
                state,
                phone_number=event.phone_number,
                device_info=dict(event.device_info),
                now=now,
            )
        case Connected():
            return lifecycle.connected(state, phone_number=event.phone_number, now=now)
        case Disconnected(will_retry=True):
            return lifecycle.interrupted(state, reason=event.reason, now=now)
        case Disconnected():
            return ending(Status.DISCONNECTED, event.reason, error=True, now=now)(state)
        case LoggedOut():
            return ending(Status.LOGGED_OUT, event.reason, error=True, now=now)(state)
        case Banned():
            until = None if event.until is None else f"{event.reason} until {rfc3339(event.until)}"
            return ending(Status.BANNED, event.reason, error=True, now=now, detail=until)(state)
        case Failed():
            return ending(Status.FAILED, event.reason, error=True, now=now)(state)
        case Replaced():
            return lifecycle.interrupted(state, reason=REPLACED, now=now)
        case Deaf():
            return lifecycle.degraded(state, reason=event.reason, last_heard_at=event.last_heard_at)
        case Hindered():
            return lifecycle.hindered(state, reason=event.reason)
