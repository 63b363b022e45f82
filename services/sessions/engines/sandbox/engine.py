"""The sandbox as an engine: sessions that pair by themselves, send, and are delivered to."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import ClassVar, Final, Literal
from uuid import UUID

from services.sessions.domain.addresses import digits, fictional_number
from services.sessions.engines.port import (
    Banned,
    Connected,
    Disconnected,
    Ending,
    Engine,
    EngineEvent,
    LoggedOut,
    MediaHandle,
    NotOnWhatsApp,
    Opening,
    Outgoing,
    Refused,
    Retryable,
    SessionDown,
    Sink,
    Transmitted,
)
from services.sessions.engines.sandbox import stanzas
from services.sessions.engines.sandbox.agenda import Agenda
from services.sessions.engines.sandbox.answers import Answers
from services.sessions.engines.sandbox.files import Files
from services.sessions.engines.sandbox.groups import GROUP, Groups
from services.sessions.engines.sandbox.numbers import (
    ANSWERED,
    SLOW_DOWN,
    Behaviour,
    First,
    behaviour,
)
from services.sessions.engines.sandbox.pairing import Pairing, Phone, patiently
from services.sessions.engines.sandbox.server import LOOK_LIMIT, Later, Send, Server
from services.sessions.store.fence import Fence
from shared.clock import Clock
from shared.contracts.capabilities import SANDBOX, Capability
from shared.contracts.commands import WriteFromSandboxContact
from shared.contracts.content import Edit, Media, Reaction, Revoke
from shared.contracts.questions import Answer, Question
from shared.db.database import Database
from shared.db.group_commit import GroupCommit
from shared.errors import Fenced, Throttled, Transient, Unconfirmed
from shared.log import get_logger
from shared.media.store import MediaStore
from shared.nudge import Nudge

log = get_logger()


# Other processes may put stanzas into the queue; nobody tells us, so we look.
LOOK_EVERY: Final = timedelta(milliseconds=200)
OFFER_AGAIN: Final = timedelta(seconds=1)
# What changes an earlier message is answered by nobody.
CHANGES: Final = (Reaction, Edit, Revoke)


class SandboxEngine:
    """A WhatsApp without phones; see ``numbers`` for who lives there."""

    kind: ClassVar[str] = "sandbox"
    capabilities: ClassVar[frozenset[Capability]] = SANDBOX

    def __init__(
        self, *, database: Database, fence: Fence, store: MediaStore, clock: Clock
    ) -> None:
        self._server = Server(database=database, fence=fence)
        self._files = Files(store=store, database=database)
        self._groups = Groups(database=database, fence=fence)
        self._answers = Answers(groups=self._groups, clock=clock)
        self._clock = clock
        self._wire: GroupCommit[Send, bool] = GroupCommit(
            self._server.take, name="sandbox-wire", max_batch=400
        )
        self._pairing = Pairing(server=self._server, clock=clock, offer=self._offer)
        self._phones: dict[UUID, Phone] = {}
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
            if present.opening.lease == opening.lease and not present.ending:
                return
            await self.close(opening.instance_id)
        if self._group is None:
            raise Transient("The sandbox is not running.")
        wanted = digits(opening.phone_number) if opening.phone_number else None
        phone = Phone(opening, wanted or fictional_number(opening.instance_id))
        self._phones[opening.instance_id] = phone
        phone.task = self._group.create_task(
            self._bring_up(phone), name=f"sandbox:{opening.instance_id}"
        )

    async def close(self, instance_id: UUID) -> None:
        phone = self._phones.pop(instance_id, None)
        if phone is not None and phone.task is not None:
            phone.online = False
            phone.task.cancel()
            await asyncio.gather(phone.task, return_exceptions=True)

    async def forget(self, opening: Opening) -> None:
        await self.close(opening.instance_id)
        if not await self._server.unlink(opening.instance_id, lease=opening.lease):
            raise Fenced("Another process owns this connection now.")

    async def transmit(self, instance_id: UUID, outgoing: Outgoing) -> Transmitted:
        phone = self._online(instance_id)
        how = behaviour(digits(outgoing.to))
        if how.ordinary and phone.opening.settings.get("receipts") is False:
            how = replace(how, receipts=())
        if how.first is not First.TAKE:
            await self._before(phone, outgoing, how)
        send = await self._sending(phone, outgoing, how)
        try:
            taken = await self._wire.submit(send)
        except Transient as error:
            # The statement may have been committed although its answer did not reach us.
            raise Unconfirmed("The sandbox did not answer.") from error
        if not taken:
            raise Fenced("Another process owns this connection now.")
        self._expect(*(delay for _, delay in how.receipts), ANSWERED)
        if how.acknowledged is None:
            await asyncio.Event().wait()  # Until the caller's patience ends.
        elif how.acknowledged:
            await self._clock.sleep(how.acknowledged)
        return Transmitted(engine_message_id=outgoing.engine_message_id, at=self._clock.now())

    async def ask(self, instance_id: UUID, question: Question) -> Answer:
        phone = self._phones.get(instance_id)
        if phone is None:
            raise SessionDown("The session is not open.")
        return await self._answers.to(phone, question)

    async def mark_read(
        self,
        instance_id: UUID,
        *,
        chat: str,
        sender: str,
        engine_message_ids: Sequence[str],
        played: bool = False,
    ) -> None:
        phone = self._online(instance_id)
        await self._server.tell(
            lease=phone.opening.lease,
            tenant_id=phone.opening.tenant_id,
            phone=digits(sender) or "",
            stanzas=[stanzas.receipt(id_, "read") for id_ in engine_message_ids],
        )
        self._expect(timedelta(0))

    async def show_presence(
        self, instance_id: UUID, *, chat: str, state: Literal["typing", "recording", "paused"]
    ) -> None:
        self._online(instance_id)

    async def fetch(self, instance_id: UUID, media: MediaHandle, into: Path) -> None:
        self._online(instance_id)
        await self._files.fetch(media, into)

    def scan(self, instance_id: UUID) -> None:
        """Pretend that a phone scans the code that is shown; nothing happens if none is."""
        phone = self._phones.get(instance_id)
        if phone is not None:
            phone.scanned.set()

    async def write(self, command: WriteFromSandboxContact, *, cause: str) -> None:
        """Have a contact do something to an instance; it waits there if that is offline."""
        content, media = command.content, None
        if isinstance(content, Media):
            tenant_id = await self._server.tenant_of(command.instance_id)
            if tenant_id is not None:
                content, media = await self._files.of_contact(tenant_id, content)
        body = stanzas.written(command, content=content, media=media, cause=cause)
        await self._server.deliver(instance_id=command.instance_id, body=body)
        self._expect(timedelta(0))

    async def step(self) -> bool:
        """Deliver what is due to the sessions that are online; whether there is more at once."""
        online = [phone.instance_id for phone in self._phones.values() if phone.online]
        if not online or self._sink is None:
            return False
        due = await self._server.due(online)
        read = [
            (stanza, event) for stanza in due if (event := stanzas.event_of(stanza)) is not None
        ]
        flags = await self._sink([event for _, event in read]) if read else []
        refused = {stanza.id for (stanza, _), taken in zip(read, flags, strict=True) if not taken}
        taken = [stanza for stanza in due if stanza.id not in refused]
        if taken:
            echoes = [
                echo
                for stanza in taken
                for echo in stanzas.echoes(stanza, reads=self._reads(stanza.instance_id))
            ]
            await self._server.acknowledge([stanza.id for stanza in taken], echoes)
            self._expect(*{echo.delay for echo in echoes})
        if refused:
            await self._server.postpone(sorted(refused), delay=OFFER_AGAIN)
        return len(due) == LOOK_LIMIT

    async def _deliver(self) -> None:
        look_at = 0.0
        while True:
            now = self._clock.monotonic()
            if now >= look_at:
                try:
                    more = await self.step()
                except Transient as error:
                    log.warning("sandbox_not_delivered", reason=error.message)
                    more = False
                look_at = now if more else now + LOOK_EVERY.total_seconds()
            self._nudge.clear()
            known = self._agenda.next_after(now)
            look_at = look_at if known is None else min(look_at, known)
            wait = look_at - self._clock.monotonic()
            if wait > 0:
                await self._nudge.wait(timedelta(seconds=wait))

    def _expect(self, *delays: timedelta) -> None:
        now = self._clock.monotonic()
        sooner = [self._agenda.expect(now + delay.total_seconds()) for delay in delays]
        if any(sooner):
            self._nudge.set()

    async def _bring_up(self, phone: Phone) -> None:
        if not await self._pairing.known(phone) and not await self._pairing.pair(phone):
            await self._end(
                phone,
                Disconnected(
                    instance_id=phone.instance_id,
                    at=self._clock.now(),
                    reason="qr_timeout",
                    will_retry=False,
                ),
            )
            return
        phone.online = True
        await self._offer(
            phone,
            Connected(
                instance_id=phone.instance_id,
                at=self._clock.now(),
                phone_number=f"+{phone.number}",
            ),
        )
        self._expect(timedelta(0))

    def _online(self, instance_id: UUID) -> Phone:
        phone = self._phones.get(instance_id)
        if phone is None or not phone.online:
            raise SessionDown("The session is not connected.")
        return phone

    def _reads(self, instance_id: UUID) -> bool:
        """Whether an instance reads what it gets by itself, as people do."""
        phone = self._phones.get(instance_id)
        return phone is None or phone.opening.settings.get("autoRead") is not False

    async def _sending(self, phone: Phone, outgoing: Outgoing, how: Behaviour) -> Send:
        """What the server is asked to do about a message."""
        number = digits(outgoing.to)
        group = outgoing.to if outgoing.to.endswith(GROUP) else None
        reaches: tuple[str, ...] = ()
        if group is not None:
            members = (
                await self._groups.one(phone.opening.tenant_id, group, number=phone.number)
            ).members
            reaches = tuple(member for member in members if member != phone.number)
        elif how.ordinary and number is not None:
            reaches = (number,)
        outgoing, media = await self._kept(phone, outgoing)
        id_, said = outgoing.engine_message_id, outgoing.content
        later = [Later(delay, stanzas.receipt(id_, status)) for status, delay in how.receipts]
        if how.answer is not None and number is not None and not isinstance(said, CHANGES):
            answer = stanzas.answer(how.answer, to=id_, by=number, content=said, media=media)
            later.append(Later(ANSWERED, answer))
        return Send(
            lease=phone.opening.lease,
            tenant_id=phone.opening.tenant_id,
            instance_id=phone.instance_id,
            engine_message_id=id_,
            sender=phone.number,
            recipient=number or outgoing.to,
            body=stanzas.encode(said),
            stanza=stanzas.forwarded(outgoing, by=phone.number, group=group, media=media),
            reaches=reaches,
            later=tuple(later),
        )

    async def _kept(self, phone: Phone, outgoing: Outgoing) -> tuple[Outgoing, MediaHandle | None]:
        """A message whose file, if it has one, is where whoever gets it can fetch it."""
        file, content = outgoing.attachment, outgoing.content
        if file is None or not isinstance(content, Media):
            return outgoing, None
        handle = await self._files.keep(phone.opening.tenant_id, file)
        content = stanzas.with_file(
            content, mime_type=file.mime_type, size=file.size, sha256=file.sha256
        )
        return replace(outgoing, content=content), handle

    async def _before(self, phone: Phone, outgoing: Outgoing, how: Behaviour) -> None:
        """What a number does before it takes a message; returns if it has done that enough."""
        if how.first is First.NOT_ON_WHATSAPP:
            raise NotOnWhatsApp("This number is not on WhatsApp.")
        if how.first is First.REJECT:
            raise Refused("WhatsApp has refused this message.")
        refused = await self._server.refuse(
            lease=phone.opening.lease,
            instance_id=phone.instance_id,
            engine_message_id=outgoing.engine_message_id,
            times=how.times,
        )
        if not refused:
            return
        if how.first is First.REFUSE:
            raise Retryable("WhatsApp has refused this message for the moment.")
        if how.first is First.SLOW_DOWN:
            raise Throttled("WhatsApp asks to slow down.", retry_after=SLOW_DOWN)
        phone.online = False
        now = self._clock.now()
        lease = phone.opening.lease
        await patiently(self._clock, lambda: self._server.unlink(phone.instance_id, lease=lease))
        if how.first is First.BAN:
            await self._end(phone, Banned(instance_id=phone.instance_id, at=now, reason="banned"))
        else:
            await self._end(
                phone, LoggedOut(instance_id=phone.instance_id, at=now, reason="unlinked")
            )
        raise SessionDown("The session has ended.")

    async def _end(self, phone: Phone, event: Ending) -> None:
        phone.online = False
        phone.ending = True
        await self._offer(phone, event)
        if self._phones.get(phone.instance_id) is phone:
            del self._phones[phone.instance_id]

    async def _offer(self, phone: Phone, event: EngineEvent) -> None:
        """Put an event into the sink until it is taken, or the session is closed."""
        while self._sink is not None and self._phones.get(phone.instance_id) is phone:
            try:
                (taken,) = await self._sink([event])
            except Transient:
                taken = False
            if taken:
                return
            await self._clock.sleep(OFFER_AGAIN)


_: type[Engine] = SandboxEngine
