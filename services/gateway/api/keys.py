"""Instance keys: made, listed, changed, made anew, revoked; and how they are used."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from aiohttp import web
from pydantic import TypeAdapter
from sqlalchemy.ext.asyncio import AsyncConnection

from services.gateway.api.auditing import note
from services.gateway.api.gate import PRINCIPAL, id_in_path
from services.gateway.api.lookup import instance_in_path
from services.gateway.api.once import Once
from services.gateway.api.revocation import Revocations
from services.gateway.api.schemas.fields import Deleted, Nothing
from services.gateway.api.schemas.instances import (
    KEY_DAYS_AT_MOST,
    CreatedKey,
    KeyChange,
    KeyUsage,
    KeyView,
    NewKey,
)
from services.gateway.domain.permissions import KeyPermissions
from services.gateway.domain.plans import QuotaExceeded
from services.gateway.store import keys
from services.gateway.store.instances import Instance
from services.gateway.store.keys import InstanceKey, KeyUses
from shared.clock import Clock
from shared.db.database import Database
from shared.errors import NotFound
from shared.ids import new_id
from shared.log import get_logger
from shared.security.tokens import KeyKind, issue_key
from shared.web.body import BodyLimits, invalid, read_model, read_query
from shared.web.envelope import respond, respond_page
from shared.web.limits import Limit, RateLimiter
from shared.web.pagination import Keyset, PageQuery

log = get_logger()

_LIFETIME: Final = timedelta(days=365)
_LONGEST: Final = timedelta(days=KEY_DAYS_AT_MOST)
_HOUR: Final = timedelta(hours=1)
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
        uses: KeyUses,
        limiter: RateLimiter,
        clock: Clock,
    ) -> None:
        self._database = database
        self._once = once
        self._revocations = revocations
        self._limits = limits
        self._most = most
        self._uses = uses
        self._limiter = limiter
        self._clock = clock

    async def create(self, request: web.Request) -> web.StreamResponse:
        principal = request[PRINCIPAL]
        body = await read_model(request, NewKey, self._limits)
        expires_at = self._end(body.expires_at)
        if expires_at is None:
            lifetime = timedelta(days=body.expires_in_days or _LIFETIME.days)
            expires_at = self._clock.now() + lifetime

        async def work(tx: AsyncConnection) -> CreatedKey:
            instance = await instance_in_path(tx, request, lock=True)
            now = self._clock.now()
            await self._require_room(tx, instance.id, now=now)
            issued = issue_key(KeyKind.INSTANCE)
            key = InstanceKey(
                id=new_id(),
                name=body.name,
                hint=issued.hint,
                permissions=body.permissions.model_dump(),
                rate_limit=body.rate_limit,
                created_at=now,
                expires_at=expires_at,
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

    async def change(self, request: web.Request) -> web.StreamResponse:
        key_id = id_in_path(request, "keyId")
        body = await read_model(request, KeyChange, self._limits)
        self._end(body.expires_at)
        async with self._database.tx() as tx:
            instance, key = await _locked(tx, request, key_id)
            now = self._clock.now()
            if body.expires_at is not None and not _works(key, now):
                # It comes back to life, and counts again.
                await self._require_room(tx, instance.id, now=now)
            changes = body.model_dump(exclude_none=True, by_alias=False)
            changed = replace(key, **changes)
            digest = await keys.change(tx, key.id, changes) if changes else None
            await note(
                tx,
                request,
                "instance_key",
                key.id,
                before=_facts(key, instance.id),
                after=_facts(changed, instance.id),
            )
        if digest is not None:
            await self._revocations.tell(keys=[digest])
        return respond(KeyView.of(changed))

    async def regenerate(self, request: web.Request) -> web.StreamResponse:
        """The same key with other letters; the old ones are dead from the commit on."""
        key_id = id_in_path(request, "keyId")
        principal = request[PRINCIPAL]
        old: list[bytes] = []

        async def work(tx: AsyncConnection) -> CreatedKey:
            instance, key = await _locked(tx, request, key_id)
            now = self._clock.now()
            expires_at = key.expires_at
            if not _works(key, now):
                await self._require_room(tx, instance.id, now=now)
                expires_at = now + _LIFETIME
            issued = issue_key(KeyKind.INSTANCE)
            made = replace(key, hint=issued.hint, expires_at=expires_at)
            replaced = await keys.replace(
                tx,
                made,
                digest=issued.digest,
                instance_id=instance.id,
                tenant_id=instance.tenant_id,
                now=now,
            )
            old.append(replaced)
            await note(
                tx,
                request,
                "instance_key",
                key.id,
                before={"hint": key.hint, "expiresAt": key.expires_at},
                after={"hint": made.hint, "expiresAt": made.expires_at},
            )
            log.info("instance_key_regenerated", key_id=str(key.id), instance_id=str(instance.id))
            return CreatedKey(
                id=made.id,
                name=made.name,
                key=issued.text,
                permissions=KeyPermissions.model_validate(made.permissions),
                rate_limit=made.rate_limit,
                expires_at=made.expires_at,
            )

        answer = await self._once.run(request, Nothing(), work, principal=principal, status=200)
        await self._revocations.tell(keys=old)
        return answer

    async def usage(self, request: web.Request) -> web.StreamResponse:
        key_id = id_in_path(request, "keyId")
        async with self._database.tx() as tx:
            instance = await instance_in_path(tx, request)
            key = await keys.find(tx, instance.id, key_id)
            if key is None:
                raise _no_such_key()
            written = await keys.counted(tx, key.id)
        here = self._uses.unwritten(key.id)
        requests = written.requests + here.requests
        successes = written.successes + here.successes
        window = await self._limiter.look(f"key:{key.id}", Limit(key.rate_limit, _HOUR))
        return respond(
            KeyUsage(
                total_requests=requests,
                successful_requests=successes,
                failed_requests=requests - successes,
                rate_limit=key.rate_limit,
                remaining_quota=window.remaining,
                last_used=key.last_used_at,
                created_at=key.created_at,
            )
        )

    async def _require_room(self, tx: AsyncConnection, instance_id: UUID, *, now: datetime) -> None:
        used = await keys.count_usable(tx, instance_id, now=now)
        if used >= self._most:
            raise QuotaExceeded(
                f"An instance has at most {self._most} keys; delete one that is not used.",
                data={"used": used, "limit": self._most, "resetsAt": None},
            )

    def _end(self, expires_at: datetime | None) -> datetime | None:
        """The end that was asked for, if a key may have it."""
        if expires_at is None:
            return None
        now = self._clock.now()
        if expires_at <= now:
            raise invalid({"expiresAt": "lies in the past; choose a time to come"})
        if expires_at > now + _LONGEST:
            raise invalid({"expiresAt": f"is too far off; {_LONGEST.days} days are the most"})
        return expires_at

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


async def _locked(
    tx: AsyncConnection, request: web.Request, key_id: UUID
) -> tuple[Instance, InstanceKey]:
    """The key that the path names and its instance, which nobody else changes meanwhile."""
    instance = await instance_in_path(tx, request, lock=True)
    key = await keys.find(tx, instance.id, key_id)
    if key is None:
        raise _no_such_key()
    return instance, key


def _works(key: InstanceKey, now: datetime) -> bool:
    return key.expires_at is None or key.expires_at > now


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
