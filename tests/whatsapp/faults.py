"""What can go wrong on purpose: ``POST /faults`` with a ``kind``, perhaps a ``phone``, and options.

Some strike at once, at every connection of the phone, or at every connection there is:

| kind | what the client sees |
| --- | --- |
| ``503`` | ``stream:error`` 503: the server restarts; come back |
| ``drop`` | the socket breaks without a word |
| ``blackhole`` | the socket stays, nothing is read or answered on it, keepalives included |
| ``replaced`` | ``stream:error`` conflict: the same device has connected elsewhere |
| ``device_removed`` | ``stream:error`` 401: the phone has unlinked the device, which is true |
| ``few_prekeys`` | a warning that its one-time prekeys run out, which is true |

The others last until ``DELETE /faults``, or for the next ``count`` times if a count is given:

| kind | what the client sees | options |
| --- | --- | --- |
| ``401``, ``403``, ``405`` | its next login fails: logged out, banned for good, client outdated | |
| ``402`` or ``ban`` | its next login fails: banned for a while | ``code``, ``expire`` (seconds) |
| ``login`` | its next login fails for another reason | ``reason`` |
| ``delay`` | acks of its messages come late | ``seconds`` |
| ``no_ack`` | its message is accepted and delivered, but never acked | |
| ``ack_error`` | its message is refused | ``code``: 429, 463, 479, … |
| ``iq_error`` | its query is refused | ``xmlns``, ``code`` |
| ``media_404`` | downloads find nothing | |
| ``receipts_out_of_order`` | a contact's delivery report comes after its read receipt | |
| ``duplicates`` | each message and receipt comes twice | |
| ``offline_backlog`` | nothing comes until the fault is cleared, then all as backlog | |
| ``refuse_connections`` | the proxy answers 502 and the server itself 503; not for one phone | |

``count`` of faults that refuse a login is 1 unless given: the client's next attempt succeeds.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tests.whatsapp.stanza import Stanza

AT_ONCE: Final = {"503", "drop", "blackhole", "replaced", "device_removed", "few_prekeys"}
AT_LOGIN: Final = {"401", "402", "403", "405", "ban", "login"}
LASTING: Final = {
    "delay",
    "no_ack",
    "ack_error",
    "iq_error",
    "media_404",
    "receipts_out_of_order",
    "duplicates",
    "offline_backlog",
    "refuse_connections",
}
KINDS: Final = AT_ONCE | AT_LOGIN | LASTING


@dataclass
class Fault:
    """One injected fault. ``left`` is how many times it still strikes, ``None`` if for ever."""

    kind: str
    phone: str | None = None
    left: int | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def number(self, name: str, default: float) -> float:
        return float(self.options.get(name, default))


class Faults:
    """Those in force."""

    def __init__(self) -> None:
        self.standing: list[Fault] = []
        self._once_cleared: list[Callable[[], None]] = []

    def add(self, fault: Fault) -> None:
        self.standing.append(fault)

    def clear(self) -> None:
        """Nothing goes wrong any more, and what was held back comes."""
        self.standing.clear()
        held, self._once_cleared = self._once_cleared, []
        for release in held:
            release()

    def once_cleared(self, release: Callable[[], None]) -> None:
        self._once_cleared.append(release)

    def strikes(self, kind: str, phone: str | None, **exactly: str) -> Fault | None:
        """The fault that strikes now, which uses up one of its times."""
        for fault in self.standing:
            if (
                fault.kind == kind
                and fault.phone in {None, phone}
                and fault.left != 0
                and all(fault.options.get(name, value) == value for name, value in exactly.items())
            ):
                if fault.left is not None:
                    fault.left -= 1
                return fault
        return None

    def refusal(self, phone: str) -> Stanza | None:
        """The ``failure`` that a login meets, if it meets one.

        Source: whatsmeow ``handleConnectFailure``. 402 carries the kind of ban and its seconds.
        """
        for kind in sorted(AT_LOGIN):
            if fault := self.strikes(kind, phone):
                return _failure(fault)
        return None


def _failure(fault: Fault) -> Stanza:
    if fault.kind in {"ban", "402"}:
        code, expire = int(fault.number("code", 101)), int(fault.number("expire", 3600))
        return Stanza("failure", {"reason": 402, "code": code, "expire": expire})
    reason = fault.options.get("reason", fault.kind)
    return Stanza("failure", {"reason": str(reason), "location": "lla"})


def stream_error(kind: str) -> Stanza:
    """Why a connection is about to end (whatsmeow ``handleStreamError``)."""
    if kind == "device_removed":
        return Stanza(
            "stream:error", {"code": 401}, [Stanza("conflict", {"type": "device_removed"})]
        )
    if kind == "replaced":
        return Stanza("stream:error", {}, [Stanza("conflict", {"type": "replaced"})])
    return Stanza("stream:error", {"code": kind})


def parsed(body: Mapping[str, Any]) -> Fault:
    """The fault that a request describes; ``ValueError`` if there is no such thing."""
    options = dict(body)
    kind = str(options.pop("kind", ""))
    if kind not in KINDS:
        raise ValueError(f"no such fault: {kind or 'none'}; there are {', '.join(sorted(KINDS))}")
    phone = options.pop("phone", None)
    count = options.pop("count", 1 if kind in AT_LOGIN else None)
    return Fault(kind=kind, phone=phone, left=count, options=options)
