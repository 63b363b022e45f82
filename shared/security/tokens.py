"""What callers show to say who they are: access tokens, refresh tokens and API keys.

Access tokens are read without a database, so they live for minutes. The others are random strings
of which only the SHA-256 is stored: they have 256 bits of chance in them, so a slow hash would
protect nothing and cost every request.
"""

import hashlib
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from uuid import UUID

import jwt

from shared.errors import Unauthenticated

_ALGORITHM = "HS256"
_SHORTEST_SECRET = 32
_TOKENS_KEPT = 4096
_RANDOM_BYTES = 32
_HINT_CHARACTERS = 4
_SHAPE = re.compile(r"(api_|sk_|rt_|inv_)[A-Za-z0-9_-]{43}")
_REQUIRED = ["exp", "iat", "iss", "aud", "sub", "org", "role", "sid"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessClaims:
    """What an access token says. ``session_id`` names the login, that is the refresh family."""

    user_id: UUID
    organization_id: UUID
    role: str
    session_id: UUID
    expires_at: datetime


class AccessTokens:
    """Issues and reads access tokens, JWTs that are signed with HS256.

    ``secrets`` newest first: the first signs, all are accepted, so that a secret can be changed
    without logging everybody out.
    """

    def __init__(
        self,
        *,
        secrets: Sequence[str],
        lifetime: timedelta = timedelta(minutes=15),
        issuer: str = "waypost",
        audience: str = "waypost-api",
    ) -> None:
        self._keys = [secret.encode() for secret in secrets]
        if not self._keys or any(len(key) < _SHORTEST_SECRET for key in self._keys):
            raise ValueError(f"a token secret has at least {_SHORTEST_SECRET} bytes")
        self.lifetime = lifetime
        self._issuer = issuer
        self._audience = audience
        # A token says the same every time, and reading it costs more than a whole bare request.
        # Only good ones are kept, and whether it has expired is asked anew each time.
        self._known = lru_cache(maxsize=_TOKENS_KEPT)(self._parsed)

    def issue(
        self,
        *,
        user_id: UUID,
        organization_id: UUID,
        role: str,
        session_id: UUID,
        now: datetime,
    ) -> str:
        """A token that is good from ``now`` for the configured lifetime."""
        issued = int(now.timestamp())
        claims = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": str(user_id),
            "org": str(organization_id),
            "role": role,
            "sid": str(session_id),
            "iat": issued,
            "exp": issued + int(self.lifetime.total_seconds()),
        }
        return jwt.encode(claims, self._keys[0], algorithm=_ALGORITHM)

    def read(self, token: str, *, now: datetime) -> AccessClaims:
        """What ``token`` says; raises ``Unauthenticated`` if it is not ours or no longer good."""
        claims = self._known(token)
        if claims.expires_at <= now:
            raise Unauthenticated("The access token has expired; refresh it, then try again.")
        return claims

    def _parsed(self, token: str) -> AccessClaims:
        claims = self._verified(token)
        try:
            return AccessClaims(
                user_id=UUID(claims["sub"]),
                organization_id=UUID(claims["org"]),
                role=str(claims["role"]),
                session_id=UUID(claims["sid"]),
                expires_at=datetime.fromtimestamp(int(claims["exp"]), UTC),
            )
        except (TypeError, ValueError, AttributeError, OverflowError, OSError):
            raise _refused() from None

    def _verified(self, token: str) -> dict[str, str]:
        for key in self._keys:
            try:
                # pyjwt would compare times with the machine's clock: ``read`` does it with ours.
                claims: dict[str, str] = jwt.decode(
                    token,
                    key,
                    algorithms=[_ALGORITHM],
                    audience=self._audience,
                    issuer=self._issuer,
                    options={
                        "require": _REQUIRED,
                        "verify_exp": False,
                        "verify_iat": False,
                        "verify_nbf": False,
                    },
                )
            except jwt.InvalidSignatureError:
                continue
            except jwt.PyJWTError:
                break
            return claims
        raise _refused()


class KeyKind(StrEnum):
    """What an opaque token is; the value is how it starts."""

    INSTANCE = "api_"
    USER = "sk_"
    REFRESH = "rt_"
    INVITATION = "inv_"


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """A token that was just made. ``text`` is shown once; ``digest`` and ``hint`` are stored."""

    text: str = field(repr=False)
    digest: bytes
    hint: str


def issue_key(kind: KeyKind) -> IssuedKey:
    """A new random token of this kind."""
    text = kind.value + secrets.token_urlsafe(_RANDOM_BYTES)
    return IssuedKey(text=text, digest=digest_of(text), hint=hint_of(text))


def kind_of(token: str) -> KeyKind | None:
    """What kind of opaque token this looks like, if any: junk need not reach the database."""
    match = _SHAPE.fullmatch(token)
    return KeyKind(match.group(1)) if match else None


def digest_of(token: str) -> bytes:
    """What is stored and looked up in the place of the token: its SHA-256, 32 bytes."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def hint_of(token: str) -> str:
    """Enough of a token for its owner to know it by, far too little to use: ``api_…x7Qa``."""
    kind = kind_of(token)
    return f"{kind.value if kind else ''}…{token[-_HINT_CHARACTERS:]}"


def _refused() -> Unauthenticated:
    return Unauthenticated("The access token is not valid; log in to get a new one.")
