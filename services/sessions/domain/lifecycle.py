"""What an instance's connection goes through, as functions from one state to the next.

``created`` leads to ``connecting`` when it is opened. From there ``qr`` and ``pairing`` lead a new
device, and nothing leads a known one, to ``ready``. A connection that comes back by itself is
``connecting`` meanwhile. The other four are ends: only opening it again leads out of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from shared.contracts.events import (
    ConnectionUpdate,
    InstanceConnected,
    InstanceDisconnected,
    InstanceQr,
    InstanceStatus,
    SessionDegraded,
)
from shared.contracts.model import Event


class Status(StrEnum):
    """The public statuses of an instance."""

    CREATED = "created"
    CONNECTING = "connecting"
    QR = "qr"
    PAIRING = "pairing"
    READY = "ready"
    DISCONNECTED = "disconnected"
    LOGGED_OUT = "logged_out"
    BANNED = "banned"
    FAILED = "failed"


# A session exists in these, in whatever condition.
ACTIVE = frozenset({Status.CONNECTING, Status.QR, Status.PAIRING, Status.READY})
ENDS = frozenset({Status.DISCONNECTED, Status.LOGGED_OUT, Status.BANNED, Status.FAILED})


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What is so with an instance's connection. ``since`` is when it got its present status."""

    status: Status
    since: datetime
    version: int = 0
    phone_number: str | None = None
    device_info: dict[str, object] | None = None
    last_error: str | None = None
    qr_code: str | None = None
    qr_expires_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """The next state, and why it came to it; ``also`` is told although it changes nothing."""

    state: State
    reason: str | None = None
    also: tuple[Event, ...] = ()


def opened(state: State, *, now: datetime) -> Change | None:
    """Somebody wants it connected."""
    if state.status is Status.CONNECTING:
        return None
    return Change(state=_moved(state, Status.CONNECTING, now))


def qr_shown(state: State, *, code: str, expires_at: datetime, now: datetime) -> Change | None:
    """WhatsApp shows a code for a phone to scan; the one before is void."""
    if state.status not in {Status.CONNECTING, Status.QR}:
        return None
    moved = _moved(state, Status.QR, now)
    return Change(state=replace(moved, qr_code=code, qr_expires_at=expires_at))


def paired(
    state: State, *, phone_number: str, device_info: dict[str, object], now: datetime
) -> Change | None:
    """A phone has linked this device; WhatsApp gets it ready."""
    if state.status not in ACTIVE - {Status.READY}:
        return None
    moved = _moved(state, Status.PAIRING, now)
    return Change(state=replace(moved, phone_number=phone_number, device_info=device_info))


def connected(state: State, *, phone_number: str | None, now: datetime) -> Change | None:
    """It can send and receive."""
    if state.status not in ACTIVE - {Status.READY}:
        return None
    moved = _moved(state, Status.READY, now)
    return Change(
        state=replace(moved, phone_number=phone_number or state.phone_number, last_error=None)
    )


def interrupted(state: State, *, reason: str, now: datetime) -> Change | None:
    """The connection is lost and comes back by itself."""
    if state.status not in ACTIVE - {Status.CONNECTING}:
        return None
    return Change(state=_moved(state, Status.CONNECTING, now), reason=reason)


def ended(
    state: State,
    *,
    status: Status,
    reason: str,
    error: bool,
    now: datetime,
    detail: str | None = None,
) -> Change | None:
    """It is over until somebody opens it again; ``error`` if nobody asked for that.

    ``detail`` is what stays to be read of it, if that is more than the reason.
    """
    if state.status is status or (state.status in ENDS and status is not Status.LOGGED_OUT):
        return None  # What is over stays as it ended; only its credentials can still be erased.
    moved = _moved(state, status, now)
    left = detail or reason
    return Change(state=replace(moved, last_error=left if error else None), reason=reason)


def degraded(state: State, *, reason: str, last_heard_at: datetime | None) -> Change | None:
    """It looks connected and hears nothing."""
    if state.status is not Status.READY:
        return None
    event = SessionDegraded(reason=reason, last_heard_at=last_heard_at)
    return Change(state=state, reason=reason, also=(event,))


def hindered(state: State, *, reason: str) -> Change | None:
    """An attempt to connect has failed; another follows."""
    if state.status in ENDS:
        return None
    event = ConnectionUpdate(connection="retrying", reason=reason)
    return Change(state=state, reason=reason, also=(event,))


def told(before: State, change: Change) -> Sequence[Event]:
    """What everybody is told about a change."""
    after = change.state
    events: list[Event] = []
    if after.status is not before.status:
        events.append(
            InstanceStatus(status=after.status.value, reason=change.reason, since=after.since)
        )
    if after.qr_code is not None and after.qr_code != before.qr_code and after.qr_expires_at:
        events.append(InstanceQr(code=after.qr_code, expires_at=after.qr_expires_at))
    if after.status is Status.READY and before.status is not Status.READY:
        events.append(InstanceConnected(phone_number=after.phone_number))
    lost = before.status is Status.READY and after.status is Status.CONNECTING
    if lost or (after.status in ENDS and before.status not in ENDS):
        events.append(
            InstanceDisconnected(reason=change.reason or after.status.value, will_retry=lost)
        )
    return [*events, *change.also]


def _moved(state: State, status: Status, now: datetime) -> State:
    since = state.since if state.status is status else now
    return replace(state, status=status, since=since, qr_code=None, qr_expires_at=None)
