"""Passwords: argon2id, off the event loop, and as slow for a stranger as for a user."""

import asyncio
import unicodedata
from dataclasses import dataclass

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the password was right, and the hash to store instead if the old one is outdated."""

    correct: bool
    replacement: str | None = None


class Passwords:
    """Hashes and checks passwords.

    The defaults are the second recommendation of RFC 9106: 64 MiB and a tenth of a second each.
    That is what makes guessing dear, and what makes ``at_once`` necessary: without a bound, a
    burst of logins would take all memory. Those over it wait for their turn.
    """

    def __init__(
        self,
        *,
        time_cost: int = 3,
        memory_kib: int = 64 * 1024,
        parallelism: int = 4,
        at_once: int = 4,
    ) -> None:
        self._hasher = PasswordHasher(
            time_cost=time_cost, memory_cost=memory_kib, parallelism=parallelism
        )
        self._turn = asyncio.Semaphore(at_once)
        # Checked in the place of a user who does not exist, so that how long the answer takes
        # does not tell which addresses have an account.
        self._nobody = self._hasher.hash("nobody has this password")

    async def hash(self, password: str) -> str:
        """The hash to store, with its salt and parameters inside."""
        async with self._turn:
            return await asyncio.to_thread(self._hasher.hash, _canonical(password))

    async def verify(self, password: str, stored: str | None) -> Verdict:
        """Check ``password`` against the stored hash, or against nobody's if there is none.

        Never raises for a wrong password or a hash that cannot be read: both are simply not
        correct, after the same work.
        """
        async with self._turn:
            return await asyncio.to_thread(self._verify, _canonical(password), stored)

    def _verify(self, password: str, stored: str | None) -> Verdict:
        try:
            self._hasher.verify(stored if stored is not None else self._nobody, password)
        except InvalidHashError:
            return self._verify(password, None)
        except Argon2Error:
            return Verdict(correct=False)
        if stored is None:
            return Verdict(correct=False)
        if self._hasher.check_needs_rehash(stored):
            return Verdict(correct=True, replacement=self._hasher.hash(password))
        return Verdict(correct=True)


def _canonical(password: str) -> str:
    """One form for what looks the same: keyboards differ in how they compose ``é``."""
    return unicodedata.normalize("NFKC", password)
