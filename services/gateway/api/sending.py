"""Accepting messages. A 202 says that the message is committed."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import orjson
from aiohttp import web

from services.gateway.api import references
from services.gateway.api.gate import PRINCIPAL
from services.gateway.api.lookup import Senders
from services.gateway.api.once import KeyedRequest, Once, in_progress, keyed
from services.gateway.api.schemas.messages import PRIORITIES, NewText
from services.gateway.domain.principal import Principal
from services.gateway.domain.readiness import not_ready, takes_messages
from services.gateway.metrics import GatewayMetrics
from services.gateway.store import acceptance
from services.gateway.store.acceptance import Keyed, NewMessage, Options
from services.gateway.store.instances import Sender
from shared.clock import Clock
from shared.contracts.content import Text
from shared.db.database import Database
from shared.db.group_commit import GroupCommit
from shared.ids import new_id
from shared.web.body import BodyLimits, invalid, read_model
from shared.web.edge import REQUEST_ID
from shared.web.envelope import json_response

# Most a commit takes: below that, a batch grows with the load by itself.
MAX_BATCH: Final = 500


class Acceptance:
    """Commits messages in groups and tells ``tell`` which instances have something to send."""

    def __init__(
        self, *, database: Database, tell: Callable[[UUID], None], metrics: GatewayMetrics
    ) -> None:
        self._database = database
        self._tell = tell
        self._metrics = metrics
        self.commits: GroupCommit[NewMessage, bool] = GroupCommit(
            self._flush, name="messages", max_batch=MAX_BATCH
        )

    def accept(self, message: NewMessage) -> Awaitable[bool]:
        """Return once it is committed; false if its key was in use, and nothing was stored.

        It may be committed even if whoever waits gives up, and the dispatcher is told then too.
        """
        return self.commits.put(message)

    async def _flush(self, batch: Sequence[NewMessage]) -> list[bool]:
        async with self._database.hot() as connection:
            accepted = await acceptance.accept(connection, batch)
        for instance_id in {message.origin.instance_id for message in batch}:
            self._tell(instance_id)
        self._metrics.acceptance_batch.observe(len(batch))
        self._metrics.accepted.inc(sum(accepted))
        return accepted


class Sending:
    """The routes that accept messages, for every kind of caller and request."""

    def __init__(
        self,
        *,
        acceptance: Acceptance,
        senders: Senders,
        database: Database,
        once: Once,
        limits: BodyLimits,
        clock: Clock,
    ) -> None:
        self._acceptance = acceptance
        self._senders = senders
        self._database = database
        self._once = once
        self._limits = limits
        self._now = clock.now
        self._in_flight: set[tuple[UUID, bytes]] = set()

    async def text(self, request: web.Request) -> web.StreamResponse:
        principal = request[PRINCIPAL]
        body = await read_model(request, NewText, self._limits)
        return await self.accept(request, principal, body)

    async def accept(
        self, request: web.Request, principal: Principal, body: NewText
    ) -> web.StreamResponse:
        """Answer once the text is committed, or as the first time if it was accepted before."""
        named = keyed(request, body, principal)
        sender = await self._sender(principal, body)
        if named is None:
            return await self._accept(request, sender, body)
        in_flight = (named.tenant_id, named.key_hash)
        if in_flight in self._in_flight:
            raise in_progress()
        self._in_flight.add(in_flight)
        try:
            return await self._accept(request, sender, body, named)
        finally:
            self._in_flight.discard(in_flight)

    async def _sender(self, principal: Principal, body: NewText) -> Sender:
        named = body.instance_id or body.session_id
        if body.session_id is not None and named != body.session_id:
            raise invalid({"sessionId": "names another instance than instanceId; send one of them"})
        return await self._senders.sender(principal, named)

    async def _accept(
        self,
        request: web.Request,
        sender: Sender,
        body: NewText,
        named: KeyedRequest | None = None,
    ) -> web.StreamResponse:
        if not takes_messages(sender.status, connected=sender.connected):
            # The first answer to the same request stands, whatever became of the instance since.
            if named is not None and (first := await self._once.earlier_answer(named)) is not None:
                return first
            raise not_ready(sender.status)
        now = self._now()
        message_id = str(new_id())
        body_of_answer = answer(message_id, sender, body.to.shown, now).encode()
        metadata = None if body.metadata is None else orjson.dumps(body.metadata).decode()
        message = NewMessage(
            id=message_id,
            origin=sender.origin,
            chat=body.to.chat,
            content=await self._content(sender, body),
            request_id=request[REQUEST_ID],
            created_at=now,
            options=Options(metadata, PRIORITIES[body.priority], body.on_unknown),
            keyed=None
            if named is None
            else Keyed(named.key_hash, named.fingerprint, self._once.seal(named, body_of_answer)),
        )
        if not await self._acceptance.accept(message):
            assert named is not None  # noqa: S101 - only a key can be in use
            return await self._once.first_answer(named)
        return json_response(body_of_answer, status=202)

    async def _content(self, sender: Sender, body: NewText) -> str:
        reply_to = None
        if body.reply_to is not None:
            async with self._database.tx() as tx:
                reply_to = await references.engine_id(
                    tx,
                    body.reply_to,
                    tenant_id=sender.tenant_id,
                    instance_id=sender.id,
                    field="replyTo",
                )
        text = Text(
            text=body.message,
            mentions=tuple(mention.chat for mention in body.mentions),
            link_preview=body.link_preview,
            reply_to=reply_to,
        )
        return text.model_dump_json(by_alias=True, exclude_none=True)


def answer(message_id: str, sender: Sender, to: str, now: datetime) -> str:
    """The body of a 202. Nothing in it needs escaping: ids, an address, a time in UTC."""
    at = now.isoformat(timespec="milliseconds")[:23]
    return (
        f'{{"success":true,"data":{{"id":"{message_id}","status":"queued",'
        f'"instanceId":"{sender.text}","to":"{to}","createdAt":"{at}Z"}}}}'
    )
