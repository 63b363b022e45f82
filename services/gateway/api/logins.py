"""Making logins: an access token that needs no query, and a refresh token that works once."""

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from services.gateway.api.schemas.accounts import Login, UserView
from services.gateway.store import accounts
from services.gateway.store.accounts import RefreshToken, User
from shared.clock import Clock
from shared.ids import new_id
from shared.security.tokens import AccessTokens, KeyKind, issue_key


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a caller needs to stay logged in."""

    access: str
    refresh: str
    expires_in: int


class Logins:
    """Issues the tokens of a login; all refresh tokens of one login are a family."""

    def __init__(self, *, tokens: AccessTokens, refresh_lifetime: timedelta, clock: Clock) -> None:
        self._tokens = tokens
        self._refresh_lifetime = refresh_lifetime
        self._clock = clock

    async def issue(self, tx: AsyncConnection, user: User, *, family: UUID | None = None) -> Tokens:
        """Tokens for a new login, or the next ones of ``family``."""
        now = self._clock.now()
        family_id = family or new_id()
        made = issue_key(KeyKind.REFRESH)
        await accounts.add_refresh_token(
            tx,
            RefreshToken(
                id=new_id(),
                family_id=family_id,
                user_id=user.id,
                expires_at=now + self._refresh_lifetime,
                spent_at=None,
                revoked_at=None,
            ),
            digest=made.digest,
            now=now,
        )
        access = self._tokens.issue(
            user_id=user.id,
            organization_id=user.tenant_id,
            role=user.role,
            session_id=family_id,
            now=now,
        )
        return Tokens(access, made.text, int(self._tokens.lifetime.total_seconds()))


def login_of(tokens: Tokens, user: User) -> Login:
    """A login as it is answered."""
    return Login(
        token=tokens.access,
        refresh_token=tokens.refresh,
        expires_in=tokens.expires_in,
        user=UserView.of(user),
    )
