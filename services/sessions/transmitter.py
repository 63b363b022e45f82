"""The transmitter: hands messages to engines, each at most once, and reports what came of it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol, Self
from uuid import UUID

from services.sessions.attachments import Attachments
from services.sessions.domain.addresses import canonical
from services.sessions.domain.lease import Lease
from services.sessions.domain.outcomes import Verdict, accepted, verdict
from services.sessions.engines.port import (
    Attachment,
    Engine,
    Outgoing,
    Retryable,
    SessionDown,
    Unsupported,
)
from services.sessions.leases import Leases
from services.sessions.metrics import SessionsMetrics
from services.sessions.reports import REPORT, Reports, settlement
from services.sessions.store import handovers
from services.sessions.store.fence import Fence
from services.sessions.supervisor import Session
from services.sessions.typist import Typist
from shared.clock import Clock
from shared.contracts.capabilities import needed_to_say
from shared.contracts.commands import (
    SettledTransmission,
    Transmission,
    TransmissionOutcome,
)
from shared.contracts.content import Media
from shared.db.database import Database
from shared.db.group_commit import GroupCommit
from shared.errors import Fenced, PlatformError, Unconfirmed
from shared.log import get_logger

log = get_logger()

# A handover that nobody in this process knows of, for this long, is one whose commit was not seen.
ORPHANED_AFTER: Final = timedelta(seconds=15)


@dataclass(frozen=True, slots=True)
class _Work:
    """Transmissions that came together for one shard."""

    lease: Lease
    transmissions: Sequence[Transmission]


class Sessions(Protocol):
    """Where the transmitter finds the sessions that can send."""

    def ready(self, instance_id: UUID) -> Session | None:
        """The session of an instance if it can send."""
        ...


class Transmitter:
    """Carries out transmissions.

    A row in ``handovers`` is committed before the engine is called. Whoever finds the row there
    leaves the transmission alone; whoever takes over the shard settles it as unknown. So a message
    may go astray, which is then known, but it is never said twice.
    """

    def __init__(
        self,
        *,
        database: Database,
        fence: Fence,
        leases: Leases,
        sessions: Sessions,
        reports: Reports,
        attachments: Attachments,
        typist: Typist,
        clock: Clock,
        metrics: SessionsMetrics,
        deadline: timedelta,
        media_deadline: timedelta,
        drain: timedelta,
        most: int,
    ) -> None:
        self._database = database
        self._fence = fence
        self._leases = leases
        self._sessions = sessions
        self._clock = clock
        self._reports = reports
        self._attachments = attachments
        self._typist = typist
        self._metrics = metrics
        self._deadline = deadline.total_seconds()
        self._media_deadline = media_deadline.total_seconds()
        self._drain = drain.total_seconds()
        self._most = most
        self._in_flight: dict[UUID, Lease] = {}
        self._tasks: dict[asyncio.Task[None], tuple[Lease, UUID]] = {}
        # Until when files and typing may be waited for, of what has not been given to an engine.
        self._bringing: dict[asyncio.Timeout, Lease] = {}
        self._put_down: set[Lease] = set()
        self._room = asyncio.Event()
        self._room.set()
        self._group: asyncio.TaskGroup | None = None
        self._marks: GroupCommit[_Work, set[UUID]] = GroupCommit(
            self._mark, name="handovers", max_batch=64
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Be able to work for as long as the context is open; on exit cut off what is in flight."""
        async with asyncio.TaskGroup() as group, self._marks.running():
            self._group = group
            try:
                yield self
            finally:
                for task in self._tasks:
                    task.cancel()

    async def accept(self, lease: Lease, transmissions: Sequence[Transmission]) -> None:
        """Mark what is new as handed over and begin to carry it out; return once that is committed.

        Waits while too much is in flight. Raises ``Transient`` if it could not be committed.
        """
        while len(self._in_flight) >= self._most:
            self._room.clear()
            await self._room.wait()
        # By id: a command that was repeated may stand twice in one batch.
        known = self._in_flight
        new = {t.transmission_id: t for t in transmissions if t.transmission_id not in known}
        self._in_flight |= dict.fromkeys(new, lease)
        ours: set[UUID] = set()
        try:
            if new:
                ours = new.keys() & await self._marks.submit(_Work(lease, list(new.values())))
            for transmission_id, transmission in new.items():
                if transmission_id in ours:
                    self._begin(lease, transmission)
        finally:
            for transmission_id in new.keys() - ours:
                self._landed(transmission_id)
        self._metrics.in_flight.set(len(self._in_flight))
        self._metrics.not_ours.inc(len(transmissions) - len(ours))

    async def adopt_orphans(self) -> None:
        """Settle handovers that were committed without this process learning of it.

        Nothing was sent for them, so they may be repeated.
        """
        leases = {lease for lease in self._leases.all() if self._leases.holds(lease)}
        # Of what was cut off nobody knows whether it was sent; the next owner says so.
        leases -= self._put_down
        before = self._clock.now() - ORPHANED_AFTER
        async with self._database.hot() as connection:
            found = await handovers.orphans(connection, leases, before=before, limit=REPORT)
        lost = SessionDown("It was not handed over.")
        for lease, handover in found:
            if handover.transmission_id not in self._in_flight:
                await self._reports.record(
                    lease, settlement(handover, verdict(lost), now=self._clock.now())
                )

    async def drain(self, lease: Lease, *, cut_off: asyncio.Event) -> None:
        """Wait, but not for ever, until nothing of a shard is in flight; then cut off the rest.

        What still waits for its file was certainly not sent, and says so while it may be said; what
        waits for its typing goes at once.
        """
        for timeout, held in self._bringing.items():
            if held == lease and not timeout.expired():
                timeout.reschedule(asyncio.get_running_loop().time())
        tasks = self._of(lease)
        cutting = asyncio.ensure_future(self._cut(lease, cut_off))
        try:
            if tasks:
                await asyncio.wait(tasks, timeout=self._drain)
        finally:
            cutting.cancel()
            await asyncio.gather(cutting, return_exceptions=True)
        await self.abandon(lease)

    async def abandon(self, lease: Lease) -> None:
        """Cut off what is in flight for a shard; its next owner settles it as unknown."""
        self._put_down.add(lease)
        tasks = self._of(lease)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _cut(self, lease: Lease, cut_off: asyncio.Event) -> None:
        await cut_off.wait()
        await self.abandon(lease)

    def _of(self, lease: Lease) -> Sequence[asyncio.Task[None]]:
        return [task for task, (held, _) in self._tasks.items() if held == lease]

    def _begin(self, lease: Lease, transmission: Transmission) -> None:
        if self._group is None:
            raise RuntimeError("transmissions are accepted within running() only")
        task = self._group.create_task(self._carry_out(lease, transmission))
        self._tasks[task] = (lease, transmission.transmission_id)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        _, transmission_id = self._tasks.pop(task)
        self._landed(transmission_id)

    def _landed(self, transmission_id: UUID) -> None:
        self._in_flight.pop(transmission_id, None)
        if not self._room.is_set():
            self._room.set()

    async def _carry_out(self, lease: Lease, transmission: Transmission) -> None:
        said = await self._attempt(lease, transmission)
        if said is not None:
            session = self._sessions.ready(transmission.instance_id)
            settled = _settled(transmission, said, session, self._clock.now())
            await self._reports.record(lease, settled)

    async def _attempt(self, lease: Lease, transmission: Transmission) -> Verdict | None:
        """Call the engine; ``None`` if that may not be done or told any more."""
        session = self._sessions.ready(transmission.instance_id)
        if session is None:
            return verdict(SessionDown("The instance is not connected."))
        if needed_to_say(transmission.content.kind) not in session.engine.capabilities:
            return verdict(Unsupported(f"The {session.engine.kind} engine cannot send this."))
        async with AsyncExitStack() as stack:
            try:
                attachment = await self._brought(stack, lease, transmission)
            except PlatformError as error:
                return verdict(error)
            await self._type(session, lease, transmission)
            await stack.enter_async_context(session.window)
            # Directly before the engine: a process that was paused may have lost the shard.
            if not self._leases.holds(lease):
                return None
            patience = self._patience(session, attachment)
            return await self._ask(session.engine, transmission, attachment, patience)

    async def _brought(
        self, stack: AsyncExitStack, lease: Lease, transmission: Transmission
    ) -> Attachment | None:
        """The file of a message, if it has one, for as long as ``stack`` is open.

        Whatever goes wrong here, nothing was sent.
        """
        content = transmission.content
        if not isinstance(content, Media):
            return None
        try:
            async with self._in_time(lease):
                return await stack.enter_async_context(
                    self._attachments.brought(transmission.tenant_id, content)
                )
        except PlatformError:
            raise
        except TimeoutError:
            raise Retryable("The file of the message was not there in time.") from None
        except Exception as error:
            log.exception("attachment_failed")
            raise Retryable("The file of the message could not be brought.") from error

    async def _type(self, session: Session, lease: Lease, transmission: Transmission) -> None:
        """Let the chat see that somebody types, if that is wanted, outside of the engine's window.

        When a shard is put down that is cut short, and the text goes at once.
        """
        if self._leases.holds(lease) and self._typist.wanted(session, transmission):
            with suppress(TimeoutError):
                async with self._in_time(lease):
                    await self._typist.type(session, transmission)

    @asynccontextmanager
    async def _in_time(self, lease: Lease) -> AsyncIterator[None]:
        """A deadline for what comes before the engine: nothing is sent when it has passed."""
        async with asyncio.timeout(self._media_deadline) as timeout:
            self._bringing[timeout] = lease
            try:
                yield
            finally:
                del self._bringing[timeout]

    async def _ask(
        self,
        engine: Engine,
        transmission: Transmission,
        attachment: Attachment | None,
        patience: float,
    ) -> Verdict | None:
        started = self._clock.monotonic()
        try:
            async with asyncio.timeout(patience):
                done = await engine.transmit(
                    transmission.instance_id,
                    Outgoing(
                        engine_message_id=transmission.engine_message_id,
                        to=canonical(transmission.to),
                        content=transmission.content,
                        attachment=attachment,
                    ),
                )
        except Fenced:
            return None
        except TimeoutError:
            return verdict(Unconfirmed("WhatsApp has not acknowledged the message in time."))
        except PlatformError as error:
            return verdict(error)
        except Exception:
            log.exception("engine_failed", engine=engine.kind)
            return verdict(Unconfirmed("The engine has failed."))
        self._metrics.transmit_seconds.observe(self._clock.monotonic() - started)
        return accepted(done.engine_message_id)

    def _patience(self, session: Session, attachment: Attachment | None) -> float:
        """How long the engine may take; a file has to be uploaded first."""
        deadline = self._deadline if attachment is None else self._media_deadline
        given_up = session.instance.unconfirmed_after
        return deadline if given_up is None else min(deadline, given_up)

    async def _mark(self, batch: Sequence[_Work]) -> Sequence[set[UUID]]:
        work = [(item.lease, t) for item in batch for t in item.transmissions]
        async with self._fence.statement() as connection:
            ours = await handovers.mark(connection, work, now=self._clock.now())
        return [ours] * len(batch)


def _settled(
    transmission: Transmission, said: Verdict, session: Session | None, now: datetime
) -> SettledTransmission:
    unknown = said.outcome is TransmissionOutcome.UNKNOWN
    return SettledTransmission(
        transmission_id=transmission.transmission_id,
        message_id=transmission.message_id,
        instance_id=transmission.instance_id,
        outcome=said.outcome,
        at=now,
        engine_message_id=said.engine_message_id,
        code=said.code,
        detail=said.detail,
        retry_after=said.retry_after,
        unconfirmed_after=session.instance.unconfirmed_after if session and unknown else None,
    )
