"""The instances that a caller may name: by path, by key, and for sends from what is known."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final
from uuid import UUID

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncConnection

from services.gateway.api.gate import PRINCIPAL, id_in_path
from services.gateway.domain.principal import Principal, scope_of
from services.gateway.store import instances
from services.gateway.store.instances import Instance, Sender
from services.gateway.store.recent import Recent
from shared.clock import Clock
from shared.db.database import Database
from shared.errors import NotFound
from shared.web.body import invalid

# How old what is known of an instance may be when a message is accepted for it. Short, because the
# session service changes its status and tells nobody here.
REMEMBERED: Final = timedelta(seconds=1)


class Senders:
    """What accepting a message must know about instances, without a query for each message."""

    def __init__(self, *, database: Database, clock: Clock) -> None:
        self._database = database
        self._recent: Recent[UUID, Sender] = Recent(self._read, clock=clock, ttl=REMEMBERED)

    async def sender(self, principal: Principal, named: UUID | None) -> Sender:
        """The instance that a message is sent by: a key's own, or the one that a user names."""
        own = principal.instance_id
        if own is None and named is None:
            raise invalid({"instanceId": "is missing; name the instance that sends"})
        instance_id = own or named
        assert instance_id is not None  # noqa: S101 - one of them is there, as was just checked
        found = await self._recent.get(instance_id)
        if (
            found is None
            or found.tenant_id != principal.tenant_id
            or (named is not None and named != instance_id)
            or not scope_of(principal).sees(instance_id)
        ):
            raise NotFound("There is no such instance; check instanceId.")
        return found

    def known(self, principal: Principal) -> Sender | None:
        """The instance of an instance key, if it is remembered."""
        own = principal.instance_id
        return None if own is None else self._recent.fresh(own)

    def forget(self, instance_id: UUID) -> None:
        """An instance has changed; for ``Revocations``, which tells the other replicas too."""
        self._recent.forget(instance_id)

    async def refresh(self) -> None:
        """Read again what is in use. Raises ``Transient``."""
        await self._recent.refresh()

    async def _read(self, ids: Sequence[UUID]) -> dict[UUID, Sender]:
        return await instances.senders(self._database, ids)


async def instance_in_path(
    tx: AsyncConnection, request: web.Request, *, lock: bool = False
) -> Instance:
    """The instance that the path names, or else that of the calling key; raises ``NotFound``."""
    principal = request[PRINCIPAL]
    named = id_in_path(request) if "id" in request.match_info else principal.instance_id
    if named is None:
        raise NotFound("A user names the instance in the path: use /api/instances/{id}/… instead.")
    found = await instances.find(tx, scope_of(principal), named, lock=lock)
    if found is None:
        raise NotFound("There is no such instance; GET /api/instances lists yours.")
    return found
