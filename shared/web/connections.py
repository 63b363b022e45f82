"""Connections before they are requests: how many, how long, how much, and what is said to noise.

Everything that aiohttp lets us bound below a request is bound here; bodies are bounded where they
are read, in ``shared.web.body``.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, cast

from aiohttp import http_exceptions, web
from aiohttp.typedefs import Handler
from aiohttp.web_protocol import RequestHandler
from typing_extensions import override

from shared.log import get_logger
from shared.web.edge import new_request_id
from shared.web.envelope import failed, json_response
from shared.web.errors import CODES
from shared.web.headers import SECURITY, SERVER, X_REQUEST_ID

log = get_logger()

_FULL: Final = "There are too many connections here; wait as long as Retry-After says."
_RETRY_AFTER: Final = "5"
_EXPECTATION_FAILED: Final = 417
_MOST_SPECIFIC_FIRST: Final[Mapping[type[Exception], str]] = {
    http_exceptions.LineTooLong: "a line of its head is too long",
    http_exceptions.BadHttpMethod: "its method is malformed",
    http_exceptions.BadStatusLine: "its first line is malformed",
    http_exceptions.InvalidHeader: "a header is malformed",
    http_exceptions.InvalidURLError: "its URL is malformed",
}


Express = Callable[[web.Request, Handler], Awaitable[web.StreamResponse]]
"""Answers requests for one path before the application sees them, or has it answer: the handler
that it is given is the whole application, and may be called once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """What one listener bears.

    ``most`` is how many connections at a time; one more is told 503. ``idle`` is how long one may
    stay without a whole head of a request, however slowly that trickles in. ``unread`` is how long
    the other side may take none of what was sent to it (where the system can tell). ``line``,
    ``field`` and ``fields`` bound a head: bytes of its first line, of each header, and how many.
    """

    most: int = 10_000
    idle: timedelta = timedelta(seconds=75)
    unread: timedelta = timedelta(seconds=60)
    line: int = 8190
    field: int = 8190
    fields: int = 100


class Runner(web.AppRunner):
    """aiohttp's runner, with connections of ours, and what is quicker than the application.

    ``express`` is by the path as it stands in the request's first line.
    """

    def __init__(
        self,
        app: web.Application,
        limits: ConnectionLimits,
        *,
        shutdown_timeout: float,
        express: Mapping[str, Express] | None = None,
    ) -> None:
        super().__init__(
            app,
            access_log=None,
            shutdown_timeout=shutdown_timeout,
            keepalive_timeout=limits.idle.total_seconds(),
            max_line_size=limits.line,
            max_field_size=limits.field,
            max_headers=limits.fields,
        )
        self._limits = limits
        self._express = express or {}

    @override
    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return _Listening(made, self._limits, self._express)


class _Listening(web.Server):
    """The server that an application has made, whose connections are ``_Connection``."""

    def __init__(
        self, made: web.Server, limits: ConnectionLimits, express: Mapping[str, Express]
    ) -> None:
        super().__init__(
            # Whose requests are ``web.Request``: the application's ``request_factory`` makes them.
            cast("Any", _first_express(express, cast("Handler", made.request_handler))),
            request_factory=made.request_factory,
            handler_cancellation=made.handler_cancellation,
            loop=made._loop,
            **made._kwargs,
        )
        self.limits = limits
        self.open = 0

    @override
    def __call__(self) -> RequestHandler:
        return _Connection(self, **self._kwargs)


class _Connection(RequestHandler):
    """One connection."""

    __slots__ = ("_counted", "_listening")

    def __init__(self, listening: _Listening, **arguments: Any) -> None:
        super().__init__(listening, loop=asyncio.get_running_loop(), **arguments)
        self._listening = listening
        self._counted = False

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # it listens on TCP
        limits = self._listening.limits
        _bound_unread(transport, limits.unread)
        if self._listening.open < limits.most:
            self._listening.open += 1
            self._counted = True
            super().connection_made(transport)
            return
        log.warning("connection_refused", most=limits.most)
        self._force_close = True  # whatever it sends is dropped
        transport.write(_refusal())
        transport.close()

    @override
    def connection_lost(self, exc: BaseException | None) -> None:
        if self._counted:
            self._counted = False
            self._listening.open -= 1
        super().connection_lost(exc)

    @override
    def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> Coroutine[Any, Any, tuple[web.StreamResponse, bool]]:
        # Answered by aiohttp before any middleware. Not async: that costs every request, and so
        # does isinstance() of what aiohttp made an abstract class.
        if resp.status == _EXPECTATION_FAILED and isinstance(resp, web.HTTPExpectationFailed):
            resp = _unexpected(resp)
        return super().finish_response(request, resp, start_time)

    @override
    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What is answered where no request came about, or none of its handlers could answer."""
        request_id = new_request_id()
        if status >= 500:
            log.error("request_crashed", exc_info=exc, request_id=request_id)
            if request.writer.output_size > 0:
                raise ConnectionError("part of an answer has left already; it is cut off")
            code, said = "INTERNAL_SERVER_ERROR", CODES["INTERNAL_SERVER_ERROR"][1]
        else:
            log.info("request_unreadable", reason=type(exc).__name__, request_id=request_id)
            code = "BAD_REQUEST"
            said = f"This is no HTTP request: {_reason(exc)}. Correct it and send it again."
        response = json_response(failed(code, said, request_id=request_id), status=status)
        response.headers.update(_lines(request_id))
        response.force_close()
        return response


def _first_express(express: Mapping[str, Express], application: Handler) -> Handler:
    """The application's handler, or before it the express one of the path.

    Not async, since that would cost every request.
    """
    if not express:
        return application

    def handle(request: web.Request) -> Awaitable[web.StreamResponse]:
        first = express.get(request.raw_path)
        return application(request) if first is None else first(request, application)

    return handle


def _unexpected(response: web.HTTPExpectationFailed) -> web.Response:
    request_id = new_request_id()
    said = "Of all that one may expect, this server knows `100-continue`; leave `Expect` out."
    return json_response(
        failed("BAD_REQUEST", said, request_id=request_id),
        status=response.status,
        headers={X_REQUEST_ID: request_id},
    )


def _reason(error: BaseException | None) -> str:
    """What is wrong, without the caller's own words: they may hold a credential."""
    for kind, reason in _MOST_SPECIFIC_FIRST.items():
        if isinstance(error, kind):
            return reason
    return "its head is malformed, contradicts itself or has too many headers"


def _refusal() -> bytes:
    request_id = new_request_id()
    body = failed("ENGINE_UNAVAILABLE", _FULL, request_id=request_id)
    headers = {
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "Connection": "close",
        "Retry-After": _RETRY_AFTER,
        **_lines(request_id),
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 503 Service Unavailable\r\n{lines}\r\n".encode("ascii") + body


def _lines(request_id: str) -> dict[str, str]:
    """The headers that every answer has; no request came about that would bring them along."""
    return {X_REQUEST_ID: request_id, SERVER: "waypost", **SECURITY}


def _bound_unread(transport: asyncio.Transport, longest: timedelta) -> None:
    """Let the system cut off whoever takes nothing of what was sent: closing waits for them."""
    connected = transport.get_extra_info("socket")
    if hasattr(socket, "TCP_USER_TIMEOUT") and connected is not None:
        milliseconds = int(longest.total_seconds() * 1000)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
