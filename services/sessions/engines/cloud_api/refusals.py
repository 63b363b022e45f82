"""What Meta's error codes mean to us: never, later, not by this number, or nobody knows.

Decided by the code alone. Meta advises so: titles and HTTP statuses change, and the same code comes
under several of them. https://developers.facebook.com/docs/whatsapp/cloud-api/support/error-codes
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Literal

from services.sessions.engines.port import Refused, Retryable, SessionDown
from shared.errors import PlatformError, Throttled, Unconfirmed

End = Literal["logged_out", "banned", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What Meta says is wrong. ``code`` is ``None`` where it said nothing that can be read.

    ``retry_after`` is what the answer's header says, ``status`` that of HTTP.
    """

    status: int
    code: int | None = None
    message: str = ""
    transient: bool = False
    retry_after: timedelta | None = None


class SessionOver(SessionDown):
    """The number cannot be used any more until somebody does something about it.

    The message at hand was not sent, and waits like those behind it.
    """

    def __init__(self, message: str, *, end: End) -> None:
        super().__init__(message)
        self.end = end


# Something is wrong at Meta, or with this pair of numbers for a few seconds. No time is named: the
# dispatcher waits longer each time, and holds back this message alone.
_AGAIN: Final = frozenset({1, 2, 131000, 131016, 131056, 131057, 133004})
# Too much from this number, account or app. Everything of the instance waits for so long.
_SLOWER: Final[Mapping[int, timedelta]] = {
    4: timedelta(minutes=1),
    80007: timedelta(minutes=1),
    130429: timedelta(seconds=2),
    # Recipients have complained, or the day's limit is reached: to go on would make it worse.
    131048: timedelta(minutes=15),
    131064: timedelta(minutes=15),
    368: timedelta(hours=1),
}
_RENEW: Final = "put a new accessToken into the instance's settings and connect it again"
_MEND: Final = "see to it in Meta's Business Manager, then connect the instance again"
_OVER: Final[Mapping[int, tuple[End, str]]] = {
    0: ("logged_out", _RENEW),
    190: ("logged_out", _RENEW),
    3: ("failed", _RENEW),
    10: ("failed", _RENEW),
    131005: ("failed", _RENEW),
    131031: ("banned", _MEND),
    131037: ("failed", _MEND),
    131042: ("failed", _MEND),
    131045: ("failed", _MEND),
    133010: ("failed", _MEND),
}
_PERMISSIONS: Final = range(200, 300)


def raised_for(fault: Fault, *, unsure: bool) -> PlatformError:
    """The error that a fault is. With ``unsure`` the request may have said something to somebody,
    so that not to know is ``Unconfirmed``.
    """
    code, said = fault.code, _said(fault)
    if code is None:
        return _unreadable(fault, unsure=unsure)
    if code in _OVER or code in _PERMISSIONS:
        end, remedy = _OVER.get(code, ("failed", _RENEW))
        return SessionOver(f"{said}; {remedy}.", end=end)
    if code in _SLOWER:
        wait = max(_SLOWER[code], fault.retry_after or timedelta(0))
        return Throttled(f"{said}.", retry_after=wait)
    if code in _AGAIN or fault.transient:
        return Retryable(f"{said}.")
    if fault.status >= 500:
        return Unconfirmed(f"{said}.") if unsure else Retryable(f"{said}.")
    return Refused(f"{said}.")


def _unreadable(fault: Fault, *, unsure: bool) -> PlatformError:
    """Somebody between us and Meta has answered, or Meta in a way that nobody knows."""
    said = f"WhatsApp answered {fault.status}"
    if fault.status == 429:
        return Throttled(f"{said}.", retry_after=fault.retry_after or timedelta(minutes=1))
    if fault.status == 401:
        return SessionOver(f"{said}; {_RENEW}.", end="logged_out")
    if 300 <= fault.status < 500:
        return Refused(f"{said}.")
    if unsure:
        return Unconfirmed(f"{said}, so it is not known whether it took the message.")
    return Retryable(f"{said}.")


def _said(fault: Fault) -> str:
    words = " ".join(fault.message.replace("\x00", "").split())[:300].rstrip(".")
    return f"WhatsApp says: {words or 'no reason'} ({fault.code})"
