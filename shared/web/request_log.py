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


class RequestLog(Protocol):
    """Takes one line per request: what was asked for, what came of it, how long it took."""

    def __call__(
        self,
        *,
        method: str,
        route: str,
        status: int,
        duration_ms: float,
        request_id: str,
        quiet: bool,
        facts: Mapping[str, str],
    ) -> None:
        """Write it, with ``facts``, which are ids and do not change any more; ``quiet`` is for
        probes, whose lines are at debug. Must neither raise nor wait.
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

    def __call__(
        self,
        *,
        method: str,
        route: str,
        status: int,
        duration_ms: float,
        request_id: str,
        quiet: bool,
        facts: Mapping[str, str],
    ) -> None:
        log = self._log.debug if quiet else self._log.info
        log(
            _EVENT,
            method=method,
            route=route,
            status=status,
            duration_ms=duration_ms,
            request_id=request_id,
            **facts,
        )

    def flush(self) -> None:
        """Nothing is kept back."""


class _Handled(NamedTuple):
    """What a line says, until it is written."""

    at: datetime
    method: str
    route: str
    status: int
    duration_ms: float
    request_id: str
    facts: Mapping[str, str]

    def line(self) -> bytes:
        shown: dict[str, object] = {
            "event": _EVENT,
            "level": "info",
            "timestamp": self.at,
            "method": self.method,
            "route": self.route,
            "status": self.status,
            "duration_ms": self.duration_ms,
            "request_id": self.request_id,
            **self.facts,
        }
        return orjson.dumps(shown, default=str, option=_OPTIONS)


class JsonRequestLog:
    """Straight to ``stream`` (stdout's buffer) as JSON, in the form of every other line.

    Lines are made and leave together, at most ``_LINGER`` seconds after the first: made one by one
    in the midst of a request each costs several times as much, and a system call for each as much
    as the line. A crash loses what has not left.
    """

    def __init__(self, stream: BinaryIO, clock: Clock) -> None:
        self._stream = stream
        self._now = clock.now
        self._kept: list[_Handled] = []

    def __call__(
        self,
        *,
        method: str,
        route: str,
        status: int,
        duration_ms: float,
        request_id: str,
        quiet: bool,
        facts: Mapping[str, str],
    ) -> None:
        if quiet:
            return
        if not self._kept:
            asyncio.get_running_loop().call_later(_LINGER, self.flush)
        self._kept.append(
            _Handled(self._now(), method, route, status, duration_ms, request_id, facts)
        )

    def flush(self) -> None:
        """Write what has been kept back."""
        kept, self._kept = self._kept, []
        self._stream.write(b"".join([handled.line() for handled in kept]))
        self._stream.flush()


_: tuple[type[RequestLog], ...] = (StructuredRequestLog, JsonRequestLog)
