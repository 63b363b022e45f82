"""WhatsApp by linked devices, as an engine: sessions here, connections in worker processes."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import ClassVar, Final, Literal
from uuid import UUID

from services.sessions.engines.port import (
    Engine,
    MediaHandle,
    Opening,
    Outgoing,
    SessionDown,
    Sink,
    Transmitted,
)
from services.sessions.engines.whatsmeow.devices import Devices
from services.sessions.engines.whatsmeow.proxies import Proxies, checked
from services.sessions.engines.whatsmeow.session import Parts, Session
from services.sessions.engines.whatsmeow.unlinking import unlink
from services.sessions.engines.whatsmeow.workers import Terms, Workers
from services.sessions.store.fence import Fence
from shared.clock import Clock
from shared.contracts.capabilities import WHATSMEOW, Capability
from shared.contracts.questions import Answer, Question
from shared.db.database import Database
from shared.errors import PlatformError, Transient
from shared.log import get_logger

log = get_logger()

LOGGING_OUT: Final = 10.0


class WhatsmeowEngine:
    """Linked devices. See the package for how they are held."""

    kind: ClassVar[str] = "whatsmeow"
    capabilities: ClassVar[frozenset[Capability]] = WHATSMEOW

    def __init__(
        self,
        *,
        database: Database,
        fence: Fence,
        clock: Clock,
        terms: Terms,
        proxies: Sequence[str] = (),
        permits: Callable[[str], bool],
        login: Callable[[], Awaitable[None]],
        device_name: str = "Waypost",
        deaf_after: timedelta = timedelta(seconds=45),
    ) -> None:
        self._clock = clock
        self._devices = Devices(database=database, fence=fence)
        self._proxies = Proxies(
            urls=proxies,
            environment=terms.environment,
            permits=permits,
            database=database,
            fence=fence,
            clock=clock,
        )
        self._workers = Workers(terms=terms, clock=clock)
        self._login = login
        self._device_name = device_name
        self._deaf_after = deaf_after
        self._sessions: dict[UUID, Session] = {}
        self._tasks: dict[Session, asyncio.Task[None]] = {}
        self._parts: Parts | None = None
        self._group: asyncio.TaskGroup | None = None

    @property
    def processes(self) -> Sequence[int]:
        """The workers that live, by process id."""
        return [worker.pid for worker in self._workers.processes()]

    @asynccontextmanager
    async def events(self, sink: Sink) -> AsyncIterator[None]:
        self._parts = Parts(
            workers=self._workers,
            devices=self._devices,
            proxies=self._proxies,
            clock=self._clock,
            sink=sink,
            device_name=self._device_name,
            deaf_after=self._deaf_after,
            login=self._login,
        )
        stop = asyncio.Event()
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._devices.assignments.running())
            group = await stack.enter_async_context(asyncio.TaskGroup())
            working = group.create_task(self._workers.running(stop), name="whatsmeow:workers")
            checking = group.create_task(self._proxies.run(), name="whatsmeow:proxies")
            # One turn of the loop, so that workers can be started when we say that they can.
            await asyncio.sleep(0)
            self._group = group
            try:
                yield
            finally:
                for instance_id in list(self._sessions):
                    await self.close(instance_id)
                self._group = None
                checking.cancel()
                stop.set()
                await asyncio.wait([working])

    async def open(self, opening: Opening) -> None:
        present = self._sessions.get(opening.instance_id)
        if present is not None:
            if present.opening.lease == opening.lease and not present.ending:
                return
            await self.close(opening.instance_id)
        if self._group is None or self._parts is None:
            raise Transient("The engine is not running.")
        if opening.proxy is not None:
            checked(opening.proxy)
        session = Session(opening, self._parts)
        self._sessions[opening.instance_id] = session
        self._tasks[session] = self._group.create_task(
            self._keep(session), name=f"whatsmeow:{opening.instance_id}"
        )

    async def transmit(self, instance_id: UUID, outgoing: Outgoing) -> Transmitted:
        return await self._session(instance_id).transmit(outgoing)

    async def ask(self, instance_id: UUID, question: Question) -> Answer:
        return await self._session(instance_id).ask(question)

    async def mark_read(
        self,
        instance_id: UUID,
        *,
        chat: str,
        sender: str,
        engine_message_ids: Sequence[str],
        played: bool = False,
    ) -> None:
        await self._session(instance_id).request(
            "mark_read",
            chat=chat,
            sender=sender,
            message_ids=list(engine_message_ids),
            played=played,
        )

    async def show_presence(
        self, instance_id: UUID, *, chat: str, state: Literal["typing", "recording", "paused"]
    ) -> None:
        await self._session(instance_id).request("show_presence", chat=chat, state=state)

    async def fetch(self, instance_id: UUID, media: MediaHandle, into: Path) -> None:
        await self._session(instance_id).request("fetch", media=dict(media), into=str(into))

    async def close(self, instance_id: UUID) -> None:
        session = self._sessions.pop(instance_id, None)
        if session is None:
            return
        await session.quieten()
        task = self._tasks.pop(session, None)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def forget(self, opening: Opening) -> None:
        session = self._sessions.get(opening.instance_id)
        try:
            await self._devices.require(opening.lease)
            unlinked = session is not None and await self._log_out(session)
        finally:
            await self.close(opening.instance_id)
        if not unlinked:
            await unlink(opening, parts=self._parts)
        await self._devices.forget(opening.instance_id, lease=opening.lease)

    async def _keep(self, session: Session) -> None:
        try:
            await session.run()
        finally:
            self._tasks.pop(session, None)
            if self._sessions.get(session.instance_id) is session:
                del self._sessions[session.instance_id]

    async def _log_out(self, session: Session) -> bool:
        if not session.online:
            return False
        try:
            async with asyncio.timeout(LOGGING_OUT):
                await session.request("log_out")
        except (PlatformError, TimeoutError):
            log.warning("device_not_unlinked", instance_id=str(session.instance_id))
            return False
        return True

    def _session(self, instance_id: UUID) -> Session:
        session = self._sessions.get(instance_id)
        if session is None:
            raise SessionDown("The session is not open.")
        return session


_: type[Engine] = WhatsmeowEngine
