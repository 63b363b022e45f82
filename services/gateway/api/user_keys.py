"""User keys: made, listed, revoked."""

from datetime import timedelta
from uuid import UUID

from aiohttp import web
from pydantic import TypeAdapter
from sqlalchemy.ext.asyncio import AsyncConnection

from services.gateway.api.auditing import note
from services.gateway.api.gate import PRINCIPAL, id_in_path
from services.gateway.api.once import Once
from services.gateway.api.revocation import Revocations
from services.gateway.api.schemas.fields import Deleted
from services.gateway.api.schemas.team import (
    CreatedUserKey,
    NewUserKey,
    UserKeysQuery,
    UserKeyView,
)
from services.gateway.domain.permissions import Permission
from services.gateway.domain.plans import QuotaExceeded
from services.gateway.domain.principal import Principal
from services.gateway.store import accounts, user_keys
from services.gateway.store.user_keys import UserKey
from shared.clock import Clock
from shared.db.database import Database
from shared.errors import NotFound, Unauthenticated
from shared.ids import new_id
from shared.log import get_logger
from shared.security.tokens import KeyKind, issue_key
from shared.web.body import BodyLimits, read_model, read_query
from shared.web.envelope import respond, respond_page
from shared.web.pagination import Keyset

log = get_logger()

_POSITIONS: Keyset[UUID] = Keyset("user_keys", TypeAdapter(UUID))


class UserKeys:
    """``/api/team/keys``."""

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
        body = await read_model(request, NewUserKey, self._limits)
        assert principal.user_id is not None  # noqa: S101 - only a login gets here
        user_id = principal.user_id

        async def work(tx: AsyncConnection) -> CreatedUserKey:
            user = await accounts.user(tx, user_id, lock=True)
            if user is None or not user.active:
                raise Unauthenticated("This login has ended; log in again.")
            now = self._clock.now()
            used = await user_keys.count_usable(tx, user_id, now=now)
            if used >= self._most:
                raise QuotaExceeded(
                    f"A user has at most {self._most} keys; delete one that is not used.",
                    data={"used": used, "limit": self._most, "resetsAt": None},
                )
            issued = issue_key(KeyKind.USER)
            key = UserKey(
                id=new_id(),
                user_id=user_id,
                name=body.name,
                hint=issued.hint,
                rate_limit=body.rate_limit,
                created_at=now,
                expires_at=now + timedelta(days=body.expires_in_days),
                last_used_at=None,
            )
            await user_keys.add(tx, key, tenant_id=user.tenant_id, digest=issued.digest)
            await note(tx, request, "user_key", key.id, after=UserKeyView.of(key))
            log.info("user_key_created", key_id=str(key.id), user_id=str(user_id))
            return CreatedUserKey(
                id=key.id,
                name=key.name,
                key=issued.text,
                rate_limit=key.rate_limit,
                expires_at=key.expires_at,
            )

        return await self._once.run(request, body, work, principal=principal)

    async def page(self, request: web.Request) -> web.StreamResponse:
        principal = request[PRINCIPAL]
        query = read_query(request, UserKeysQuery)
        whose = _whose(principal)
        if whose is not None and query.user_id not in {None, whose}:
            raise NotFound("There is no such user among those whose keys you see.")
        async with self._database.tx() as tx:
            rows = await user_keys.page(
                tx,
                principal.tenant_id,
                user_id=whose or query.user_id,
                after=_POSITIONS.decode(query.cursor) if query.cursor else None,
                limit=query.limit + 1,
            )
        shown, pagination = _POSITIONS.page(rows, limit=query.limit, position=lambda row: row.id)
        return respond_page([UserKeyView.of(row) for row in shown], pagination)

    async def revoke(self, request: web.Request) -> web.StreamResponse:
        principal = request[PRINCIPAL]
        key_id = id_in_path(request, "keyId")
        async with self._database.tx() as tx:
            digest = await user_keys.revoke(
                tx,
                principal.tenant_id,
                key_id,
                user_id=_whose(principal),
                now=self._clock.now(),
            )
            if digest is None:
                raise NotFound("There is no such key; GET /api/team/keys lists yours.")
            await note(tx, request, "user_key", key_id)
        await self._revocations.tell(keys=[digest])
        log.info("user_key_revoked", key_id=str(key_id))
        return respond(Deleted(id=key_id))


def _whose(principal: Principal) -> UUID | None:
    """Whose keys somebody sees and revokes: administrators everybody's, others their own."""
    if Permission.MANAGE_ORGANIZATION in principal.permissions:
        return None
    return principal.user_id
