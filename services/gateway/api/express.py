"""The short way of ``POST /api/messages/text``: a key that is in use, and nothing unusual.

It stands before the application, and does what ``Edge``, ``Gate`` and ``Sending`` do, with the same
outcome, without what they do for other callers and requests. Whatever is not usual goes the long
way, and so does what is wrong: the short way never refuses anything itself.
"""

import asyncio
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import orjson
from aiohttp import web
from aiohttp.hdrs import AUTHORIZATION, EXPECT
from aiohttp.typedefs import Handler
from multidict import istr
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from structlog.contextvars import bind_contextvars

from services.gateway.api.callers import X_API_KEY, Callers
from services.gateway.api.gate import PRINCIPAL, Gate
from services.gateway.api.lookup import Senders
from services.gateway.api.once import IDEMPOTENCY_KEY
from services.gateway.api.quotas import Quotas
from services.gateway.api.sending import Acceptance, Sending, answer
from services.gateway.api.whole import Whole, possible
from services.gateway.domain.permissions import KeyPermission
from services.gateway.domain.principal import Principal
from services.gateway.domain.readiness import takes_messages
from services.gateway.store.acceptance import NewMessage
from services.gateway.store.instances import Sender
from services.gateway.store.keys import KeyUses
from shared.clock import Clock
from shared.web.body import BODY, BodyLimits
from shared.web.edge import CLIENT_GONE, LOGGED, REQUEST_ID, STARTED, Edge, request_id_of
from shared.web.limits import Allowance, RateLimiter, enforce
from shared.web.request_log import Handled
from shared.web.routes import Route

ROUTE: Final = "/api/messages/text"
ACCEPTED: Final = 202

_VARY: Final = "Vary: Origin\r\n"
_CONTENT_TYPE: Final = istr("Content-Type")
_JSON: Final = "application/json"
_NUL: Final = b"\\u0000"


class PlainText(BaseModel):
    """The part of ``NewText`` that most requests are: checked without a line of Python."""

    model_config = ConfigDict(extra="forbid", strict=True)

    to: str = Field(pattern=r"^\+?[1-9][0-9]{6,14}$")
    message: str = Field(min_length=1, max_length=4096)


_validate: Final = PlainText.__pydantic_validator__.validate_json


@dataclass(frozen=True, slots=True)
class _Begun:
    """How far a request had come when it left the short way: it was counted.

    ``failure`` is what ended it, if it had come as far as being committed.
    """

    caller: Principal
    allowance: Allowance
    failure: Exception | None = None


class _Usual(NamedTuple):
    """A request with nothing unusual about it; ``raw`` is its body."""

    caller: Principal
    sender: Sender
    raw: bytes
    text: PlainText


_BEGUN: Final = web.RequestKey("begun", _Begun)


