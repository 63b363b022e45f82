"""Linking a phone: codes are shown one after the other until one is scanned."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, TypeVar
from uuid import UUID

from services.sessions.engines.port import EngineEvent, Opening, Paired, Qr
from services.sessions.engines.sandbox import stanzas
from services.sessions.engines.sandbox.server import Server
from shared.clock import Clock
from shared.errors import Transient

T = TypeVar("T")

# How long the codes of one pairing are valid, as WhatsApp has it: the first longer than the rest.
CODES: Final = (timedelta(seconds=60), *(timedelta(seconds=20),) * 5)
SCANNED_AFTER: Final = timedelta(seconds=1)
ASK_AGAIN: Final = timedelta(seconds=1)


@dataclass(eq=False, slots=True)
class Phone:
    """One open session. ``number`` is in digits; ``ending`` while its end is being told.

    ``decided`` is set once it is known whether a phone is linked; while one can be, ``codes_end``
    says for how long. ``codes`` counts those for typing in.
    """

    opening: Opening
    number: str
    online: bool = False
    ending: bool = False
    scanned: asyncio.Event = field(default_factory=asyncio.Event)
    decided: asyncio.Event = field(default_factory=asyncio.Event)
    codes_end: datetime | None = None
    codes: int = 0
    task: asyncio.Task[None] | None = None

    @property
    def instance_id(self) -> UUID:
        return self.opening.instance_id


class Pairing:
    """Shows codes for a phone to scan. ``offer`` returns once an event has been taken."""

    def __init__(
        self,
        *,
        server: Server,
        clock: Clock,
        offer: Callable[[Phone, EngineEvent], Awaitable[None]],
    ) -> None:
        self._server = server
        self._clock = clock
        self._offer = offer

    async def known(self, phone: Phone) -> bool:
        """Whether the phone is linked already; it keeps its number then, whatever is wished now."""
        number = await patiently(self._clock, lambda: self._server.linked(phone.instance_id))
        if number is None:
            return False
        phone.number = number
        phone.decided.set()
        return True

    async def pair(self, phone: Phone) -> bool:
        """Link the phone; false if none of the codes was scanned, or typed in, in time."""
        phone.codes_end = self._clock.now() + sum(CODES, timedelta(0))
        phone.decided.set()
        for count, validity in enumerate(CODES, start=1):
            now = self._clock.now()
            code = stanzas.pairing_code(phone.instance_id, shown_at=now, number=count)
            await self._offer(
                phone,
                Qr(instance_id=phone.instance_id, at=now, code=code, expires_at=now + validity),
            )
            if await self._scanned(phone, within=validity):
                phone.codes_end = None
                await self._link(phone)
                return True
        phone.codes_end = None
        return False

    async def _link(self, phone: Phone) -> None:
        await patiently(
            self._clock,
            lambda: self._server.link(
                tenant_id=phone.opening.tenant_id,
                phone=phone.number,
                instance_id=phone.instance_id,
            ),
        )
        await self._offer(
            phone,
            Paired(
                instance_id=phone.instance_id,
                at=self._clock.now(),
                phone_number=f"+{phone.number}",
                device_info={
                    "platform": "sandbox",
                    "name": phone.opening.device_name or "Waypost sandbox",
                },
            ),
        )

    async def _scanned(self, phone: Phone, *, within: timedelta) -> bool:
        if phone.opening.settings.get("autoScan", True) is not False:
            await self._clock.sleep(SCANNED_AFTER)
            return True
        waits = [
            asyncio.ensure_future(self._clock.sleep(within)),
            asyncio.ensure_future(phone.scanned.wait()),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
        return phone.scanned.is_set()


async def patiently(clock: Clock, call: Callable[[], Awaitable[T]]) -> T:
    """Ask the server until it answers; for what nobody else would repeat."""
    while True:
        try:
            return await call()
        except Transient:
            await clock.sleep(ASK_AGAIN)
