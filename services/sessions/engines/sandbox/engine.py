"""The sandbox as an engine: sessions that pair by themselves, send, and are delivered to."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import ClassVar, Final
from uuid import UUID

from services.sessions.domain.addresses import digits, fictional_number
from services.sessions.engines.port import (
    Banned,
    Capability,
    Connected,
    Disconnected,
    Engine,
    EngineEvent,
    Ending,
    LoggedOut,
    NotOnWhatsApp,
    Opening,
    Outgoing,
    Paired,
    Qr,
    Refused,
    Retryable,
    SessionDown,
    Sink,
    Transmitted,
)
from services.sessions.engines.sandbox import stanzas
from services.sessions.engines.sandbox.agenda import Agenda
from services.sessions.engines.sandbox.numbers import (
    ANSWERED,
    DELIVERED,
    READ,
    SLOW_DOWN,
    Behaviour,
    First,
    behaviour,
)
from services.sessions.engines.sandbox.server import Due, Echo, Later, Send, Server
from services.sessions.store.fence import Fence
from shared.clock import Clock
from shared.contracts.commands import WriteFromSandboxContact
from shared.db.database import Database
from shared.db.group_commit import GroupCommit
from shared.errors import Fenced, Throttled, Transient, Unconfirmed
from shared.log import get_logger
from shared.nudge import Nudge

log = get_logger()

# How long the codes of one pairing are valid, as WhatsApp has it: the first longer than the rest.
CODES: Final = (timedelta(seconds=60), *(timedelta(seconds=20),) * 5)
SCANNED_AFTER: Final = timedelta(seconds=1)
# Other processes may put stanzas into the queue; nobody tells us, so we look.
LOOK_EVERY: Final = timedelta(milliseconds=200)
OFFER_AGAIN: Final = timedelta(seconds=1)


@dataclass(eq=False, slots=True)
class _Phone:
    """One open session."""

    opening: Opening
    number: str
    online: bool = False
    scanned: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    @property
    def instance_id(self) -> UUID:
        return self.opening.instance_id


class SandboxEngine:
    """A WhatsApp without phones; see ``numbers`` for who lives there."""

    kind: ClassVar[str] = "sandbox"
    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {
            Capability.QR,
            Capability.CLIENT_MESSAGE_ID,
            Capability.TEXT,
            Capability.MEDIA,
            Capability.LOCATION,
            Capability.CONTACT,
            Capability.POLL,
            Capability.GROUPS,
        }
    )

    def __init__(self, *, database: Database, fence: Fence, clock: Clock) -> None:
        self._server = Server(database=database, fence=fence)
        self._clock = clock
        self._wire: GroupCommit[Send, bool] = GroupCommit(
            self._server.take, name="sandbox-wire", max_batch=400
        )
        self._phones: dict[UUID, _Phone] = {}
        self._agenda = Agenda()
        self._nudge = Nudge()
        self._sink: Sink | None = None
        self._group: asyncio.TaskGroup | None = None

    @asynccontextmanager
    async def events(self, sink: Sink) -> AsyncIterator[None]:
        self._sink = sink
        async with self._wire.running(), asyncio.TaskGroup() as group:
            self._group = group
            delivering = group.create_task(self._deliver(), name="sandbox:deliver")
            try:
                yield
            finally:
                delivering.cancel()
                for phone in list(self._phones.values()):
                    await self.close(phone.instance_id)

    async def open(self, opening: Opening) -> None:
        present = self._phones.get(opening.instance_id)
        if present is not None:
            if present.opening.lease == opening.lease:
                return
            await self.close(opening.instance_id)
        if self._group is None:
            raise Transient("The sandbox is not running.")
        wanted = digits(opening.phone_number) if opening.phone_number else None
        phone = _Phone(opening, wanted or fictional_number(opening.instance_id))
        self._phones[opening.instance_id] = phone
        phone.task = self._group.create_task(
            self._bring_up(phone), name=f"sandbox:{opening.instance_id}"
        )

    async def close(self, instance_id: UUID, *, forget: bool = False) -> None:
        phone = self._phones.pop(instance_id, None)
        if phone is not None and phone.task is not None:
            phone.online = False
            phone.task.cancel()
            await asyncio.gather(phone.task, return_exceptions=True)
        if forget:
            await self._server.unlink(instance_id)

    async def transmit(self, instance_id: UUID, outgoing: Outgoing) -> Transmitted:
        phone = self._phones.get(instance_id)
        if phone is None or not phone.online:
            raise SessionDown("The session is not connected.")
        number = digits(outgoing.to)
        how = behaviour(number)
        if how.first is not First.TAKE:
            await self._before(phone, outgoing, how)
        try:
            taken = await self._wire.submit(_send(phone, outgoing, how, number))
        except Transient as error:
            # The statement may have been committed although its answer did not reach us.
            raise Unconfirmed("The sandbox did not answer.") from error
        if not taken:
            raise Fenced("Another process owns this connection now.")
        now = self._clock.monotonic()
        for later, _ in ((delay, status) for status, delay in how.receipts):
            self._agenda.expect(now + later.total_seconds())
        self._nudge.set()
        if how.acknowledged is None:
            await asyncio.Event().wait()  # Until the caller's patience ends.
        elif how.acknowledged:
            await self._clock.sleep(how.acknowledged)
        return Transmitted(engine_message_id=outgoing.engine_message_id, at=self._clock.now())
