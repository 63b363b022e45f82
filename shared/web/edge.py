"""The one middleware: who asked, what came of it, and what is told to the caller and to the log.

One, because every layer around a handler costs each request its own coroutine; what is here is on
the path of every message that is accepted. Headers are added when an answer is prepared, not after
the handler: a streamed answer has left by then, and so have those of aiohttp itself.
"""

import asyncio
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress

import structlog
from aiohttp import web
from aiohttp.hdrs import ALLOW
from aiohttp.typedefs import Handler
from prometheus_client import CollectorRegistry, Histogram
from structlog.contextvars import bind_contextvars
from structlog.typing import FilteringBoundLogger

from shared.clock import Clock
from shared.web.answers import Answers
from shared.web.envelope import failed, json_response
from shared.web.errors import methods_of, problem_of
from shared.web.headers import SECURITY, SERVER, X_REQUEST_ID, Cors
from shared.web.request_log import Handled, RequestLog, StructuredRequestLog

REQUEST_ID = web.RequestKey("request_id", str)
"""The id of the request: ``request[REQUEST_ID]``, to go into every command that follows from it."""

STARTED = web.RequestKey("started", float)
"""When it came, by the monotonic clock, where it has been looked at before the middleware."""

RESPONSE_HEADERS = web.RequestKey("response_headers", dict[str, str])
"""Headers that whatever is answered to this request will carry, errors included."""

LOGGED = web.RequestKey("logged", Mapping[str, str])
"""Ids that the line about this request has besides, such as the tenant's. Not through the context:
a variable of it costs a request more than all the rest of its line."""

_NOTHING: Mapping[str, str] = {}
_SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,128}").fullmatch
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
CLIENT_GONE = 499
"""The status, in lines and samples, of a request whose caller did not wait."""

_UPGRADED = 101
QUIET = frozenset({"/health", "/health/live", "/health/ready", "/metrics"})


def _request_ids() -> Iterator[str]:
    """32 hexadecimal digits each. Made many at a time: one by one, each costs a system call."""
    while True:
        digits = os.urandom(2048).hex()
        for start in range(0, len(digits), 32):
            yield digits[start : start + 32]


new_request_id = _request_ids().__next__
"""The id of a request that brings none."""


def request_id_of(request: web.Request) -> str:
    """The id that a request brings if it is sane, else a new one."""
    brought = request.headers.get(X_REQUEST_ID)
    return new_request_id() if brought is None or _SANE_ID(brought) is None else brought


