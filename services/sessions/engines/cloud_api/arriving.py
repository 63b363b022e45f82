"""Arriving: stored callbacks, offered to the sink for the sessions that are open here.

A callback is deleted when all that it tells is committed. What is cut off between the two is told
once more, and recognised.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

from services.sessions.engines.cloud_api import incoming
from services.sessions.engines.cloud_api.incoming import Unreadable
from services.sessions.engines.cloud_api.session import Session
from services.sessions.engines.port import EngineEvent, MessageReceived, Sink
from services.sessions.metrics import SessionsMetrics
from services.sessions.store import callbacks
from services.sessions.store.callbacks import Waiting
from shared.clock import Clock
from shared.db.database import Database
from shared.errors import Transient
from shared.log import get_logger
from shared.nudge import Nudge
from shared.security.sealing import KeyRing, Unsealable

log = get_logger()

# The news may be lost.
LOOK_EVERY: Final = timedelta(seconds=1)
OFFER_AGAIN: Final = timedelta(seconds=1)
# Each may tell of a thousand messages.
LOOK_LIMIT: Final = 50


@dataclass(frozen=True, slots=True)
class _Told:
    """What one callback tells."""

    waiting: Waiting
    events: Sequence[EngineEvent]
    unreadable: int


class Arriving:
    """Reads what waits for ``sessions``, which are those that the engine keeps."""

    def __init__(
        self,
        *,
        database: Database,
        ring: KeyRing,
        sessions: Mapping[UUID, Session],
        clock: Clock,
        metrics: SessionsMetrics,
    ) -> None:
        self._database = database
        self._ring = ring
        self._sessions = sessions
        self._clock = clock
        self._metrics = metrics
        self._nudge = Nudge()
        self._looking = asyncio.Lock()

    def wake(self) -> None:
        """There is something to look at."""
        self._nudge.set()

    async def finished(self) -> None:
        """Return when nothing is being offered that was looked at before."""
        async with self._looking:
            pass

    async def run(self, sink: Sink) -> None:
        """Look until cancelled."""
        while True:
            self._nudge.clear()
            try:
                more = await self.step(sink)
            except Transient as error:
                log.warning("callbacks_not_taken", reason=error.message)
                more = False
            if not more:
                await self._nudge.wait(LOOK_EVERY)

    async def step(self, sink: Sink) -> bool:
        """Offer what waits for the sessions that are online; whether there is more at once."""
        async with self._looking:
            return await self._look(sink)

    async def _look(self, sink: Sink) -> bool:
        now = self._clock.monotonic()
        online = [
            session.instance_id
            for session in self._sessions.values()
            if session.online and session.told and session.quiet_until <= now
        ]
        if not online:
            return False
        async with self._database.hot() as connection:
            found = await callbacks.waiting(connection, online, limit=LOOK_LIMIT)
        if not found:
            return False
        told = [self._read(waiting) for waiting in found]
        flags = await self._offer(sink, told)
        await self._settle(told, flags)
        return len(found) == LOOK_LIMIT

    async def measure(self) -> None:
        """See how long callbacks have waited."""
        online = [id_ for id_, session in self._sessions.items() if session.online]
        async with self._database.hot() as connection:
            since = await callbacks.oldest(connection, online)
        age = 0.0 if since is None else (self._clock.now() - since).total_seconds()
        self._metrics.callback_age.set(age)

    def _read(self, waiting: Waiting) -> _Told:
        try:
            said = incoming.read(
                waiting.opened(self._ring),
                instance_id=waiting.instance_id,
                at=waiting.received_at,
            )
        except (Unsealable, Unreadable) as error:
            log.error("callback_not_readable", callback_id=str(waiting.id), why=str(error))  # noqa: TRY400 - no traceback: its lines would show what was said
            return _Told(waiting, (), 1)
        return _Told(waiting, said.events, said.unreadable)

    async def _offer(self, sink: Sink, told: Sequence[_Told]) -> Sequence[bool]:
        """Offer everything at once, in order; for each callback, whether all of it was taken."""
        events = [event for one in told for event in one.events]
        taken = list(await sink(events)) if events else []
        flags = []
        for one in told:
            mine, taken = taken[: len(one.events)], taken[len(one.events) :]
            session = self._sessions.get(one.waiting.instance_id)
            if session is not None:
                self._remember(session, one.events, mine)
            flags.append(all(mine))
        return flags

    def _remember(
        self, session: Session, events: Sequence[EngineEvent], taken: Collection[bool]
    ) -> None:
        for event, was_taken in zip(events, taken, strict=True):
            if was_taken and isinstance(event, MessageReceived):
                session.heard(event)
        if not all(taken):
            again = self._clock.monotonic() + OFFER_AGAIN.total_seconds()
            session.quiet_until = again

    async def _settle(self, told: Sequence[_Told], flags: Sequence[bool]) -> None:
        done = [one for one, taken in zip(told, flags, strict=True) if taken]
        read = [one.waiting.sequence for one in done if not one.unreadable]
        aside = [one.waiting.sequence for one in done if one.unreadable]
        async with self._database.hot(durable=False) as connection:
            if read:
                await callbacks.taken(connection, read)
            if aside:
                await callbacks.set_aside(connection, aside, error="UNREADABLE")
        self._metrics.callbacks.labels("taken").inc(len(read))
        self._metrics.callbacks.labels("unreadable").inc(len(aside))
        self._metrics.callbacks.labels("postponed").inc(len(told) - len(done))
