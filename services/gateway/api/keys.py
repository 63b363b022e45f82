"""Instance keys: made, listed, revoked."""

from datetime import timedelta
from uuid import UUID

from aiohttp import web
from pydantic import TypeAdapter
from sqlalchemy.ext.asyncio import AsyncConnection

from services.gateway.api.auditing import note
from services.gateway.api.gate import PRINCIPAL, id_in_path
from services.gateway.api.lookup import instance_in_path
from services.gateway.api.once import Once
from services.gateway.api.revocation import Revocations
from services.gateway.api.schemas.fields import Deleted
from services.gateway.api.schemas.instances import CreatedKey, KeyView, NewKey
from services.gateway.domain.plans import QuotaExceeded
from services.gateway.store import keys
from services.gateway.store.keys import InstanceKey
from shared.clock import Clock
from shared.db.database import Database
from shared.errors import NotFound
from shared.ids import new_id
from shared.log import get_logger
from shared.security.tokens import KeyKind, issue_key
from shared.web.body import BodyLimits, read_model, read_query
from shared.web.envelope import respond, respond_page
from shared.web.pagination import Keyset, PageQuery

log = get_logger()

_POSITIONS: Keyset[UUID] = Keyset("instance_keys", TypeAdapter(UUID))


class Keys:
    """``/api/instances/{id}/keys``."""

    def __init__(
        self,
        *,
        database: Database,
        once: Once,
        revocations: Revocations,
        limits: BodyLimits,
        most: int,
        clock: Clock,
    ) -> None:
        self._database = database
        self._once = once
        self._revocations = revocations
        self._limits = limits
        self._most = most
        self._clock = clock

    async def create(self, request: web.Request) -> web.StreamResponse:
        principal = request[PRINCIPAL]
        body = await read_model(request, NewKey, self._limits)

        async def work(tx: AsyncConnection) -> CreatedKey:
            instance = await instance_in_path(tx, request, lock=True)
            now = self._clock.now()
            used = await keys.count_usable(tx, instance.id, now=now)
            if used >= self._most:
                raise QuotaExceeded(
                    f"An instance has at most {self._most} keys; delete one that is not used.",
                    data={"used": used, "limit": self._most, "resetsAt": None},
                )
            issued = issue_key(KeyKind.INSTANCE)
            key = InstanceKey(
                id=new_id(),
                name=body.name,
                hint=issued.hint,
                permissions=body.permissions.model_dump(),
                rate_limit=body.rate_limit,
                created_at=now,
                expires_at=now + timedelta(days=body.expires_in_days),
                last_used_at=None,
            )
            await keys.add(
                tx,
                key,
                tenant_id=instance.tenant_id,
                instance_id=instance.id,
                digest=issued.digest,
            )
            await note(tx, request, "instance_key", key.id, after=_facts(key, instance.id))
            log.info("instance_key_created", key_id=str(key.id), instance_id=str(instance.id))
            return CreatedKey(
                id=key.id,
                name=key.name,
                key=issued.text,
                permissions=body.permissions,
                rate_limit=key.rate_limit,
                expires_at=key.expires_at,
            )

        return await self._once.run(request, body, work, principal=principal)

    async def page(self, request: web.Request) -> web.StreamResponse:
        query = read_query(request, PageQuery)
        after = _POSITIONS.decode(query.cursor) if query.cursor else None
        async with self._database.tx() as tx:
            instance = await instance_in_path(tx, request)
            rows = await keys.page(tx, instance.id, after=after, limit=query.limit + 1)
        shown, pagination = _POSITIONS.page(rows, limit=query.limit, position=lambda row: row.id)
        return respond_page([KeyView.of(row) for row in shown], pagination)

    async def get(self, request: web.Request) -> web.StreamResponse:
        key_id = id_in_path(request, "keyId")
        async with self._database.tx() as tx:
            instance = await instance_in_path(tx, request)
            key = await keys.find(tx, instance.id, key_id)
        if key is None:
            raise _no_such_key()
        return respond(KeyView.of(key))

    async def delete(self, request: web.Request) -> web.StreamResponse:
        key_id = id_in_path(request, "keyId")
        async with self._database.tx() as tx:
            instance = await instance_in_path(tx, request)
            key = await keys.find(tx, instance.id, key_id)
            if key is None:
                raise _no_such_key()
            revoked = await keys.revoke(tx, instance.id, key_id=key_id, now=self._clock.now())
            await note(tx, request, "instance_key", key_id, before=_facts(key, instance.id))
        await self._revocations.tell(keys=revoked)
        log.info("instance_key_revoked", key_id=str(key_id), instance_id=str(instance.id))
        return respond(Deleted(id=key_id))


def _facts(key: InstanceKey, instance_id: UUID) -> dict[str, object]:
    """What the audit log keeps of a key."""
    return {
        "instanceId": instance_id,
        "name": key.name,
        "permissions": key.permissions,
        "rateLimit": key.rate_limit,
        "expiresAt": key.expires_at,
    }


def _no_such_key() -> NotFound:
    return NotFound("There is no such key; GET …/keys lists the instance's.")