class Edge:
    """What stands between a socket and a handler.

    ``service`` names the metric, ``cors_origins`` whose web pages may call (none by default).
    Requests for the routes in ``quiet`` are logged at debug: probes would drown the rest.
    ``request_log`` writes the canonical lines; by default structlog does. ``answers`` counts them.
    """

    def __init__(
        self,
        *,
        service: str,
        clock: Clock,
        registry: CollectorRegistry,
        cors_origins: Iterable[str] = (),
        quiet: frozenset[str] = QUIET,
        request_log: RequestLog | None = None,
        answers: Answers | None = None,
    ) -> None:
        self._monotonic = clock.monotonic
        self._cors = Cors(cors_origins)
        self._quiet = quiet
        self._log: FilteringBoundLogger = structlog.get_logger().bind()
        self._handled = request_log or StructuredRequestLog()
        self._seconds = Histogram(
            f"waypost_{service}_http_request_seconds",
            "How long requests took, from the first line of ours to the last.",
            ["method", "route", "status"],
            buckets=_BUCKETS,
            registry=registry,
        )
        self._answers = answers
        self._children: dict[tuple[str, str, int], Histogram] = {}

    @property
    def varies(self) -> bool:
        """Whether every answer has ``Vary: Origin``."""
        return self._cors.varies

    def install(self, app: web.Application) -> None:
        """Put the edge around every route of ``app``, before anything else is."""
        app.middlewares.insert(0, self.handle)
        app.on_response_prepare.append(self.prepare)
        app.on_cleanup.append(self._flush)

    @web.middleware
    async def handle(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Run the handler; turn whatever it raises into an answer; leave one line and one sample.

        aiohttp runs each request in a task of its own, so what is bound here does not outlive it.
        """
        try:
            started, request_id = request[STARTED], request[REQUEST_ID]
        except KeyError:
            started = self._monotonic()
            request_id = request[REQUEST_ID] = request_id_of(request)
        bind_contextvars(request_id=request_id)
        try:
            response: web.StreamResponse | None = None
            if request.method == "OPTIONS" and self._cors:
                response = self._cors.preflight(request)
            if response is None:
                response = await handler(request)
        except asyncio.CancelledError:
            self._done(request, request_id, CLIENT_GONE, started)
            raise
        except Exception as error:
            if request.method == "OPTIONS" and isinstance(error, web.HTTPMethodNotAllowed):
                self._done(request, request_id, 204, started)
                return web.Response(status=204, headers={ALLOW: methods_of(error)})
            if isinstance(error, web.HTTPException) and error.status < 400:
                self._done(request, request_id, error.status, started)
                raise
            status, response = self._fail(request, request_id, error)
            self._done(request, request_id, status, started)
            return response
        self._done(request, request_id, response.status, started)
        return response

    async def prepare(self, request: web.Request, response: web.StreamResponse) -> None:
        """Add the headers that every answer has, just before they are written."""
        headers = response.headers
        # Not get(): on an aiohttp request that is several times as slow.
        with suppress(KeyError):  # aiohttp may answer by itself, before any middleware
            headers[X_REQUEST_ID] = request[REQUEST_ID]
            headers.update(request[RESPONSE_HEADERS])
        headers[SERVER] = "waypost"
        headers.merge(SECURITY)
        if self._cors:
            self._cors.mark(request, headers)

    async def _flush(self, _app: web.Application) -> None:
        """The last requests have been handled."""
        self._handled.flush()

    def _fail(
        self, request: web.Request, request_id: str, error: Exception
    ) -> tuple[int, web.Response]:
        transport = request.transport
        if transport is None or transport.is_closing():
            # Nobody is there to be told, and it is nobody's fault: no traceback.
            return CLIENT_GONE, web.Response(status=500)
        problem = problem_of(error, method=request.method, path=request.path)
        started = request.writer.output_size > 0
        if problem.bug or started:
            self._log.error("request_crashed", exc_info=error, request_id=request_id)
        if started:
            # A second answer inside the first would look like part of it: cut it off instead, so
            # that the caller sees it is not whole. What is returned here is never written.
            transport.abort()
            return problem.status, web.Response(status=500)
        response = json_response(
            failed(problem.code, problem.message, request_id=request_id, data=problem.data),
            status=problem.status,
            headers=problem.headers,
        )
        if not request.content.is_eof():
            # Part of a body is still to come, and nobody will read it.
            response.force_close()
        return problem.status, response

    def _done(self, request: web.Request, request_id: str, status: int, started: float) -> None:
        resource = request.match_info.route.resource
        try:
            facts = request[LOGGED]
        except KeyError:
            facts = _NOTHING
        self.answered(
            Handled(
                # Anybody can invent methods: they must become neither time series nor log fields.
                request.method if request.method in _METHODS else "OTHER",
                "unmatched" if resource is None else resource.canonical,
                status,
                started,
                request_id,
                facts,
            )
        )

    def answered(self, handled: Handled) -> None:
        """Leave the line and the sample of a request, also of one that was answered before the
        middleware.
        """
        method, route, status, started, _, _ = handled
        seconds = self._monotonic() - started
        key = (method, route, status // 100)
        child = self._children.get(key)
        if child is None:
            child = self._seconds.labels(method, route, f"{status // 100}xx")
            self._children[key] = child
        if status != _UPGRADED:  # a connection's life says nothing about how long requests take
            child.observe(seconds)
        if self._answers is not None:
            self._answers.note(status)
        self._handled(handled, seconds, quiet=route in self._quiet)
