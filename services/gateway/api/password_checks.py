"""Checking passwords so that guessing does not pay: a few failures, then a long wait."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from aiohttp import web

from services.gateway.api.addresses import client_address
from services.gateway.api.auditing import Auditing
from services.gateway.domain.auditing import Security
from services.gateway.store import accounts
from services.gateway.store.accounts import User
from shared.db.database import Database
from shared.errors import Throttled, Unauthenticated
from shared.log import get_logger
from shared.security.passwords import Passwords
from shared.web.limits import Limit, RateLimiter

log = get_logger()

_WRONG = "E-mail address or password is wrong; check both."


class PasswordChecks:
    """Counts failures by address and account; past ``limit`` even the right password must wait."""

    def __init__(
        self,
        *,
        database: Database,
        passwords: Passwords,
        limiter: RateLimiter,
        auditing: Auditing,
        limit: Limit,
        trusted_proxies: int,
    ) -> None:
        self._database = database
        self._passwords = passwords
        self._limiter = limiter
        self._auditing = auditing
        self._limit = limit
        self._trusted_proxies = trusted_proxies
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def turn(self, request: web.Request, email: str) -> AsyncIterator[None]:
        """One at a time for each address and account: guesses at once would all go uncounted."""
        key = self._key(request, email)
        lock = self._turns.get(key)
        if lock is None:
            lock = self._turns[key] = asyncio.Lock()
        async with lock:
            yield

    async def check(
        self, request: web.Request, email: str, *, password: str, user: User | None
    ) -> User:
        """The user, if the password is theirs; to be called within a ``turn``.

        Raises ``Unauthenticated`` if it is wrong, ``Throttled`` if there were too many failures.
        """
        key = self._key(request, email)
        so_far = await self._limiter.look(key, self._limit)
        if not so_far.allowed:
            log.warning("login_locked", address=self._address(request))
            self._saw(request, Security.LOGIN_LOCKED, user)
            minutes = int(so_far.reset_after.total_seconds() // 60) + 1
            raise Throttled(
                f"Too many failed logins; try again in {minutes} min.",
                retry_after=so_far.reset_after,
            )
        verdict = await self._passwords.verify(password, user.password_hash if user else None)
        if user is None or not user.active or not verdict.correct:
            left = await self._limiter.hit(key, self._limit)
            log.warning("login_failed", address=self._address(request))
            self._saw(request, Security.LOGIN_FAILED, user)
            if not left.remaining:
                self._saw(request, Security.LOGIN_LOCKED, user)
            raise Unauthenticated(_WRONG)
        if verdict.replacement is not None:
            async with self._database.tx() as tx:
                await accounts.set_password(tx, user.id, verdict.replacement)
        return user

    def _saw(self, request: web.Request, what: Security, user: User | None) -> None:
        """Note it for the organization whose user it is about; nothing is kept of what
        else was typed, which may be a password in the wrong field."""
        self._auditing.saw(
            request,
            what,
            "user",
            user.id if user else None,
            tenant_id=user.tenant_id if user else None,
            violation="login_locked" if what is Security.LOGIN_LOCKED else None,
        )

    def _address(self, request: web.Request) -> str:
        return client_address(request, trusted_proxies=self._trusted_proxies)

    def _key(self, request: web.Request, email: str) -> str:
        return f"login:{self._address(request)}:{email}"
