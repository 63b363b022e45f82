"""The canonical line of a request, written the short way.

Through structlog's processors the line costs some 45 µs, a third of what accepting a message may
cost in all, most of it for masking and merging that this line does not need: its fields are a
closed set, none of which a caller fills except the request id, which is checked. So the gateway may
have it written directly. Any other line goes through structlog, and so does this one by default.
"""

import asyncio
from collections.abc import Mapping
from datetime import datetime
from typing import BinaryIO, Final, NamedTuple, Protocol

import orjson
import structlog
from structlog.typing import FilteringBoundLogger

from shared.clock import Clock

_EVENT = "request_handled"
_LINGER: Final = 0.02
_OPTIONS = orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z


class Handled(NamedTuple):
    """A request that was answered: what was asked for, and what came of it.

    ``started`` is by the monotonic clock. ``facts`` are ids, and do not change any more.
    """

    method: str
    route: str
    status: int
    started: float
    request_id: str
    facts: Mapping[str, str]


class RequestLog(Protocol):
    """Takes one line per request."""

    def __call__(self, handled: Handled, seconds: float, *, quiet: bool) -> None:
        """Write it, and how long it took; ``quiet`` is for probes, whose lines are at debug. Must
        neither raise nor wait.
        """
        ...

    def flush(self) -> None:
        """Write what has been kept back: there will be no more requests."""
        ...


class StructuredRequestLog:
    """By structlog, as it is configured: for terminals, tests, and the small servers."""

    def __init__(self) -> None:
        # Bound once: the proxy that get_logger() returns makes a new logger at every call.
        self._log: FilteringBoundLogger = structlog.get_logger().bind()

    def __call__(self, handled: Handled, seconds: float, *, quiet: bool) -> None:
        log = self._log.debug if quiet else self._log.info
        log(
            _EVENT,
            method=handled.method,
            route=handled.route,
            status=handled.status,
            duration_ms=round(seconds * 1000, 3),
            request_id=handled.request_id,
            **handled.facts,
        )

    def flush(self) -> None:
        """Nothing is kept back."""


class JsonRequestLog:
    """Straight to ``stream`` (stdout's buffer) as JSON, in the form of every other line.

    Lines are made and leave together, at most ``_LINGER`` seconds after the first: made one by one
    in the midst of a request each costs several times as much, and a system call for each as much
    as the line. A crash loses what has not left.
    """

    def __init__(self, stream: BinaryIO, clock: Clock) -> None:
        self._stream = stream
        self._now = clock.now
        self._kept: list[tuple[Handled, float, datetime]] = []

    def __call__(self, handled: Handled, seconds: float, *, quiet: bool) -> None:
        if quiet:
            return
        if not self._kept:
            asyncio.get_running_loop().call_later(_LINGER, self.flush)
        self._kept.append((handled, seconds, self._now()))

    def flush(self) -> None:
        """Write what has been kept back."""
        kept, self._kept = self._kept, []
        self._stream.write(b"".join([_line(*each) for each in kept]))
        self._stream.flush()


def _line(handled: Handled, seconds: float, at: datetime) -> bytes:
    method, route, status, _, request_id, facts = handled
    shown: dict[str, object] = {
        "event": _EVENT,
        "level": "info",
        "timestamp": at,
        "method": method,
        "route": route,
        "status": status,
        "duration_ms": round(seconds * 1000, 3),
        "request_id": request_id,
        **facts,
    }
    return orjson.dumps(shown, default=str, option=_OPTIONS)


_: tuple[type[RequestLog], ...] = (StructuredRequestLog, JsonRequestLog)
