"""Changing messages that were sent: new words for a text, and deleting one for everyone."""

from datetime import datetime

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncConnection

from services.gateway.api.content import Said, Say
from services.gateway.api.gate import PRINCIPAL, id_in_path
from services.gateway.api.lookup import Senders
from services.gateway.api.schemas.outbound import NewWords, SendOptions
from services.gateway.api.sending import Sending
from services.gateway.domain.changing import Changeable, may_edit, may_revoke
from services.gateway.domain.principal import scope_of
from services.gateway.domain.recipients import address_of
from services.gateway.store import messages
from services.gateway.store.instances import Sender
from services.gateway.store.messages import Message
from shared.clock import Clock
from shared.contracts.content import Edit, Revoke
from shared.db.database import Database
from shared.errors import NotFound
from shared.web.body import BodyLimits, read_model


class Changing:
    """``PUT`` and ``DELETE`` of ``/api/messages/{id}``: both are messages of their own."""

    def __init__(
        self,
        *,
        database: Database,
        senders: Senders,
        sending: Sending,
        limits: BodyLimits,
        clock: Clock,
    ) -> None:
        self._database = database
        self._senders = senders
        self._sending = sending
        self._limits = limits
        self._clock = clock

    async def edit(self, request: web.Request) -> web.StreamResponse:
        body = await read_model(request, NewWords, self._limits)
        target = await self._target(request)

        async def say(_: Sender) -> Said:
            until = may_edit(_changeable(target), now=self._clock.now())
            return _about(target, Edit(target_id=_engine_id(target), text=body.message), until)

        return await self._say(request, target, body, say)

    async def revoke(self, request: web.Request) -> web.StreamResponse:
        target = await self._target(request)

        async def say(_: Sender) -> Said:
            until = may_revoke(_changeable(target), now=self._clock.now())
            return _about(target, Revoke(target_id=_engine_id(target)), until)

        return await self._say(request, target, SendOptions(), say)

    async def _target(self, request: web.Request) -> Message:
        async with self._database.tx() as tx:
            return await _message(tx, request)

    async def _say(
        self, request: web.Request, target: Message, options: SendOptions, say: Say
    ) -> web.StreamResponse:
        principal = request[PRINCIPAL]
        sender = await self._senders.sender(principal, target.instance_id)
        return await self._sending.say(request, principal, sender, options, say)


async def _message(tx: AsyncConnection, request: web.Request) -> Message:
    found = await messages.find(tx, scope_of(request[PRINCIPAL]), id_in_path(request))
    if found is None:
        raise NotFound("There is no such message; check the id.")
    return found


def _changeable(message: Message) -> Changeable:
    return Changeable(
        direction=message.direction,
        type=message.type,
        status=message.status,
        sent_at=message.sent_at,
        revoked_at=message.revoked_at,
    )


def _engine_id(message: Message) -> str:
    if message.engine_message_id is None:
        raise NotFound("WhatsApp's id of this message is not known, so it cannot be changed.")
    return message.engine_message_id


def _about(message: Message, content: Edit | Revoke, until: datetime | None) -> Said:
    return Said(
        to=address_of(message.chat), content=content, target_id=message.id, expires_at=until
    )
