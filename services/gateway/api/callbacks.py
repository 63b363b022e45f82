"""Callbacks: what WhatsApp POSTs to us, checked and stored; the session service reads it later.

Whoever owns an instance has chosen the secret that speaks for it, so a signature proves something
to that instance and to no other. Each therefore gets what is about its own number, if it was signed
with its own secret.
"""

import hmac
from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Final, NoReturn

from aiohttp import web
from multidict import istr
from pydantic import JsonValue, SecretStr, TypeAdapter, ValidationError

from services.gateway.api.auditing import Auditing
from services.gateway.api.gate import Gate
from services.gateway.api.schemas.callbacks import CallbackQuery, CallbackTaken, WhatsAppCallback
from services.gateway.domain.auditing import Security
from services.gateway.metrics import GatewayMetrics
from services.gateway.store import callbacks
from services.gateway.store.callbacks import Claimant, NewCallback
from shared.broker.topology import shard_queue
from shared.clock import Clock
from shared.contracts.commands import TakeCallbacks
from shared.db.database import Database
from shared.errors import BadRequest, Forbidden
from shared.ids import new_id
from shared.log import get_logger
from shared.messaging import outbox
from shared.messaging.outbox import Relay
from shared.security.sealing import (
    KeyRing,
    Unsealable,
    lookup_digests,
    open_text,
    setting_place,
)
from shared.security.signatures import BadSignature, verify_hex
from shared.web.body import BodyLimits, read_json, read_query
from shared.web.envelope import respond

log = get_logger()

SIGNATURE: Final = istr("X-Hub-Signature-256")
APP_SECRET: Final = "appSecret"  # noqa: S105 - a name, no secret
# Of the changes that an app can subscribe to, those that messages and receipts come in.
_FIELD: Final = "messages"
# Before a callback is believed, whoever has sent it makes us look for what it names, and hash it
# for each secret that might have signed it. Meta puts at most a thousand changes into one, and
# those of one app have one secret.
MOST_NAMED: Final = 1000
MOST_HASHED: Final = 64 * 1024 * 1024
_STORED: Final = TypeAdapter(dict[str, list[dict[str, JsonValue]]])
# Whose organizations are told of one forged callback: it can name as many as fit into it.
_MOST_TOLD: Final = 5


class NotVerified(Forbidden):
    """Whoever asks has not shown what only WhatsApp knows."""

    code = "WEBHOOK_VERIFICATION_FAILED"


