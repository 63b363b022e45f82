"""Who is calling: from what a request shows to a ``Principal``, without a query in most cases."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final
from uuid import UUID

from aiohttp import web
from multidict import istr

from services.gateway.api.auditing import Auditing
from services.gateway.domain.auditing import Security, actor_of
from services.gateway.domain.permissions import ROLES, KeyPermissions, Role, granted
from services.gateway.domain.principal import Principal, PrincipalKind
from services.gateway.store import accounts, keys, user_keys
from services.gateway.store.accounts import Person
from services.gateway.store.keys import KeyUses, ShownKey
from services.gateway.store.recent import Recent
from services.gateway.store.user_keys import ShownUserKey
from shared.clock import Clock
from shared.db.database import Database
from shared.errors import Forbidden, Unauthenticated
from shared.security.tokens import AccessTokens, KeyKind, digest_of, kind_of

AUTHORIZATION: Final = istr("Authorization")
X_API_KEY: Final = istr("X-API-Key")

# How old what is known of a credential may be. Replicas tell one another what was revoked, so this
# is how long it may work where that was not heard, and how long any works without the database.
REMEMBERED: Final = timedelta(seconds=5)

_NOTHING_SHOWN: Final = "No credential; send `Authorization: Bearer <token>` or `X-API-Key: <key>`."
_UNKNOWN_KEY: Final = "This API key is not known; check that it was copied whole."
_REVOKED: Final = "This API key was revoked; use another one, or have one made."
_EXPIRED: Final = "This API key has expired; make a new one."
_LOGGED_OUT: Final = "This login has ended; log in again."

SUSPENDED: Final = (
    "Your organization is suspended, so nothing of it can be used; ask whoever operates Waypost."
)


@dataclass(frozen=True, slots=True)
class _Known:
    """A key: for whom it stands, whether that is over, and when it will be."""

    principal: Principal
    key_id: UUID
    revoked: bool
    expires_at: datetime | None

    def refusal(self, now: datetime) -> str | None:
        """Why it is refused, if it is."""
        if self.expires_at is not None and self.expires_at <= now:
            return _EXPIRED
        return _REVOKED if self.revoked else None


class Callers:
    """Tells who is calling.

    ``forget_*`` make a change count at once in this process; they are for ``Revocations``, which
    tells the other replicas too.
    """

    def __init__(
        self,
        *,
        database: Database,
        tokens: AccessTokens,
        uses: KeyUses,
        auditing: Auditing,
        clock: Clock,
    ) -> None:
        self._database = database
        self._tokens = tokens
        self._uses = uses
        self._auditing = auditing
        self._clock = clock
        self._keys: Recent[bytes, _Known] = Recent(self._read_keys, clock=clock, ttl=REMEMBERED)
        self._logins: Recent[UUID, Principal] = Recent(
            self._read_logins, clock=clock, ttl=REMEMBERED
        )
        self._user_keys: Recent[bytes, _Known] = Recent(
            self._read_user_keys, clock=clock, ttl=REMEMBERED
        )

    async def caller(self, request: web.Request) -> Principal:
        """Who is calling; raises ``Unauthenticated``, saying what to do about it.

        Raises ``Forbidden`` if they are known, and their organization is suspended.
        """
        return await self.holder(shown_token(request), request)

    async def holder(self, token: str, request: web.Request | None = None) -> Principal:
        """Whose a credential is at this moment; raises what ``caller`` raises.

        With the ``request`` that shows it; without, it was shown before and is looked at again.
        """
        principal = await self._holder(token, request)
        if principal.suspended:
            raise Forbidden(SUSPENDED)
        return principal

    async def _holder(self, token: str, request: web.Request | None) -> Principal:
        match kind_of(token):
            case KeyKind.INSTANCE:
                return await self._key(self._keys, request, token)
            case KeyKind.USER:
                return await self._key(self._user_keys, request, token)
            case KeyKind.REFRESH:
                raise Unauthenticated(
                    "This is a refresh token; exchange it at POST /api/auth/refresh first."
                )
            case KeyKind.INVITATION:
                raise Unauthenticated(
                    "This is an invitation; exchange it at POST /api/auth/accept-invitation first."
                )
            case None:
                return await self._user(token)

    def known(self, key: str) -> Principal | None:
        """Whom a key stands for, if that is remembered and nothing is amiss with it."""
        known = self._keys.fresh(digest_of(key))
        if known is None or known.refusal(self._clock.now()) is not None:
            return None
        if known.principal.suspended:
            return None
        self._uses.note(known.key_id)
        return known.principal

    def forget_key(self, digest: bytes) -> None:
        """A key has changed, of an instance or a user."""
        self._keys.forget(digest)
        self._user_keys.forget(digest)

    def forget_login(self, session_id: UUID) -> None:
        """A login has ended."""
        self._logins.forget(session_id)

    def forget_user(self, user_id: UUID) -> None:
        """What a user may do or see has changed, or whether they may do anything."""
        self._user_keys.forget_if(lambda known: known.principal.user_id == user_id)
        self._logins.forget_if(lambda principal: principal.user_id == user_id)

    async def refresh(self) -> None:
        """Read again what is in use. Raises ``Transient``."""
        await self._keys.refresh()
        await self._user_keys.refresh()
        await self._logins.refresh()

    async def _key(
        self, known_keys: Recent[bytes, _Known], request: web.Request | None, token: str
    ) -> Principal:
        known = await known_keys.get(digest_of(token))
        if known is None:
            raise Unauthenticated(_UNKNOWN_KEY)
        refusal = known.refusal(self._clock.now())
        if refusal is not None:
            if request is not None:
                self._saw_refused(request, known)
            raise Unauthenticated(refusal)
        self._uses.note(known.key_id)
        return known.principal

    def _saw_refused(self, request: web.Request, known: _Known) -> None:
        revoked = known.revoked
        self._auditing.saw(
            request,
            Security.REVOKED_KEY_USED if revoked else Security.EXPIRED_KEY_USED,
            "user_key" if known.principal.user_id else "instance_key",
            known.key_id,
            tenant_id=known.principal.tenant_id,
            actor=actor_of(known.principal),
            violation="revoked_key_used" if revoked else None,
        )

    async def _user(self, token: str) -> Principal:
        if token.count(".") != 2:
            # Neither a key nor a JWT: say what it lacks rather than that its signature is wrong.
            raise Unauthenticated(
                "This is neither an access token nor an API key (api_…, sk_…); copy it whole."
            )
        claims = self._tokens.read(token, now=self._clock.now())
        principal = await self._logins.get(claims.session_id)
        if principal is None or principal.user_id != claims.user_id:
            raise Unauthenticated(_LOGGED_OUT)
        return principal

    async def _read_keys(self, digests: Sequence[bytes]) -> dict[bytes, _Known]:
        found = await keys.shown(self._database, digests)
        return {
            digest: _Known(_of_key(shown), shown.id, shown.revoked, shown.expires_at)
            for digest, shown in found.items()
        }

    async def _read_user_keys(self, digests: Sequence[bytes]) -> dict[bytes, _Known]:
        found = await user_keys.shown(self._database, digests)
        return {
            digest: _Known(_of_user_key(shown), shown.id, shown.revoked, shown.expires_at)
            for digest, shown in found.items()
        }

    async def _read_logins(self, session_ids: Sequence[UUID]) -> dict[UUID, Principal]:
        async with self._database.tx() as tx:
            found = await accounts.people_of_families(tx, session_ids)
        return {session_id: _of_login(session_id, person) for session_id, person in found.items()}


@lru_cache(maxsize=1024)
def _granted(permissions: str) -> frozenset[str]:
    """What a permission map grants. Most keys have one of a few, so they share these sets."""
    return granted(KeyPermissions.model_validate_json(permissions))


def _of_key(shown: ShownKey) -> Principal:
    return Principal(
        kind=PrincipalKind.INSTANCE_KEY,
        tenant_id=shown.tenant_id,
        permissions=_granted(shown.permissions),
        limit_key=f"key:{shown.id}",
        instance_id=shown.instance_id,
        key_id=shown.id,
        rate_limit=shown.rate_limit,
        suspended=shown.suspended,
    )


def _of_user_key(shown: ShownUserKey) -> Principal:
    person = shown.person
    role = Role(person.role)
    return Principal(
        kind=PrincipalKind.USER_KEY,
        tenant_id=person.tenant_id,
        permissions=ROLES[role],
        limit_key=f"user_key:{shown.id}",
        user_id=person.user_id,
        role=role,
        assigned=person.assigned,
        key_id=shown.id,
        rate_limit=shown.rate_limit,
        suspended=person.suspended,
        masking=person.masking,
    )


def _of_login(session_id: UUID, person: Person) -> Principal:
    role = Role(person.role)
    return Principal(
        kind=PrincipalKind.USER,
        tenant_id=person.tenant_id,
        permissions=ROLES[role],
        limit_key=f"user:{person.user_id}",
        user_id=person.user_id,
        role=role,
        session_id=session_id,
        assigned=person.assigned,
        suspended=person.suspended,
        masking=person.masking,
    )


def shown_token(request: web.Request) -> str:
    """The credential in the headers; raises ``Unauthenticated`` if there is none."""
    headers = request.headers
    authorization = headers.get(AUTHORIZATION)
    if authorization is None:
        key = headers.get(X_API_KEY)
        if not key:
            raise Unauthenticated(_NOTHING_SHOWN)
        return key.strip()
    scheme, _, token = authorization.partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise Unauthenticated("The Authorization header is not `Bearer <token>`; send it so.")
    return token
