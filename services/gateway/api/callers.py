"""Who is calling: from what a request shows to a ``Principal``, without a query in most cases."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

from aiohttp import web
from multidict import istr

from services.gateway.domain.permissions import ROLES, KeyPermissions, Role, granted
from services.gateway.domain.principal import Principal, PrincipalKind
from services.gateway.store import accounts, keys
from services.gateway.store.keys import KeyUses, ShownKey
from services.gateway.store.recent import Recent
from shared.clock import Clock
from shared.db.database import Database
from shared.errors import Unauthenticated
from shared.security.tokens import AccessTokens, KeyKind, digest_of, kind_of

AUTHORIZATION: Final = istr("Authorization")
X_API_KEY: Final = istr("X-API-Key")
X_FORWARDED_FOR: Final = istr("X-Forwarded-For")

# How old what is known of a credential may be: a revoked one works no longer than this elsewhere.
REMEMBERED: Final = timedelta(seconds=1)

_NOTHING_SHOWN: Final = "No credential; send `Authorization: Bearer <token>` or `X-API-Key: <key>`."
_UNKNOWN_KEY: Final = "This API key is not known; check that it was copied whole."
_REVOKED: Final = "This API key was revoked; use another one, or have one made."
_EXPIRED: Final = "This API key has expired; make a new one for the instance."
_LOGGED_OUT: Final = "This login has ended; log in again."


@dataclass(frozen=True, slots=True)
class _Known:
    """A key: for whom it stands, or why it is refused."""

    principal: Principal
    key_id: UUID
    refusal: str | None


class Callers:
    """Tells who is calling. ``forget_*`` make a change count at once, in this process."""

    def __init__(
        self, *, database: Database, tokens: AccessTokens, uses: KeyUses, clock: Clock
    ) -> None:
        self._database = database
        self._tokens = tokens
        self._uses = uses
        self._clock = clock
        self._keys: Recent[bytes, _Known] = Recent(self._read_key, clock=clock, ttl=REMEMBERED)
        self._logins: Recent[UUID, Principal] = Recent(
            self._read_login, clock=clock, ttl=REMEMBERED
        )

    async def caller(self, request: web.Request) -> Principal:
        """Who is calling; raises ``Unauthenticated``, saying what to do about it."""
        token = _token(request)
        match kind_of(token):
            case KeyKind.INSTANCE:
                return await self._key(token)
            case KeyKind.USER:
                raise Unauthenticated(_UNKNOWN_KEY)
            case KeyKind.REFRESH:
                raise Unauthenticated(
                    "This is a refresh token; exchange it at POST /api/auth/refresh first."
                )
            case None:
                return await self._user(token)

    async def instance_key(self, key: str) -> Principal | None:
        """Whom an instance key stands for, if it is one and nothing is amiss with it."""
        digest = digest_of(key)
        known = self._keys.fresh(digest)
        if known is None and kind_of(key) is KeyKind.INSTANCE:
            known = await self._keys.get(digest)
        if known is None or known.refusal is not None:
            return None
        self._uses.note(known.key_id)
        return known.principal

    def forget_key(self, digest: bytes) -> None:
        """A key has changed."""
        self._keys.forget(digest)

    def forget_login(self, session_id: UUID) -> None:
        """A login has ended, or its user has changed."""
        self._logins.forget(session_id)

    async def _key(self, token: str) -> Principal:
        known = await self._keys.get(digest_of(token))
        if known is None:
            raise Unauthenticated(_UNKNOWN_KEY)
        if known.refusal is not None:
            raise Unauthenticated(known.refusal)
        self._uses.note(known.key_id)
        return known.principal

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

    async def _read_key(self, digest: bytes) -> _Known | None:
        shown = await keys.shown(self._database, digest)
        if shown is None:
            return None
        refusal = _REVOKED if shown.revoked else None
        if shown.expires_at is not None and shown.expires_at <= self._clock.now():
            refusal = _EXPIRED
        return _Known(_of_key(shown), shown.id, refusal)

    async def _read_login(self, session_id: UUID) -> Principal | None:
        async with self._database.tx() as tx:
            user = await accounts.login_of_family(tx, session_id)
        if user is None:
            return None
        role = Role(user.role)
        return Principal(
            kind=PrincipalKind.USER,
            tenant_id=user.tenant_id,
            permissions=ROLES[role],
            limit_key=f"user:{user.id}",
            user_id=user.id,
            role=role,
            session_id=session_id,
        )


def client_address(request: web.Request, *, trusted_proxies: int) -> str:
    """Where the request came from: what the outermost of our own proxies saw.

    What stands further left in ``X-Forwarded-For`` was written by whoever sent it.
    """
    if trusted_proxies:
        forwarded = ",".join(request.headers.getall(X_FORWARDED_FOR, ())).split(",")
        if len(forwarded) >= trusted_proxies and forwarded[-trusted_proxies].strip():
            return forwarded[-trusted_proxies].strip()
    return request.remote or "unknown"


def _of_key(shown: ShownKey) -> Principal:
    return Principal(
        kind=PrincipalKind.INSTANCE_KEY,
        tenant_id=shown.tenant_id,
        permissions=granted(KeyPermissions.model_validate(shown.permissions)),
        limit_key=f"key:{shown.id}",
        instance_id=shown.instance_id,
        key_id=shown.id,
        rate_limit=shown.rate_limit,
    )


def _token(request: web.Request) -> str:
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
