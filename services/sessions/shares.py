"""Room that tenants share, of which none may take more than its part."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from uuid import UUID

from services.sessions.engines.port import Retryable

# The part of all room that is one tenant's at most.
PART: Final = 4
# How many of a tenant's may wait for each that has room.
WAITING: Final = 16


class _Share:
    """What is under way for one tenant, and what waits; ``known`` counts both."""

    __slots__ = ("known", "room")

    def __init__(self, most: int) -> None:
        self.room = asyncio.Semaphore(most)
        self.known = 0


class Shares:
    """Room for ``most`` at a time, a quarter of it for each tenant; first come, first served."""

    def __init__(self, most: int) -> None:
        self._room = asyncio.Semaphore(most)
        self._each = max(1, most // PART)
        self._shares: dict[UUID, _Share] = {}

    @asynccontextmanager
    async def room(self, tenant_id: UUID) -> AsyncIterator[None]:
        """Have room for one, for as long as the context is open; bring a deadline of your own.

        Raises ``Retryable`` if too much of the tenant's waits already.
        """
        share = self._shares.setdefault(tenant_id, _Share(self._each))
        if share.known >= self._each * (1 + WAITING):
            raise Retryable("Too many files of this account are on their way.")
        share.known += 1
        try:
            # First among the tenant's own: whoever waits for the others' room takes none of it.
            async with share.room, self._room:
                yield
        finally:
            share.known -= 1
            if not share.known:
                del self._shares[tenant_id]
