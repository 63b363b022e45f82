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
from typing import Final

import orjson
from aiohttp import web
from aiohttp.hdrs import AUTHORIZATION, EXPECT
from aiohttp.typedefs import Handler
from multidict import istr
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.gateway.api.callers import X_API_KEY, Callers
from services.gateway.api.gate import PRINCIPAL, Gate
from services.gateway.api.lookup import Senders
from services.gateway.api.once import IDEMPOTENCY_KEY
from services.gateway.api.quotas import Quotas
from services.gateway.api.schemas.outbound import NewText
from services.gateway.api.sending import Acceptance, Sending, answer
from services.gateway.api.whole import Whole, possible
from services.gateway.domain.permissions import KeyPermission
from services.gateway.domain.principal import Principal
from services.gateway.domain.readiness import takes_messages
from services.gateway.store.acceptance import NewMessage
from services.gateway.store.keys import KeyUses
from shared.clock import Clock
from shared.web.body import BODY, BodyLimits, parse
from shared.web.edge import CLIENT_GONE, LOGGED, REQUEST_ID, Edge, request_id_of
from shared.web.limits import Allowance, RateLimiter, enforce
from shared.web.request_log import Handled
from shared.web.routes import Route

ROUTE: Final = "/api/messages/text"

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
    """How far a request had come when it left the short way: it was counted, and its body read.

    ``failure`` is what ended it, if it had come as far as being committed.
    """

    caller: Principal
    allowance: Allowance
    raw: bytes
    failure: Exception | None = None


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
        cors: bool,
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
        self._vary = _VARY if cors else ""

    async def express(self, request: web.Request, long_way: Handler) -> web.StreamResponse:
        """Answer once the text is committed; whatever is not usual, by the ``long_way``."""
        started = self._monotonic()
        headers = request.headers
        key = headers.get(X_API_KEY)
        caller = None if key is None else self._callers.known(key)
        sender = None if caller is None else self._senders.known(caller)
        content = request.content
        if (
            caller is None
            or sender is None
            or request.method != "POST"
            or KeyPermission.MESSAGES_SEND not in caller.permissions
            or not takes_messages(sender.status, connected=sender.connected)
            or IDEMPOTENCY_KEY in headers
            # It comes before a key, and may be somebody else's.
            or AUTHORIZATION in headers
            or EXPECT in headers
            or headers.get(_CONTENT_TYPE) != _JSON
            or not content.is_eof()  # it came whole, as small bodies do
            or content.total_bytes > self._largest
            or not possible(request)
        ):
            return await long_way(request)
        raw = content.read_nowait()
        try:
            text = _validate(raw)
        except ValidationError:
            text = None
        if text is None or _NUL in raw:
            request[BODY] = raw
            return await long_way(request)
        limit = self._limit(caller)
        allowance = self._limiter.hit_at_once(caller.limit_key, limit)
        if allowance is None:
            allowance = await self._limiter.hit(caller.limit_key, limit)
        if not allowance.allowed:
            # Not counted, so the long way finds the same, and says so.
            request[BODY] = raw
            return await long_way(request)
        # Not before the limiter was asked, for who waits there is not under way: nothing may be
        # awaited from here until the message is, or a crowd would all find the same room.
        month = self._month(sender) if sender.metered else None
        if sender.metered and month is None:
            request[_BEGUN] = _Begun(caller, allowance, raw)
            return await long_way(request)
        digits = text.to.removeprefix("+")
        now = self._now()
        message_id = new_text_id()
        request_id = request_id_of(request)
        assert caller.key_id is not None  # noqa: S101 - whoever shows a key has its id
        try:
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
        except asyncio.CancelledError:
            self._count(caller.key_id, succeeded=False)
            self._answered(Handled("POST", ROUTE, CLIENT_GONE, started, request_id, caller.facts))
            raise
        except Exception as error:  # noqa: BLE001 - raised again where errors become answers
            request[REQUEST_ID] = request_id
            request[_BEGUN] = _Begun(caller, allowance, raw, error)
            return await long_way(request)
        self._count(caller.key_id, succeeded=True)
        self._answered(Handled("POST", ROUTE, 202, started, request_id, caller.facts))
        return Whole(
            answer(message_id, sender, "+" + digits, now),
            request_id=request_id,
            allowance=allowance,
            vary=self._vary,
        )

    async def text(self, request: web.Request) -> web.StreamResponse:
        """The handler of the long way: from the start, or from where the short way was left."""
        begun = request.get(_BEGUN)
        if begun is None:
            return await self._guarded(request)
        caller = begun.caller
        assert caller.key_id is not None  # noqa: S101 - whoever shows a key has its id
        request[LOGGED] = caller.facts
        succeeded = False
        try:
            enforce(request, begun.allowance)
            if begun.failure is not None:
                raise begun.failure
            request[PRINCIPAL] = caller
            body = parse(begun.raw, NewText)
            response = await self._sending.accept(request, caller, body)
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
