"""The Cloud API as an engine: a token for a device, and callbacks for a connection."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import ClassVar, Final, Literal
from uuid import UUID

from services.sessions.domain.lease import Lease
from services.sessions.engines.cloud_api import outgoing as requests
from services.sessions.engines.cloud_api.account import Account
from services.sessions.engines.cloud_api.arriving import Arriving
from services.sessions.engines.cloud_api.graph import Graph
from services.sessions.engines.cloud_api.refusals import SessionOver
from services.sessions.engines.cloud_api.session import Session
from services.sessions.engines.port import (
    Banned,
    Connected,
    Ending,
    Engine,
    EngineEvent,
    Failed,
    Hindered,
    LoggedOut,
    MediaHandle,
    Opening,
    Outgoing,
    Refused,
    SessionDown,
    Sink,
    Transmitted,
    capable,
    needed_to_ask,
)
from services.sessions.metrics import SessionsMetrics
from services.sessions.store import callbacks
from services.sessions.store import fence as fences
from services.sessions.store.fence import Fence
from shared.backoff import exponential
from shared.clock import Clock
from shared.contracts.capabilities import CLOUD_API, Capability
from shared.contracts.content import Identity, Media
from shared.contracts.questions import Answer, Profile, Question
from shared.db.database import Database
from shared.db.group_commit import GroupCommit
from shared.errors import Fenced, PlatformError, Rejected, Transient
from shared.log import get_logger
from shared.security.sealing import KeyRing

log = get_logger()

OFFER_AGAIN: Final = timedelta(seconds=1)
FIRST_RETRY: Final = timedelta(seconds=2)
LONGEST_RETRY: Final = timedelta(minutes=1)


class CloudApiEngine:
    """Numbers at Meta. See the package for how they are spoken for."""

    kind: ClassVar[str] = "cloud_api"
    capabilities: ClassVar[frozenset[Capability]] = CLOUD_API

    def __init__(
        self,
        *,
        database: Database,
        fence: Fence,
        ring: KeyRing,
        graph: Graph,
        clock: Clock,
        metrics: SessionsMetrics,
    ) -> None:
        self._fence = fence
        self._graph = graph
        self._clock = clock
        self._sessions: dict[UUID, Session] = {}
        self._arriving = Arriving(
            database=database, ring=ring, sessions=self._sessions, clock=clock, metrics=metrics
        )
        # Together, because it is asked before every message.
        self._holds: GroupCommit[Lease, bool] = GroupCommit(self._held, name="cloud-api-leases")
        self._sink: Sink | None = None
        self._group: asyncio.TaskGroup | None = None

    def wake(self) -> None:
        """Callbacks were stored for somebody."""
        self._arriving.wake()

    async def measure(self) -> None:
        """See how long callbacks have waited."""
        await self._arriving.measure()

    @asynccontextmanager
    async def events(self, sink: Sink) -> AsyncIterator[None]:
        self._sink = sink
        async with self._graph.web, self._holds.running(), asyncio.TaskGroup() as group:
            self._group = group
            arriving = group.create_task(self._arriving.run(sink), name="cloud_api:arriving")
            try:
                yield
            finally:
                arriving.cancel()
                for instance_id in list(self._sessions):
                    await self.close(instance_id)
                self._group = None

    async def open(self, opening: Opening) -> None:
        present = self._sessions.get(opening.instance_id)
        if present is not None:
            if present.opening.lease == opening.lease and not present.ending:
                return
            await self.close(opening.instance_id)
        if self._group is None:
            raise Transient("The engine is not running.")
        session = Session(opening, Account.of(opening.settings))
        self._sessions[opening.instance_id] = session
        session.task = self._group.create_task(
            self._bring_up(session), name=f"cloud_api:{opening.instance_id}"
        )

    async def close(self, instance_id: UUID) -> None:
        session = self._sessions.pop(instance_id, None)
        if session is None:
            return
        session.online = False
        if session.task is not None:
            session.task.cancel()
            await asyncio.gather(session.task, return_exceptions=True)
        await self._arriving.finished()

    async def forget(self, opening: Opening) -> None:
        """There is no device to unlink: the token stays valid until it is revoked at Meta."""
        await self.close(opening.instance_id)
        async with self._fence.statement() as connection:
            held = await callbacks.forget(connection, opening.lease, opening.instance_id)
        if not held:
            raise Fenced("Another process owns this connection now.")

    async def transmit(self, instance_id: UUID, outgoing: Outgoing) -> Transmitted:
        session = self._online(instance_id)
        requests.check(outgoing)
        # What cannot be said is refused before a file is uploaded for it.
        requests.request(outgoing, media_id="")
        await self._require(session)
        with self._speaking(session):
            media_id = await self._uploaded(session, outgoing)
            body = requests.request(outgoing, media_id=media_id)
            id_ = await self._graph.send(session.account, body)
        return Transmitted(engine_message_id=id_, at=self._clock.now())

    async def ask(self, instance_id: UUID, question: Question) -> Answer:
        session = self._online(instance_id)
        capable(self, needed_to_ask(question))
        with self._speaking(session):
            number = await self._graph.number(session.account)
            business = await self._graph.business(session.account)
        phone = number.phone_number or session.number
        return Profile(
            identity=Identity(
                phone=phone,
                chat_id=f"{(phone or '').removeprefix('+')}@s.whatsapp.net",
                push_name=number.verified_name,
            ),
            about=business.about,
            picture_url=business.profile_picture_url,
        )

    async def mark_read(
        self,
        instance_id: UUID,
        *,
        chat: str,
        sender: str,
        engine_message_ids: Sequence[str],
        played: bool = False,
    ) -> None:
        session = self._online(instance_id)
        with self._speaking(session):
            for message_id in engine_message_ids:
                await self._graph.mark(session.account, requests.read_mark(message_id))

    async def show_presence(
        self, instance_id: UUID, *, chat: str, state: Literal["typing", "recording", "paused"]
    ) -> None:
        """Meta knows one sign, typing, and shows it as an answer to a message, until 25 seconds
        have passed or the answer is there; so there is nothing to do about ``paused``.
        """
        session = self._online(instance_id)
        if state == "paused":
            return
        message_id = session.last_in(chat)
        if message_id is None:
            raise Refused("WhatsApp shows typing as an answer; there is no message to answer yet.")
        with self._speaking(session):
            body = requests.read_mark(message_id, typing=True)
            await self._graph.mark(session.account, body)

    async def fetch(self, instance_id: UUID, media: MediaHandle, into: Path) -> None:
        session = self._online(instance_id)
        with self._speaking(session):
            await self._graph.fetch(session.account, media.get("id", ""), into)

    async def _uploaded(self, session: Session, outgoing: Outgoing) -> str | None:
        file, content = outgoing.attachment, outgoing.content
        if file is None or not isinstance(content, Media):
            return None
        media_id = await self._graph.upload(session.account, file, filename=content.filename)
        # That may have taken longer than a lease lasts.
        await self._require(session)
        return media_id

    @contextmanager
    def _speaking(self, session: Session) -> Iterator[None]:
        """What is asked in here may show that the number cannot be used any more."""
        try:
            yield
        except SessionOver as error:
            self._end(session, error)
            raise

    async def _bring_up(self, session: Session) -> None:
        attempt = 0
        while (said := await self._asked(session)) is None:
            attempt += 1
            wait = exponential(attempt, base=FIRST_RETRY, cap=LONGEST_RETRY, jitter=_jitter())
            await self._clock.sleep(wait)
        if isinstance(said, Connected):
            session.number = said.phone_number
            session.online = True
            await self._offer(session, said)
            session.told = True
            self._arriving.wake()
        else:
            await self._over(session, said)

    async def _asked(self, session: Session) -> Connected | Ending | None:
        """Whether the token may speak for the number; ``None`` if that is not known yet."""
        id_ = session.instance_id
        try:
            number = await self._graph.number(session.account)
        except SessionOver as error:
            return _ending(session, error, self._clock)
        except Rejected as error:
            return Failed(instance_id=id_, at=self._clock.now(), reason=error.message)
        except PlatformError as error:
            hindered = Hindered(instance_id=id_, at=self._clock.now(), reason=error.message)
            await self._offer(session, hindered)
            return None
        return Connected(instance_id=id_, at=self._clock.now(), phone_number=number.phone_number)

    def _end(self, session: Session, error: SessionOver) -> None:
        """Begin to say that a session is over; once, however many messages have found out."""
        if session.ending or self._group is None:
            return
        session.online = False
        session.ending = True
        session.task = self._group.create_task(
            self._over(session, _ending(session, error, self._clock)),
            name=f"cloud_api:ending:{session.instance_id}",
        )

    async def _over(self, session: Session, event: Ending) -> None:
        session.online = False
        session.ending = True
        await self._offer(session, event)
        if self._sessions.get(session.instance_id) is session:
            del self._sessions[session.instance_id]

    async def _offer(self, session: Session, event: EngineEvent) -> None:
        """Put an event into the sink until it is taken, or the session is closed."""
        while self._sink is not None and self._sessions.get(session.instance_id) is session:
            try:
                (taken,) = await self._sink([event])
            except Transient:
                taken = False
            if taken:
                return
            await self._clock.sleep(OFFER_AGAIN)

    def _online(self, instance_id: UUID) -> Session:
        session = self._sessions.get(instance_id)
        if session is None or not session.online:
            raise SessionDown("The session is not connected.")
        return session

    async def _require(self, session: Session) -> None:
        """Raise ``Fenced`` unless the session's lease is valid. Meta knows nothing of leases."""
        if not await self._holds.submit(session.opening.lease):
            raise Fenced("Another process owns this connection now.")

    async def _held(self, leases: Sequence[Lease]) -> Sequence[bool]:
        async with self._fence.tx() as connection:
            held = await fences.hold(connection, leases)
        return [lease in held for lease in leases]


def _ending(session: Session, error: SessionOver, clock: Clock) -> Ending:
    kind: type[LoggedOut | Banned | Failed]
    match error.end:
        case "logged_out":
            kind = LoggedOut
        case "banned":
            kind = Banned
        case "failed":
            kind = Failed
    return kind(instance_id=session.instance_id, at=clock.now(), reason=error.message)


def _jitter() -> float:
    return random.uniform(-1, 1)  # noqa: S311 - spreads retries, guards nothing


_: type[Engine] = CloudApiEngine
