"""Whether an instance takes messages, and if not, what its owner should do."""

from collections.abc import Mapping
from typing import Final

from shared.errors import Conflict, Rejected

# These pass by themselves as long as the instance is meant to be connected.
_PASSING: Final = frozenset({"disconnected", "connecting"})

_REMEDIES: Final[Mapping[str, str]] = {
    "created": "connect it first: POST /api/instances/{id}/connect.",
    "qr": "scan its QR code first: GET /api/instances/{id}/qr.",
    "pairing": "wait until it is ready: GET /api/instances/{id}/status.",
    "logged_out": "see lastError in GET /api/instances/{id}/status; connect it again, and pair it"
    " if it is a device: POST /api/instances/{id}/connect.",
    "banned": "WhatsApp has banned its number; connect another one.",
    "failed": "see lastError in GET /api/instances/{id}/status, then connect it again.",
    "connecting": "wait until it is ready: GET /api/instances/{id}/status.",
    "disconnected": "connect it first: POST /api/instances/{id}/connect.",
    "ready": "it is being disconnected; connect it again: POST /api/instances/{id}/connect.",
}


class InstanceNotReady(Rejected):
    """The instance takes no messages until somebody does something about it."""

    code = "INSTANCE_NOT_READY"


def takes_messages(status: str, *, connected: bool) -> bool:
    """Whether messages are accepted: ``connected`` is what the tenant wants, ``status`` what is.

    One that has lost its connection and is getting it back accepts: its messages wait.
    """
    return connected and (status == "ready" or status in _PASSING)


def not_ready(status: str) -> InstanceNotReady:
    """What to tell whoever wanted to send."""
    remedy = _REMEDIES.get(status, "connect it first: POST /api/instances/{id}/connect.")
    return InstanceNotReady(
        f"The instance is not ready ({status}); {remedy}", data={"status": status}
    )


def was_paired(status: str) -> bool:
    """Whether an instance has a number that others can write to."""
    return status == "ready" or status in _PASSING


_PAIRING_STATES: Final = frozenset({"connecting", "qr"})
_NO_CODE: Final[Mapping[str, str]] = {
    "created": "connect it first: POST /api/instances/{id}/connect.",
    "connecting": "a code comes in a moment, unless it is paired already.",
    "qr": "the last one has expired and the next one comes in a moment.",
    "pairing": "a phone is being linked at this moment; wait until it is ready.",
    "ready": "it is paired already; to pair it anew, log it out and connect it again.",
    "disconnected": "connect it first: POST /api/instances/{id}/connect.",
    "logged_out": "connect it first: POST /api/instances/{id}/connect.",
    "banned": "WhatsApp has banned its number; pair another one with another instance.",
    "failed": "see lastError in GET /api/instances/{id}/status, then connect it again.",
}


def can_be_paired(status: str, *, connected: bool) -> bool:
    """Whether a phone can be linked by code now."""
    return connected and status in _PAIRING_STATES


def no_code(status: str, *, connected: bool, what: str) -> Conflict:
    """Why there is no ``what`` to link a phone by, and what to do about it."""
    wished = status if connected or status not in _PAIRING_STATES else "disconnected"
    remedy = _NO_CODE.get(wished, _NO_CODE["created"])
    return Conflict(
        f"There is no {what}: the instance is {status}; {remedy}", data={"status": status}
    )
