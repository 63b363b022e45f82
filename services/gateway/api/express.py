"""The short way of ``POST /api/messages/text``: an instance key that is known, and nothing unusual.

It does what ``Gate`` and ``Sending`` do, in the same order and with the same outcome, without what
they do for other callers and requests. Whatever is not usual goes the long way.
"""

import os
import time
from collections.abc import Iterator
from typing import Final

import orjson
from aiohttp import web
from aiohttp.typedefs import Handler
from structlog.contextvars import bind_contextvars

from services.gateway.api.callers import X_API_KEY, Callers
from services.gateway.api.gate import Gate
from services.gateway.api.lookup import Senders
from services.gateway.api.once import IDEMPOTENCY_KEY
from services.gateway.api.schemas.messages import NewText
from services.gateway.api.sending import Acceptance, Sending, answer
from services.gateway.api.whole import Whole, possible
from services.gateway.domain.permissions import KeyPermission
from services.gateway.domain.readiness import takes_messages
from services.gateway.store.acceptance import NewMessage
from shared.clock import Clock
from shared.web.body import BodyLimits, read_model
from shared.web.edge import REQUEST_ID
from shared.web.limits import RateLimiter, enforce

_VARY: Final = "Vary: Origin\r\n"


class ExpressText:
    """Accepts texts the short way where it can; ``long_way`` is the guarded handler."""

    def __init__(
        self,
        *,
        long_way: Handler,
        callers: Callers,
        senders: Senders,
        gate: Gate,
        limiter: RateLimiter,
        sending: Sending,
        acceptance: Acceptance,
        limits: BodyLimits,
        clock: Clock,
        cors: bool,
    ) -> None:
        self._long_way = long_way
        self._callers = callers
        self._senders = senders
        self._gate = gate
        self._limiter = limiter
        self._sending = sending
        self._accept = acceptance.accept
        self._limits = limits
        self._now = clock.now
        self._vary = _VARY if cors else ""

    async def text(self, request: web.Request) -> web.StreamResponse:
        """Answer once the text is committed."""
        headers = request.headers
        key = headers.get(X_API_KEY)
        caller = None if key is None else await self._callers.instance_key(key)
        sender = None if caller is None else await self._senders.own(caller)
        if (
            caller is None
            or sender is None
            or KeyPermission.MESSAGES_SEND not in caller.permissions
            or not takes_messages(sender.status, connected=sender.connected)
            or IDEMPOTENCY_KEY in headers
            or not possible(request)
        ):
            return await self._long_way(request)
        bind_contextvars(tenant_id=caller.tenant_text)
        allowance = await self._limiter.hit(caller.limit_key, self._gate.limit(caller))
        if not allowance.allowed:
            enforce(request, allowance)
        try:
            body = await read_model(request, NewText, self._limits)
            if body.model_fields_set != _USUAL:
                enforce(request, allowance)
                return await self._sending.accept(request, caller, body)
            now = self._now()
            message_id = new_text_id()
            request_id = request[REQUEST_ID]
            to = body.to
            await self._accept(
                NewMessage(
                    message_id, sender.origin, to.chat, _content(body.message), request_id, now
                )
            )
        except Exception:
            enforce(request, allowance)
            raise
        return Whole(
            answer(message_id, sender, to.shown, now),
            request_id=request_id,
            allowance=allowance,
            vary=self._vary,
        )


_USUAL: Final = {"to", "message"}


def _content(text: str) -> str:
    """The content of a text that is nothing but a text."""
    return f'{{"kind":"text","text":{orjson.dumps(text).decode()}}}'


def _drawn() -> Iterator[bytes]:
    """Random bytes, ten at a time: asking the system once for many is cheaper."""
    while True:
        pool = os.urandom(2560)
        for start in range(0, len(pool), 10):
            yield pool[start : start + 10]


_chance: Final = _drawn().__next__


def new_text_id() -> str:
    """A UUIDv7 as text, in half the time that one takes which is made an object first."""
    random = int.from_bytes(_chance(), "big")
    number = (
        (time.time_ns() // 1_000_000) << 80
        | 0x7000_8000_0000_0000_0000
        | (random & 0xFFF0_0000_0000_0000_0000) >> 4 & 0x0FFF_0000_0000_0000_0000
        | random & 0x3FFF_FFFF_FFFF_FFFF
    )
    digits = f"{number:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
