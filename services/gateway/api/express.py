"""The short way of ``POST /api/messages/text``: a key that is in use, and nothing unusual.

It does what ``Gate`` and ``Sending`` do, in the same order and with the same outcome, without what
they do for other callers and requests. Whatever is not usual goes the long way, and so does what
is wrong: the short way never refuses anything itself.
"""

import os
import time
from collections.abc import Iterator
from typing import Final

import orjson
from aiohttp import web
from aiohttp.hdrs import AUTHORIZATION
from aiohttp.typedefs import Handler
from multidict import istr
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.gateway.api.callers import X_API_KEY, Callers
from services.gateway.api.gate import Gate
from services.gateway.api.lookup import Senders
from services.gateway.api.once import IDEMPOTENCY_KEY
from services.gateway.api.quotas import Quotas
from services.gateway.api.schemas.outbound import NewText
from services.gateway.api.sending import Acceptance, Sending, answer
from services.gateway.api.whole import Whole, possible
from services.gateway.domain.permissions import KeyPermission
from services.gateway.domain.readiness import takes_messages
from services.gateway.store.acceptance import NewMessage
from services.gateway.store.keys import KeyUses
from shared.clock import Clock
from shared.web.body import BodyLimits, parse
from shared.web.edge import LOGGED, REQUEST_ID
from shared.web.limits import RateLimiter, enforce

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
        uses: KeyUses,
        acceptance: Acceptance,
        quotas: Quotas,
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
        self._count = uses.count
        self._accept = acceptance.accept
        self._month = quotas.month_at_once
        self._largest = limits.largest
        self._now = clock.now
        self._vary = _VARY if cors else ""

    async def text(self, request: web.Request) -> web.StreamResponse:
        """Answer once the text is committed."""
        headers = request.headers
        key = headers.get(X_API_KEY)
        caller = None if key is None else self._callers.known(key)
        sender = None if caller is None else self._senders.known(caller)
        content = request.content
        if (
            caller is None
            or sender is None
            or KeyPermission.MESSAGES_SEND not in caller.permissions
            or not takes_messages(sender.status, connected=sender.connected)
            or IDEMPOTENCY_KEY in headers
            # It comes before a key, and may be somebody else's.
            or AUTHORIZATION in headers
            or headers.get(_CONTENT_TYPE) != _JSON
            or not content.is_eof()  # it came whole, as small bodies do
            or content.total_bytes > self._largest
            or not possible(request)
        ):
            return await self._long_way(request)
        request[LOGGED] = caller.facts
        allowance = await self._limiter.hit(caller.limit_key, self._gate.limit(caller))
        assert caller.key_id is not None  # noqa: S101 - whoever shows a key has its id
        if not allowance.allowed:
            self._count(caller.key_id, succeeded=False)
            enforce(request, allowance)
        try:
            raw = content.read_nowait()
            try:
                text = _validate(raw)
            except ValidationError:
                text = None
            # Not before the limiter was asked, for who waits there is not under way: nothing may be
            # awaited from here until the message is, or a crowd would all find the same room.
            month = self._month(sender) if sender.metered else None
            if text is None or _NUL in raw or (sender.metered and month is None):
                # Read already, so the rest of the long way only. It finds what is wrong, if it is.
                body = parse(raw, NewText)
                enforce(request, allowance)
                response = await self._sending.accept(request, caller, body)
                self._count(caller.key_id, succeeded=True)
                return response
            digits = text.to.removeprefix("+")
            now = self._now()
            message_id = new_text_id()
            request_id = request[REQUEST_ID]
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
        except Exception:
            self._count(caller.key_id, succeeded=False)
            enforce(request, allowance)
            raise
        self._count(caller.key_id, succeeded=True)
        return Whole(
            answer(message_id, sender, "+" + digits, now),
            request_id=request_id,
            allowance=allowance,
            vary=self._vary,
        )


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