class Callbacks:
    """``/api/webhooks/whatsapp``."""

    def __init__(
        self,
        *,
        database: Database,
        ring: KeyRing,
        gate: Gate,
        auditing: Auditing,
        relay: Relay,
        limits: BodyLimits,
        verify_token: SecretStr | None,
        metrics: GatewayMetrics,
        clock: Clock,
    ) -> None:
        self._database = database
        self._ring = ring
        self._gate = gate
        self._auditing = auditing
        self._relay = relay
        self._limits = limits
        self._verify_token = None if verify_token is None else verify_token.get_secret_value()
        self._metrics = metrics
        self._clock = clock

    async def verify(self, request: web.Request) -> web.StreamResponse:
        """Answer Meta's challenge, if it knows a verify token."""
        query = read_query(request, CallbackQuery)
        if query.mode == "subscribe" and await self._knows(query.verify_token):
            headers = {"Cache-Control": "no-store"}
            return web.Response(text=query.challenge, content_type="text/plain", headers=headers)
        await self._gate.count_stranger(request)
        raise NotVerified("No instance has this verify token; set `verifyToken` of one to it.")

    async def receive(self, request: web.Request) -> web.StreamResponse:
        """Store what WhatsApp tells; it is answered when that is committed, and read later."""
        signature = request.headers.get(SIGNATURE)
        if signature is None:
            await self._refuse(request, ())
        raw = await read_json(request, self._limits)
        told = _read(raw)
        numbers, accounts = _named(told)
        async with self._database.hot() as connection:
            named = await callbacks.claimants(connection, numbers=numbers, accounts=accounts)
        proven = self._proven(named, raw, signature)
        if not proven:
            await self._refuse(request, named)
        stored = await self._store([new for one in proven if (new := _for(one, told)) is not None])
        return respond(CallbackTaken(stored=stored))

    async def _knows(self, token: str) -> bool:
        if not token:
            return False
        if self._verify_token is not None and hmac.compare_digest(
            token.encode("utf-8", "surrogatepass"), self._verify_token.encode()
        ):
            return True
        async with self._database.hot() as connection:
            return await callbacks.knows_token(connection, lookup_digests(self._ring, token))

    def _proven(self, named: Sequence[Claimant], raw: bytes, signature: str) -> list[Claimant]:
        """Those instances whose secret has signed a callback."""
        secrets = {one.id: secret for one in named if (secret := self._secret_of(one)) is not None}
        distinct = set(secrets.values())
        if len(distinct) * len(raw) > MOST_HASHED:
            raise _too_much()
        right = {secret for secret in distinct if _signed(raw, signature, secret)}
        return [one for one in named if secrets.get(one.id) in right]

    def _secret_of(self, claimant: Claimant) -> str | None:
        place = setting_place(claimant.tenant_id, claimant.id, APP_SECRET)
        try:
            return open_text(self._ring, claimant.app_secret, place)
        except Unsealable:
            log.exception("app_secret_not_readable", instance_id=str(claimant.id))
            return None

    async def _refuse(self, request: web.Request, named: Sequence[Claimant]) -> NoReturn:
        self._metrics.callbacks.labels("refused").inc()
        for claimant in named[:_MOST_TOLD]:
            self._auditing.saw(
                request,
                Security.CALLBACK_FORGED,
                "instance",
                claimant.id,
                tenant_id=claimant.tenant_id,
                violation="callback_forged",
            )
        if not named:
            self._auditing.saw(request, Security.CALLBACK_FORGED, "callback")
        await self._gate.count_stranger(request)
        raise NotVerified(
            "The signature is not by the app secret of an instance that has the number; check"
            " `phoneNumberId` and `appSecret` in its settings."
        )

    async def _store(self, new: Sequence[NewCallback]) -> int:
        """Commit what is new, and tell the owners of the instances' shards with it."""
        if not new:
            self._metrics.callbacks.labels("ignored").inc()
            return 0
        now = self._clock.now()
        shards = {one.instance_id: one.shard for one in new}
        async with self._database.hot_tx() as connection:
            fresh = await callbacks.add(connection, new, ring=self._ring, now=now)
            rows = [
                outbox.command(TakeCallbacks(shard=shard), to=shard_queue(shard))
                for shard in sorted({shards[instance_id] for instance_id in fresh})
            ]
            told = await outbox.add_hot(connection, "gateway", rows, now=now)
        self._relay.wake(told)
        self._metrics.callbacks.labels("stored").inc(len(fresh))
        self._metrics.callbacks.labels("doubled").inc(len(new) - len(fresh))
        return len(fresh)


def _read(raw: bytes) -> WhatsAppCallback:
    try:
        return WhatsAppCallback.model_validate_json(raw)
    except ValidationError:
        raise BadRequest("The body is not what WhatsApp POSTs: see Meta's documentation.") from None


def _signed(raw: bytes, signature: str, secret: str) -> bool:
    try:
        verify_hex(raw, signature=signature, secret=secret)
    except BadSignature:
        return False
    return True


def _too_much() -> BadRequest:
    return BadRequest("The body names more than WhatsApp tells of at once.")


def _named(told: WhatsAppCallback) -> tuple[set[str], set[str]]:
    """The numbers that a callback is about, and the accounts where it is about no number."""
    numbers, accounts = set(), set()
    for entry in told.entry:
        for change in entry.changes:
            if change.phone_number_id is not None:
                numbers.add(change.phone_number_id)
            elif "\x00" not in entry.id:
                accounts.add(entry.id)
    if len(numbers) + len(accounts) > MOST_NAMED:
        raise _too_much()
    return numbers, accounts


def _for(claimant: Claimant, told: WhatsAppCallback) -> NewCallback | None:
    """What a callback tells an instance, if that is anything."""
    values = list(_values(claimant, told))
    if not values:
        return None
    # Not orjson: it knows no whole numbers of more than 64 bits, and Meta need not know that.
    body = _STORED.dump_json({"values": values})
    return NewCallback(
        id=new_id(),
        tenant_id=claimant.tenant_id,
        instance_id=claimant.id,
        shard=claimant.shard,
        digest=sha256(body).digest(),
        body=body,
    )


def _values(claimant: Claimant, told: WhatsAppCallback) -> Iterable[dict[str, JsonValue]]:
    for entry in told.entry:
        for change in entry.changes:
            if change.field == _FIELD and change.phone_number_id == claimant.phone_number_id:
                yield change.value
