"""Accepting messages. A 202 says that the message is committed."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import orjson
from aiohttp import web
from pydantic import BaseModel

from services.gateway.api.content import Contents, Said, Say
from services.gateway.api.gate import PRINCIPAL
from services.gateway.api.lookup import Senders
from services.gateway.api.once import KeyedRequest, Once, in_progress, keyed
from services.gateway.api.quotas import Quotas
from services.gateway.api.schemas.outbound import (
    PRIORITIES,
    ByInstance,
    NewContact,
    NewLocation,
    NewPoll,
    NewReaction,
    NewText,
    SendOptions,
    Sent,
)
from services.gateway.domain.capabilities import needed, require
from services.gateway.domain.engines import capabilities
from services.gateway.domain.masking import masked, sight_of
from services.gateway.domain.principal import Principal
from services.gateway.domain.readiness import not_ready, takes_messages
from services.gateway.metrics import GatewayMetrics
from services.gateway.store import acceptance
from services.gateway.store.acceptance import Keyed, NewMessage, Options
from services.gateway.store.instances import Sender
from shared.clock import Clock
from shared.db.database import Database
from shared.db.group_commit import GroupCommit
from shared.errors import Rejected
from shared.ids import new_id
from shared.security.sealing import KeyRing
from shared.web.body import BodyLimits, invalid, read_model
from shared.web.edge import REQUEST_ID
from shared.web.envelope import json_response

# Most a commit takes: below that, a batch grows with the load by itself.
MAX_BATCH: Final = 500
# Above that, a commit leaves half of those who wait to the next: below, it costs more than it
# helps.
OVERLAP: Final = 32

# What is answered with the message that it changes.
CHANGES: Final = frozenset({"edit", "revoke"})


class Acceptance:
    """Commits messages in groups and tells ``tell`` which instances have something to send."""

    def __init__(
        self,
        *,
        database: Database,
        quotas: Quotas,
        ring: KeyRing,
        tell: Callable[[UUID], None],
        metrics: GatewayMetrics,
    ) -> None:
        self._database = database
        self._quotas = quotas
        self._ring = ring
        self._tell = tell
        self._metrics = metrics
        self.commits: GroupCommit[NewMessage, bool] = GroupCommit(
            self._flush, name="messages", max_batch=MAX_BATCH, overlap=OVERLAP
        )

    def accept(self, message: NewMessage) -> Awaitable[bool]:
        """Return once it is committed; false if its key was in use, and nothing was stored.

        It may be committed even if whoever waits gives up, and the dispatcher is told then too.
        """
        accepted = self.commits.put(message)
        if message.month is not None:
            accepted.add_done_callback(self._quotas.begin(message))
        return accepted

    async def _flush(self, batch: Sequence[NewMessage]) -> list[bool]:
        async with self._database.hot() as connection:
            accepted, used = await acceptance.accept(connection, batch, ring=self._ring)
        if used:
            self._quotas.committed(batch, used)
        for origin in {id(message.origin): message.origin for message in batch}.values():
            self._tell(origin.instance_id)
        self._metrics.acceptance_batch.observe(len(batch))
        self._metrics.accepted.inc(sum(accepted))
        return accepted


class Sending:
    """The routes that accept messages, for every kind of caller and request."""

    def __init__(
        self,
        *,
        acceptance: Acceptance,
        quotas: Quotas,
        senders: Senders,
        contents: Contents,
        once: Once,
        limits: BodyLimits,
        clock: Clock,
    ) -> None:
        self._acceptance = acceptance
        self._quotas = quotas
        self._senders = senders
        self._contents = contents
        self._once = once
        self._limits = limits
        self._now = clock.now
        self._in_flight: set[tuple[UUID, bytes]] = set()

    async def text(self, request: web.Request) -> web.StreamResponse:
        body = await read_model(request, NewText, self._limits)
        return await self.send(
            request, body, lambda by: self._contents.text(by, body, body.message)
        )

    async def location(self, request: web.Request) -> web.StreamResponse:
        body = await read_model(request, NewLocation, self._limits)
        return await self.send(request, body, lambda _: self._contents.location(body))

    async def contact(self, request: web.Request) -> web.StreamResponse:
        body = await read_model(request, NewContact, self._limits)
        return await self.send(request, body, lambda _: self._contents.contact(body))

    async def poll(self, request: web.Request) -> web.StreamResponse:
        body = await read_model(request, NewPoll, self._limits)
        return await self.send(request, body, lambda _: self._contents.poll(body))

    async def reaction(self, request: web.Request) -> web.StreamResponse:
        body = await read_model(request, NewReaction, self._limits)
        guessing = sight_of(request[PRINCIPAL]).masked
        return await self.send(
            request, body, lambda by: self._contents.reaction(by, body, guessing=guessing)
        )

    async def send(
        self, request: web.Request, body: Sent, say: Say, *, said: BaseModel | None = None
    ) -> web.StreamResponse:
        """Answer once what is said is committed, or as the first time if it was accepted before.

        By the instance that ``body`` names.
        """
        principal = request[PRINCIPAL]
        sender = await self.sender(principal, body)
        return await self.say(request, principal, sender, body, say, said=said)

    async def sender(self, principal: Principal, body: ByInstance) -> Sender:
        """The instance that sends; raises about the field that names a wrong one."""
        named = body.instance_id or body.session_id
        if body.session_id is not None and named != body.session_id:
            raise invalid({"sessionId": "names another instance than instanceId; send one of them"})
        return await self._senders.sender(principal, named)

    async def say(
        self,
        request: web.Request,
        principal: Principal,
        sender: Sender,
        options: SendOptions,
        say: Say,
        *,
        said: BaseModel | None = None,
    ) -> web.StreamResponse:
        """Answer once what ``say`` makes is committed as a message of ``sender``'s.

        ``said`` is the request's body, by which a repeat is recognised; usually the options too.
        """
        named = keyed(request, options if said is None else said, principal)
        if named is None:
            return await self._say(request, sender, options, say)
        in_flight = (named.tenant_id, named.key_hash)
        if in_flight in self._in_flight:
            raise in_progress()
        self._in_flight.add(in_flight)
        try:
            return await self._say(request, sender, options, say, named)
        finally:
            self._in_flight.discard(in_flight)

    async def _say(
        self,
        request: web.Request,
        sender: Sender,
        options: SendOptions,
        say: Say,
        named: KeyedRequest | None = None,
    ) -> web.StreamResponse:
        try:
            said = await _said(sender, say)
            month = await self._quotas.month(sender, said.type)
        except Rejected:
            # The first answer to the same request stands, whatever has become of things since.
            if named is not None and (first := await self._once.earlier_answer(named)) is not None:
                return first
            raise
        now = self._now()
        message_id = str(new_id())
        about = said.target_id if said.type in CHANGES else None
        to = said.to.shown
        # Not their own word, but that of the message which they change or react to.
        if said.target_id is not None and sight_of(request[PRINCIPAL]).masked:
            to = masked(to)
        body_of_answer = answer(message_id, sender, to, now, about=about).encode()
        metadata = None if options.metadata is None else orjson.dumps(options.metadata).decode()
        message = NewMessage(
            id=message_id,
            origin=sender.origin,
            chat=said.to.chat,
            content=said.json,
            request_id=request[REQUEST_ID],
            created_at=now,
            type=said.type,
            options=Options(
                metadata,
                PRIORITIES[options.priority],
                options.on_unknown,
                said.target_id,
                said.expires_at,
                said.media_id,
            ),
            keyed=None
            if named is None
            else Keyed(named.key_hash, named.fingerprint, self._once.seal(named, body_of_answer)),
            month=month,
        )
        if not await self._acceptance.accept(message):
            assert named is not None  # noqa: S101 - only a key can be in use
            return await self._once.first_answer(named)
        return json_response(body_of_answer, status=202)


async def _said(sender: Sender, say: Say) -> Said:
    """What is to be sent, if the instance and its engine can."""
    if not takes_messages(sender.status, connected=sender.connected):
        raise not_ready(sender.status)
    said = await say(sender)
    able = capabilities(sender.engine)
    for capability in needed(said.type, chat=said.to.chat):
        require(sender.engine, able, capability)
    return said


def answer(
    message_id: str, sender: Sender, to: str, now: datetime, *, about: UUID | None = None
) -> str:
    """The body of a 202. Nothing in it needs escaping: ids, an address, a time in UTC."""
    # orjson takes a sixth of the time of isoformat(), and leaves out a fraction that is nought.
    at = orjson.dumps(now if now.microsecond else now.replace(microsecond=1))[1:24].decode()
    target = "" if about is None else f',"targetId":"{about}"'
    return (
        f'{{"success":true,"data":{{"id":"{message_id}","status":"queued",'
        f'"instanceId":"{sender.text}","to":"{to}","createdAt":"{at}Z"{target}}}}}'
    )
