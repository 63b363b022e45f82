"""Idempotency: the same key with the same body gets the first answer, for a day."""

import hashlib
import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from aiohttp import web
from multidict import istr
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncConnection

from services.gateway.domain.principal import Principal
from services.gateway.store import idempotency
from services.gateway.store.idempotency import FirstAnswer
from shared.clock import Clock
from shared.db.database import Database
from shared.errors import BadRequest, Conflict, Rejected, Transient
from shared.log import get_logger
from shared.security.sealing import NOBODY, KeyRing, Place, Unsealable
from shared.web.envelope import json_response, succeeded

log = get_logger()

IDEMPOTENCY_KEY: Final = istr("Idempotency-Key")
REPLAYED: Final = {"Idempotency-Replayed": "true"}

_LONGEST: Final = 255

Work = Callable[[AsyncConnection], Awaitable[object]]


class IdempotencyMismatch(Rejected):
    """The key was used before, for something else."""

    code = "IDEMPOTENCY_MISMATCH"


@dataclass(frozen=True, slots=True)
class KeyedRequest:
    """A request with an ``Idempotency-Key``, which opens the stored answer and is not stored."""

    tenant_id: UUID
    key: str
    key_hash: bytes
    fingerprint: bytes


def keyed(
    request: web.Request, body: BaseModel, principal: Principal | None = None
) -> KeyedRequest | None:
    """What the request's key stands for; ``None`` if it has none.

    Only the same caller shares a key with itself: what was answered may hold a secret of theirs.
    """
    key = request.headers.get(IDEMPOTENCY_KEY)
    if key is None:
        return None
    if not 0 < len(key) <= _LONGEST or not key.isprintable() or not key.isascii():
        raise BadRequest(
            f"The Idempotency-Key must be 1 to {_LONGEST} printable ASCII characters; send a UUID."
        )
    tenant = NOBODY if principal is None else principal.tenant_id
    instance = None if principal is None else principal.instance_id
    user = None if principal is None else principal.user_id
    # What was sent, without defaults: a field that is added later must not make old keys mismatch.
    sent = body.model_dump_json(by_alias=True, exclude_unset=True)
    said = f"{request.method} {request.path}\n{sent}"
    return KeyedRequest(
        tenant_id=tenant,
        key=key,
        key_hash=hashlib.sha256(f"{tenant}\n{instance}\n{user}\n{key}".encode()).digest(),
        # Under the key, which is not stored: what is said may hold a password, and a bare hash of
        # that could be tried out.
        fingerprint=hmac.digest(key.encode(), said.encode(), "sha256"),
    )


def in_progress() -> Conflict:
    """Somebody else is doing the same at this moment."""
    return Conflict("A request with this Idempotency-Key is in progress; wait for its answer.")


class Once:
    """Does what a request asks once, however often it is sent under one key.

    The work, its outbox rows and the stored answer are one transaction: none is there without the
    others. What fails is not stored, so it may be tried again under the same key.
    """

    def __init__(self, *, database: Database, ring: KeyRing, clock: Clock) -> None:
        self._database = database
        self._ring = ring
        self._clock = clock
        self._elsewhere: set[tuple[UUID, bytes]] = set()

    async def run(
        self,
        request: web.Request,
        body: BaseModel,
        work: Work,
        *,
        principal: Principal | None = None,
        status: int = 201,
    ) -> web.Response:
        """The answer to ``request``: from ``work``, or the first one again."""
        named = keyed(request, body, principal)
        async with self._database.tx() as tx:
            if named is None:
                return json_response(succeeded(await work(tx)), status=status)
            if not await idempotency.lock(tx, named.key_hash):
                raise in_progress()
            now = self._clock.now()
            first = await idempotency.find(tx, named.tenant_id, named.key_hash, now=now)
            if first is not None:
                return self.replay(named, first)
            answer = succeeded(await work(tx))
            kept = FirstAnswer(named.fingerprint, status, self.seal(named, answer))
            if not await idempotency.keep(tx, named.tenant_id, named.key_hash, kept, now=now):
                raise in_progress()
        return json_response(answer, status=status)

    async def run_elsewhere(
        self,
        request: web.Request,
        body: BaseModel,
        work: Callable[[], Awaitable[object]],
        *,
        principal: Principal,
        status: int = 201,
    ) -> web.Response:
        """The same for work that is not done in our database, and may take long.

        Should this process die after the work and before its answer is kept, a repeat does it
        again; and so may two replicas that are asked at the same moment.
        """
        named = keyed(request, body, principal)
        if named is None:
            return json_response(succeeded(await work()), status=status)
        busy = (named.tenant_id, named.key_hash)
        if busy in self._elsewhere:
            raise in_progress()
        self._elsewhere.add(busy)
        try:
            first = await self.earlier_answer(named)
            if first is not None:
                return first
            answer = succeeded(await work())
            kept = FirstAnswer(named.fingerprint, status, self.seal(named, answer))
            await self._keep_done(named, kept)
        finally:
            self._elsewhere.discard(busy)
        return json_response(answer, status=status)

    async def _keep_done(self, named: KeyedRequest, kept: FirstAnswer) -> None:
        try:
            async with self._database.tx() as tx:
                now = self._clock.now()
                await idempotency.keep(tx, named.tenant_id, named.key_hash, kept, now=now)
        except Transient as error:
            # What is done is done, and whoever asked should know.
            log.warning("answer_not_kept", reason=error.message)

    async def earlier_answer(self, named: KeyedRequest) -> web.Response | None:
        """The first answer again, if there is one."""
        async with self._database.tx() as tx:
            first = await idempotency.find(
                tx, named.tenant_id, named.key_hash, now=self._clock.now()
            )
        return None if first is None else self.replay(named, first)

    async def first_answer(self, named: KeyedRequest) -> web.Response:
        """The first answer again, to a request whose key was found to be in use."""
        answer = await self.earlier_answer(named)
        if answer is None:
            raise in_progress()
        return answer

    def seal(self, named: KeyedRequest, answer: bytes) -> bytes:
        """An answer as it is stored."""
        return self._bound(named).seal(answer, _place(named))

    def replay(self, named: KeyedRequest, first: FirstAnswer) -> web.Response:
        """The first answer again; raises ``IdempotencyMismatch`` if something else was asked."""
        if not hmac.compare_digest(named.fingerprint, first.fingerprint):
            raise IdempotencyMismatch(
                "This Idempotency-Key was used with another body; use a new key for a new request."
            )
        try:
            answer = self._bound(named).open(first.response, _place(named))
        except Unsealable:
            raise Conflict(
                "This was done before, and its answer can no longer be read; look for its result."
            ) from None
        return json_response(answer, status=first.status, headers=REPLAYED)

    def _bound(self, named: KeyedRequest) -> KeyRing:
        """An answer may hold a key that is shown once: it opens for whoever asks the same again."""
        return self._ring.bound_to(named.key, named.fingerprint)


def _place(named: KeyedRequest) -> Place:
    return Place(named.tenant_id, "gateway.idempotency_keys", named.key_hash.hex())
