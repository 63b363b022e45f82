"""Small signs to a chat, which nobody waits for: that messages were read, that somebody types."""

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Final

from aiohttp import web

from services.gateway.api.askable import require_ready
from services.gateway.api.gate import PRINCIPAL
from services.gateway.api.references import writer
from services.gateway.api.schemas.asked import MarkedView, PresenceView
from services.gateway.api.schemas.outbound import NewPresence, ReadMessages
from services.gateway.api.sending import Sending
from services.gateway.domain.principal import Scope
from services.gateway.store import messages
from services.gateway.store.instances import Sender
from services.gateway.store.messages import Message
from shared.broker.topology import shard_queue
from shared.clock import Clock
from shared.contracts.capabilities import Capability
from shared.contracts.commands import MarkRead, ShowPresence
from shared.contracts.model import Command
from shared.db.database import Database
from shared.db.tables.gateway import GatewayOutboxRow
from shared.messaging import outbox
from shared.messaging.outbox import Relay
from shared.web.body import BodyLimits, invalid, read_model
from shared.web.edge import REQUEST_ID
from shared.web.envelope import respond

# WhatsApp shows typing for about so long; what comes later would only surprise.
SHOWN_FOR: Final = timedelta(seconds=20)


class Chats:
    """``/api/messages/read`` and ``/api/chats/presence``."""

    def __init__(
        self,
        *,
        database: Database,
        sending: Sending,
        relay: Relay,
        limits: BodyLimits,
        clock: Clock,
    ) -> None:
        self._database = database
        self._sending = sending
        self._relay = relay
        self._limits = limits
        self._clock = clock

    async def read(self, request: web.Request) -> web.StreamResponse:
        body = await read_model(request, ReadMessages, self._limits)
        sender = await self._sending.sender(request[PRINCIPAL], body)
        require_ready(sender, Capability.READ_RECEIPTS)
        scope = Scope(sender.tenant_id, frozenset({sender.id}))
        async with self._database.tx() as tx:
            found = await messages.find_all(tx, scope, body.message_ids)
        received = {message.id: message for message in found if message.direction == "inbound"}
        unknown = {
            f"messageIds.{place}": "is not a message that this instance has received"
            for place, id_ in enumerate(body.message_ids)
            if id_ not in received
        }
        if unknown:
            raise invalid(unknown)
        await self._tell(sender, _receipts(sender, received.values(), request[REQUEST_ID]))
        return respond(MarkedView(instance_id=sender.id, message_ids=list(received)), status=202)

    async def presence(self, request: web.Request) -> web.StreamResponse:
        body = await read_model(request, NewPresence, self._limits)
        sender = await self._sending.sender(request[PRINCIPAL], body)
        require_ready(sender, Capability.TYPING)
        command = ShowPresence(
            instance_id=sender.id,
            chat=body.to.chat,
            state=body.state,
            until=self._clock.now() + SHOWN_FOR,
            request_id=request[REQUEST_ID],
        )
        await self._tell(sender, [command])
        shown = PresenceView(instance_id=sender.id, to=body.to.shown, state=body.state)
        return respond(shown, status=202)

    async def _tell(self, sender: Sender, commands: Sequence[Command]) -> None:
        queue = shard_queue(sender.shard)
        rows = [outbox.command(command, to=queue) for command in commands]
        async with self._database.tx() as tx:
            await outbox.add(tx, GatewayOutboxRow, rows, now=self._clock.now())
        self._relay.wake()


def _receipts(sender: Sender, received: Iterable[Message], request_id: str) -> list[MarkRead]:
    """One command for each who wrote in each chat; a voice note is listened to, not read."""
    ids: dict[tuple[str, str, bool], list[str]] = {}
    for message in received:
        key = (message.chat, writer(message), message.type == "voice")
        if message.engine_message_id is not None:
            ids.setdefault(key, []).append(message.engine_message_id)
    return [
        MarkRead(
            instance_id=sender.id,
            chat=chat,
            sender=who,
            engine_message_ids=tuple(engine_ids),
            played=played,
            request_id=request_id,
        )
        for (chat, who, played), engine_ids in ids.items()
    ]