class ExpressText:
    """Accepts texts the short way where it can.

    Of ``routes``, which are behind the gate, its own begins where the short way was left; see
    ``routes`` for all of them as they are to be served.
    """

    def __init__(
        self,
        *,
        routes: Sequence[Route],
        callers: Callers,
        senders: Senders,
        gate: Gate,
        limiter: RateLimiter,
        sending: Sending,
        uses: KeyUses,
        acceptance: Acceptance,
        quotas: Quotas,
        limits: BodyLimits,
        clock: Clock,
        edge: Edge,
    ) -> None:
        self._guarded = next(route.handler for route in routes if route.path == ROUTE)
        self.routes = [
            replace(route, handler=self.text) if route.path == ROUTE else route for route in routes
        ]
        self._callers = callers
        self._senders = senders
        self._limit = gate.limit
        self._limiter = limiter
        self._sending = sending
        self._count = uses.count
        self._accept = acceptance.accept
        self._month = quotas.month_at_once
        self._largest = limits.largest
        self._now = clock.now
        self._monotonic = clock.monotonic
        self._answered = edge.answered
        self._vary = _VARY if edge.varies else ""

    async def express(self, request: web.Request, long_way: Handler) -> web.StreamResponse:
        """Answer once the text is committed; whatever is not usual, by the ``long_way``."""
        started = self._monotonic()
        usual = self._usual(request)
        if usual is None:
            return await long_way(request)
        caller = usual.caller
        request_id = request_id_of(request)
        try:
            reached = await self._accepted(usual, request_id)
        except asyncio.CancelledError:
            self._leave(caller, CLIENT_GONE, started, request_id)
            raise
        if isinstance(reached, Whole):
            self._leave(caller, ACCEPTED, started, request_id)
            return reached
        request[STARTED], request[REQUEST_ID], request[BODY] = started, request_id, usual.raw
        if reached is not None:
            request[_BEGUN] = reached
        return await long_way(request)

    def _usual(self, request: web.Request) -> _Usual | None:
        """What is asked for, if there is nothing unusual about it."""
        headers = request.headers
        key = headers.get(X_API_KEY)
        content = request.content
        if (
            key is None
            or request.method != "POST"
            or IDEMPOTENCY_KEY in headers
            # It comes before a key, and may be somebody else's.
            or AUTHORIZATION in headers
            or EXPECT in headers
            or headers.get(_CONTENT_TYPE) != _JSON
            or not content.is_eof()  # it came whole, as small bodies do
            or content.total_bytes > self._largest
            or not possible(request)
        ):
            return None
        caller = self._callers.known(key)
        sender = None if caller is None else self._senders.known(caller)
        if (
            caller is None
            or sender is None
            or KeyPermission.MESSAGES_SEND not in caller.permissions
            or not takes_messages(sender.status, connected=sender.connected)
        ):
            return None
        raw = content.read_nowait()
        try:
            text: PlainText = _validate(raw)
        except ValidationError:
            request[BODY] = raw
            return None
        if _NUL in raw:
            request[BODY] = raw
            return None
        return _Usual(caller, sender, raw, text)

    async def _accepted(self, usual: _Usual, request_id: str) -> Whole | _Begun | None:
        """The answer once the text is committed; else how far it has come, if it was counted."""
        caller, sender, _, text = usual
        limit = self._limit(caller)
        allowance = self._limiter.hit_at_once(caller.limit_key, limit)
        try:
            if allowance is None:
                allowance = await self._limiter.hit(caller.limit_key, limit)
            if not allowance.allowed:
                return None  # Not counted, so the long way finds the same, and says so.
            # Not before the limiter was asked, for who waits there is not under way: nothing may be
            # awaited from here until the message is, or a crowd would all find the same room.
            month = self._month(sender) if sender.metered else None
            if sender.metered and month is None:
                return _Begun(caller, allowance)
            digits = text.to.removeprefix("+")
            now = self._now()
            message_id = new_text_id()
            await self._accept(
                NewMessage(
                    message_id,
                    sender.origin,
                    digits + "@s.whatsapp.net",
                    f'{{"kind":"text","text":{orjson.dumps(text.message).decode()}}}',
                    request_id,
                    now,
                    month=month,
                )
            )
        except Exception as error:  # noqa: BLE001 - raised again where errors become answers
            return None if allowance is None else _Begun(caller, allowance, error)
        return Whole(
            answer(message_id, sender, "+" + digits, now),
            request_id=request_id,
            allowance=allowance,
            vary=self._vary,
        )

    def _leave(self, caller: Principal, status: int, started: float, request_id: str) -> None:
        """Count the use of the key, and leave the line and the sample."""
        assert caller.key_id is not None  # noqa: S101 - whoever shows a key has its id
        self._count(caller.key_id, succeeded=status == ACCEPTED)
        self._answered(Handled("POST", ROUTE, status, started, request_id, caller.facts))

    async def text(self, request: web.Request) -> web.StreamResponse:
        """The handler of the long way: from the start, or from where the short way was left."""
        begun = request.get(_BEGUN)
        if begun is None:
            return await self._guarded(request)
        caller = begun.caller
        assert caller.key_id is not None  # noqa: S101 - whoever shows a key has its id
        bind_contextvars(**caller.facts)
        request[LOGGED] = caller.facts
        request[PRINCIPAL] = caller
        succeeded = False
        try:
            enforce(request, begun.allowance)
            if begun.failure is not None:
                raise begun.failure
            response = await self._sending.text(request)
            succeeded = True
            return response
        finally:
            self._count(caller.key_id, succeeded=succeeded)


def _endings() -> Iterator[str]:
    """The random part of UUIDs of version 7, as text. Made many at a time, which is cheaper."""
    while True:
        digits = os.urandom(2560).hex()
        for start in range(0, len(digits), 20):
            part = digits[start : start + 20]
            variant = "89ab"[int(part[3], 16) & 3]
            yield f"-7{part[:3]}-{variant}{part[4:7]}-{part[7:19]}"


_ending: Final = _endings().__next__


def new_text_id() -> str:
    """A UUIDv7 as text, in a third of the time that one takes which is made an object first."""
    began = f"{time.time_ns() // 1_000_000:012x}"
    return f"{began[:8]}-{began[8:]}{_ending()}"
