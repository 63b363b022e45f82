"""Letting requests wait for events: so many at a time, each woken by what it waits for."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final
from uuid import UUID

from services.gateway.api.tail import Tail
from services.gateway.domain.event_names import Selection
from services.gateway.domain.principal import Scope
from services.gateway.domain.rooms import Room, rooms_of
from services.gateway.metrics import GatewayMetrics
from services.gateway.store.events import LoggedEvent, SealedEvent
from shared.errors import Throttled, Transient

_SOON: Final = timedelta(seconds=1)
_LATER: Final = timedelta(seconds=5)


class Waiter:
    """A request that waits for an event of a scope and a selection."""

    def __init__(self, scope: Scope, selection: Selection) -> None:
        self._rooms = rooms_of(scope)
        self._selection = selection
        self._news = asyncio.Event()

    @property
    def rooms(self) -> frozenset[Room]:
        """Whose events it waits for."""
        return self._rooms

    def hear(self, event: LoggedEvent) -> None:
        """Wake if this is what was waited for."""
        if self._selection.takes(event.type):
            self._news.set()

    def miss(self, event: SealedEvent) -> None:
        """Wake for this too: whoever looks is told that it cannot be read."""
        if self._selection.takes(event.type):
            self._news.set()

    def wake(self) -> None:
        """Wake, whatever there is."""
        self._news.set()

    def clear(self) -> None:
        """Forget earlier news; called before looking, so that nothing slips in between."""
        self._news.clear()

    async def wait(self, seconds: float) -> None:
        """Return when there is news since ``clear``, at the latest after ``seconds``."""
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            pass


class Feed:
    """Who waits at this replica: at most ``most``, of one tenant at most ``most_per_tenant``."""

    def __init__(
        self, *, tail: Tail, metrics: GatewayMetrics, most: int, most_per_tenant: int
    ) -> None:
        self._tail = tail
        self._metrics = metrics
        self._most = most
        self._most_per_tenant = most_per_tenant
        self._waiting: set[Waiter] = set()
        self._tenants: Counter[UUID] = Counter()
        self.closed = False

    @asynccontextmanager
    async def waiting(self, scope: Scope, selection: Selection) -> AsyncIterator[Waiter]:
        """Be told of events for as long as the context is open.

        Raises ``Throttled`` or ``Transient`` if there are too many who wait.
        """
        self._check(scope.tenant_id)
        waiter = Waiter(scope, selection)
        self._waiting.add(waiter)
        self._tenants[scope.tenant_id] += 1
        try:
            await self._tail.join(waiter)
            self._metrics.event_waiters.inc()
            try:
                yield waiter
            finally:
                self._metrics.event_waiters.dec()
                self._tail.leave(waiter)
        finally:
            self._waiting.remove(waiter)
            self._tenants[scope.tenant_id] -= 1
            if not self._tenants[scope.tenant_id]:
                del self._tenants[scope.tenant_id]

    def close(self) -> None:
        """Let nobody wait any longer: the process is about to stop."""
        self.closed = True
        for waiter in self._waiting:
            waiter.wake()

    def _check(self, tenant_id: UUID) -> None:
        if self._tenants[tenant_id] >= self._most_per_tenant:
            raise Throttled(
                f"More than {self._most_per_tenant} requests of your organization wait for events;"
                " use fewer, each for more, or ask without `wait`.",
                retry_after=_LATER,
            )
        if len(self._waiting) >= self._most:
            raise Transient(
                "Too many wait for events at this moment; ask again, or without `wait`.",
                retry_after=_SOON,
            )
