"""Checking passwords so that guessing does not pay: a few failures, then a long wait.

Failures count by account and address, by account alone, and by address alone. The first stops one
guesser, the second many addresses that guess together, the third one that tries a password on many
accounts. The last two must not let a stranger lock somebody out for ever, so they do not hold for
addresses from which the user has logged in within ninety days; these have their own few failures
all the same. E-mail addresses without an account are counted alike, or the answers
would tell which those are.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Final
from weakref import WeakValueDictionary

from aiohttp import web

from services.gateway.api.addresses import client_address, counted_as
from services.gateway.api.auditing import Auditing
from services.gateway.domain.auditing import Security
from services.gateway.domain.passwords import weakness
from services.gateway.store import accounts, lockouts
from services.gateway.store.accounts import User
from shared.clock import Clock
from shared.db.database import Database
from shared.errors import Throttled, Unauthenticated
from shared.log import get_logger
from shared.security.passwords import Passwords
from shared.web.body import invalid
from shared.web.limits import Allowance, Limit, RateLimiter

log = get_logger()

FAMILIAR_FOR: Final = timedelta(days=90)

_UNLOCK: Final = "ask an administrator of your organization to unlock you"
_MOVE: Final = "log in from another address"
_WRONG = "E-mail address or password is wrong; check both."


class PasswordChecks:
    """Even the right password waits past ``limit`` of one address and account, past
    ``account_limit`` of all addresses, and past ``address_limit`` for all accounts.
    """

    def __init__(
        self,
        *,
        database: Database,
        passwords: Passwords,
        limiter: RateLimiter,
        auditing: Auditing,
        limit: Limit,
        account_limit: Limit,
        address_limit: Limit,
        clock: Clock,
        trusted_proxies: int,
    ) -> None:
        self._database = database
        self._passwords = passwords
        self._limiter = limiter
        self._auditing = auditing
        self._limit = limit
        self._account_limit = account_limit
        self._address_limit = address_limit
        self._clock = clock
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
        address = self._address(request)
        account = await self._account(email, user)
        place = counted_as(address)
        key = f"{account}:{place}"
        so_far, way_out = await self._limiter.look(key, self._limit), _UNLOCK
        if so_far.allowed:
            wider, wider_way_out = await self._wider(account, place)
            if not wider.allowed and not await self._is_familiar(user, address):
                so_far, way_out = wider, wider_way_out
        if not so_far.allowed:
            log.warning("login_locked", address=address)
            self._saw(request, Security.LOGIN_LOCKED, user)
            minutes = int(so_far.reset_after.total_seconds() // 60) + 1
            raise Throttled(
                f"Too many failed logins; try again in {minutes} min, or {way_out}.",
                retry_after=so_far.reset_after,
            )
        verdict = await self._passwords.verify(password, user.password_hash if user else None)
        if user is None or not user.active or not verdict.correct:
            left = await self._limiter.hit(key, self._limit)
            left_of_all = await self._limiter.hit(account, self._account_limit)
            await self._limiter.hit(_everywhere_from(place), self._address_limit)
            log.warning("login_failed", address=address)
            self._saw(request, Security.LOGIN_FAILED, user)
            if not left.remaining or not left_of_all.remaining:
                self._saw(request, Security.LOGIN_LOCKED, user)
            raise Unauthenticated(_WRONG)
        if verdict.replacement is not None:
            async with self._database.tx() as tx:
                replaced = await accounts.set_password(
                    tx, user.id, verdict.replacement, instead_of=user.password_hash
                )
            if replaced:
                return replace(user, password_hash=verdict.replacement)
        return user

    async def _wider(self, account: str, place: str) -> tuple[Allowance, str]:
        """How it stands with all addresses of the account, or else all accounts of the address.

        And what else than waiting helps whoever is refused by that.
        """
        of_account = await self._limiter.look(account, self._account_limit)
        if not of_account.allowed:
            return of_account, _UNLOCK
        return await self._limiter.look(_everywhere_from(place), self._address_limit), _MOVE

    async def _account(self, email: str, user: User | None) -> str:
        """Under what an account's failures are counted; another name once it was unlocked."""
        if user is None:
            return f"login:{email}:0"
        async with self._database.tx() as tx:
            return f"login:{email}:{await lockouts.unlocks(tx, user.id)}"

    async def _is_familiar(self, user: User | None, address: str) -> bool:
        if user is None:
            return False
        async with self._database.tx() as tx:
            return await lockouts.is_familiar(
                tx,
                user.tenant_id,
                user.id,
                address=address,
                since=self._clock.now() - FAMILIAR_FOR,
            )

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
        return f"{counted_as(self._address(request))}:{email}"


def _everywhere_from(place: str) -> str:
    return f"login-from:{place}"


def require_good(password: str, *, field: str, email: str) -> None:
    """Raise unless a new password, of the length that is asked for, is also hard to guess."""
    wrong = weakness(password, email=email)
    if wrong is not None:
        raise invalid({field: wrong})
