"""Who wants which events, asked anew for every batch."""

from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Final
from uuid import UUID

from services.webhooks.domain.endpoint import Endpoint
from services.webhooks.store import endpoints as store
from shared.clock import Clock
from shared.db.database import Database

# A name is for people to read: being late with a new one does no harm.
NAMES_REMEMBERED: Final = timedelta(seconds=30)


class Audience:
    """The endpoints of one tenant, and which of them want what."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self._endpoints = endpoints
        self._wanting: dict[tuple[str, UUID | None], tuple[Endpoint, ...]] = {}

    def wanting(self, name: str, instance_id: UUID | None) -> tuple[Endpoint, ...]:
        """The endpoints for an event of this name from this instance."""
        key = (name, instance_id)
        found = self._wanting.get(key)
        if found is None:
            found = tuple(e for e in self._endpoints if e.wants(name, instance_id))
            self._wanting[key] = found
        return found


class Directory:
    """Looks endpoints and names up, for all tenants or instances of a batch in one query."""

    def __init__(self, *, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._names: dict[UUID, tuple[str, float]] = {}

    async def audiences(self, tenants: Collection[UUID]) -> dict[UUID, Audience]:
        """The audience of each tenant as it is now, in one query for a whole batch.

        Not remembered: an endpoint that is made a moment before an event must get that event.
        """
        by_tenant: dict[UUID, list[Endpoint]] = {id_: [] for id_ in tenants}
        async with self._database.hot() as connection:
            for endpoint in await store.of_tenants(connection, list(tenants)):
                by_tenant[endpoint.tenant_id].append(endpoint)
        return {id_: Audience(endpoints) for id_, endpoints in by_tenant.items()}

    async def names(self, instances: Collection[UUID]) -> dict[UUID, str]:
        """What the instances are called, at most ``NAMES_REMEMBERED`` ago, as far as known."""
        now = self._clock.monotonic()
        known = self._names
        missing = [id_ for id_ in instances if id_ not in known or known[id_][1] <= now]
        if missing:
            async with self._database.hot() as connection:
                found = await store.instance_names(connection, missing)
            until = now + NAMES_REMEMBERED.total_seconds()
            known.update({id_: (name, until) for id_, name in found.items()})
        return {id_: known[id_][0] for id_ in instances if id_ in known}

    async def find(self, endpoint_id: UUID) -> Endpoint | None:
        """One endpoint as it is right now, switched on or not."""
        async with self._database.hot() as connection:
            return await store.find(connection, endpoint_id)

    def forget_old(self) -> None:
        """Drop names that are not remembered any more, so that who left takes no memory."""
        now = self._clock.monotonic()
        for id_ in [id_ for id_, (_, until) in self._names.items() if until <= now]:
            del self._names[id_]
