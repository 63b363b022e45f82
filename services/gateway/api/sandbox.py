"""The sandbox's remote control: scanning a code, and making contacts write."""

import secrets
from contextlib import suppress
from typing import Final, Literal, Self
from uuid import UUID

from aiohttp import web
from pydantic import Field, model_validator
from sqlalchemy.ext.asyncio import AsyncConnection

from services.gateway.api import references
from services.gateway.api.auditing import note
from services.gateway.api.gate import PRINCIPAL
from services.gateway.api.lookup import instance_in_path
from services.gateway.api.once import Once
from services.gateway.api.schemas.fields import Recipient
from services.gateway.api.schemas.instances import Asked
from services.gateway.domain.principal import Principal, scope_of
from services.gateway.domain.readiness import not_ready, was_paired
from services.gateway.store import media
from services.gateway.store.instances import Instance
from shared.broker.topology import shard_queue
from shared.clock import Clock
from shared.contracts.commands import ScanSandboxQr, WriteFromSandboxContact
from shared.contracts.content import Content, Media, Text
from shared.contracts.model import Command
from shared.db.database import Database
from shared.db.tables.gateway import GatewayOutboxRow
from shared.errors import Conflict
from shared.ids import id_of
from shared.messaging import outbox
from shared.messaging.outbox import Relay
from shared.security.sealing import KeyRing
from shared.web.body import BodyLimits, invalid, read_model
from shared.web.envelope import respond
from shared.web.schemas import ApiModel, ApiView

_SANDBOX: Final = "sandbox"


class Inbound(ApiModel):
    """What a contact does. A message has `message` (its text) or `content` (of any kind); an edit
    has that and `messageId`; a revocation has `messageId`; a reaction `messageId` and `emoji`, and
    an empty one takes it back. With `group` it happens there. A contact sends the file that
    `content.mediaId` names; without one it has a picture to send, and nothing else.
    """

    from_: Recipient = Field(alias="from")
    push_name: str | None = Field(default=None, max_length=100, examples=["Ada"])
    action: Literal["message", "edit", "revoke", "reaction"] = "message"
    message: str | None = Field(default=None, min_length=1, max_length=4096, examples=["Hello"])
    content: Content | None = Field(
        default=None, description='Of any kind, such as `{"kind": "text", "text": "Hello"}`.'
    )
    message_id: str | None = Field(
        default=None,
        min_length=1,
        max_length=128,
        description="The message that is meant, by its `id` or its `engineMessageId`.",
    )
    emoji: str | None = Field(default=None, max_length=32, examples=["👍"])
    reply_to: str | None = Field(default=None, min_length=1, max_length=128)
    group: str | None = Field(
        default=None, pattern=r"^[0-9-]{5,40}@g\.us$", examples=["120363041234567890@g.us"]
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        says = self.message is not None or self.content is not None
        if self.action in {"message", "edit"} and not says:
            raise ValueError("needs `message` or `content`: what the contact says")
        if self.action != "message" and self.message_id is None:
            raise ValueError("needs `messageId`: the message that is meant")
        if self.action == "reaction" and self.emoji is None:
            raise ValueError("needs `emoji`; an empty one takes the reaction back")
        if self.message is not None and self.content is not None:
            raise ValueError("has `message` and `content`; send one of them")
        return self

    @property
    def said(self) -> Content | None:
        """What the contact says, if anything."""
        return self.content if self.message is None else Text(text=self.message)


class InboundView(ApiView):
    """What will be received, or the message that is meant. `messageId` is the id that events and
    `GET /api/messages/{id}` will know it by.
    """

    message_id: UUID
    engine_message_id: str
    from_: str = Field(alias="from")
    action: str


class Sandbox:
    """``/api/sandbox/instances/{id}/…``."""

    def __init__(
        self,
        *,
        database: Database,
        once: Once,
        relay: Relay,
        ring: KeyRing,
        limits: BodyLimits,
        clock: Clock,
    ) -> None:
        self._database = database
        self._once = once
        self._relay = relay
        self._ring = ring
        self._limits = limits
        self._clock = clock

    async def scan(self, request: web.Request) -> web.StreamResponse:
        async with self._database.tx() as tx:
            instance = await _sandboxed(tx, request)
            await self._tell(tx, instance, ScanSandboxQr(instance_id=instance.id))
            await note(tx, request, "instance", instance.id)
        self._relay.wake()
        return respond(
            Asked(id=instance.id, status=instance.status, connected=instance.connected), status=202
        )

    async def inbound(self, request: web.Request) -> web.StreamResponse:
        body = await read_model(request, Inbound, self._limits)

        async def work(tx: AsyncConnection) -> InboundView:
            instance = await _sandboxed(tx, request)
            if not was_paired(instance.status):
                raise not_ready(instance.status)
            await _require_seen(tx, request[PRINCIPAL], body.said)
            engine_id = "3EB0" + secrets.token_hex(9).upper()
            if body.message_id is not None and body.action != "message":
                engine_id = await _named(tx, instance, body.message_id, "messageId")
            reply_to = None
            if body.reply_to is not None:
                reply_to = await _named(tx, instance, body.reply_to, "replyTo")
            sender = body.from_.chat
            chat = body.group or sender
            await self._tell(
                tx,
                instance,
                WriteFromSandboxContact(
                    instance_id=instance.id,
                    from_=sender,
                    push_name=body.push_name,
                    action=body.action,
                    engine_message_id=engine_id,
                    content=body.said,
                    emoji=body.emoji,
                    reply_to=reply_to,
                    group=body.group,
                ),
            )
            return InboundView.model_validate(
                {
                    "message_id": id_of("inbound", instance.id, chat, engine_id, sender),
                    "engine_message_id": engine_id,
                    "from": body.from_.shown,
                    "action": body.action,
                }
            )

        answer = await self._once.run(request, body, work, principal=request[PRINCIPAL], status=202)
        self._relay.wake()
        return answer

    async def _tell(self, tx: AsyncConnection, instance: Instance, command: Command) -> None:
        row = outbox.command(command, to=shard_queue(instance.shard))
        await outbox.add(tx, GatewayOutboxRow, [row], now=self._clock.now(), ring=self._ring)


async def _require_seen(tx: AsyncConnection, principal: Principal, content: Content | None) -> None:
    """Raise about a file that the caller does not see: a contact would show it to them."""
    if not isinstance(content, Media) or content.media_id is None:
        return
    found = None
    with suppress(ValueError):
        found = await media.find(tx, scope_of(principal), UUID(content.media_id))
    if found is None:
        raise invalid(
            {"content.mediaId": "is not a file of yours, or was deleted; upload it first"}
        )


async def _sandboxed(tx: AsyncConnection, request: web.Request) -> Instance:
    instance = await instance_in_path(tx, request)
    if instance.engine != _SANDBOX:
        raise Conflict("This instance is not in the sandbox; make one with the engine sandbox.")
    return instance


async def _named(tx: AsyncConnection, instance: Instance, named: str, field: str) -> str:
    return await references.engine_id(
        tx, named, tenant_id=instance.tenant_id, instance_id=instance.id, field=field
    )
