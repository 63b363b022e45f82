"""What has happened, numbered from 1, and a way to wait for more: tests wait here and never sleep.

| what | when | facts |
| --- | --- | --- |
| ``proxied`` | a client asked the proxy for a host | ``target``, ``user`` |
| ``qr_offered`` | an unpaired client was given references for its QR codes | ``connection`` |
| ``code_wanted`` | one asked to be paired by code | ``phone``, ``connection`` |
| ``paired`` | a device is linked | ``phone``, ``device``, ``by``, ``name``, ``lid`` |
| ``pairing_failed`` | it was not | ``phone``, ``device``, ``by``, ``error`` |
| ``unlinked`` | a device is no longer linked | ``phone``, ``device``, ``by`` |
| ``connected`` | it has logged in | ``phone``, ``device``, ``connection``, ``replaced`` |
| ``prekeys`` | it has uploaded one-time prekeys | ``phone``, ``device``, ``left`` |
| ``active`` | it wants its backlog and what comes | ``phone``, ``device`` |
| ``login_refused`` | it was turned away | ``phone``, ``device``, ``reason`` |
| ``disconnected`` | its connection has ended | ``phone``, ``device``, ``connection``, ``end`` |
| ``message`` | a client handed over a message | ``phone``, ``id``, ``to``, ``type``, ``edit`` |
| ``reached`` | a device confirmed a message | ``phone``, ``device``, ``id``, ``from`` |
| ``receipt`` | a client reported on messages | ``phone``, ``device``, ``ids``, ``to``, ``type`` |
| ``typing`` | somebody types, or stops | ``phone``, ``to``, ``state``, ``media`` |
| ``presence`` | somebody is there, or not | ``phone``, ``state``, ``name`` |
| ``uploaded``, ``downloaded`` | media | ``phone``, ``kind``, ``size``, ``path``, ``status`` |
| ``group`` | a group was made or changed | ``group``, ``change``, ``by`` |
| ``unknown`` | a client sent what nobody here knows | ``phone``, ``stanza`` |
| ``fault`` | a fault was injected | ``kind``, ``phone`` |
"""

import asyncio
from time import time
from typing import Any

Happening = dict[str, Any]


class Happenings:
    """The list, in order."""

    def __init__(self) -> None:
        self._all: list[Happening] = []
        self._more = asyncio.Event()

    @property
    def last(self) -> int:
        """The number of the latest, 0 if there is none."""
        return len(self._all)

    def tell(self, what: str, **facts: Any) -> None:
        """Add one, and wake whoever waits."""
        self._all.append({"n": len(self._all) + 1, "at": time(), "what": what, **facts})
        self._more.set()
        self._more = asyncio.Event()

    async def after(self, number: int, *, wait: float, **wanted: str) -> list[Happening]:
        """Those after ``number`` with the facts that are wanted; if none, wait for one.

        Empty when none has come within ``wait`` seconds.
        """
        seen = max(0, number)
        try:
            async with asyncio.timeout(wait):
                while not (found := self._since(seen, wanted)):
                    seen = max(seen, self.last)
                    await self._more.wait()
        except TimeoutError:
            return []
        return found

    def _since(self, number: int, wanted: dict[str, str]) -> list[Happening]:
        return [
            happening
            for happening in self._all[number:]
            if all(str(happening.get(name)) == value for name, value in wanted.items())
        ]
