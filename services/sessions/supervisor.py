"""The supervisor: keeps a session for every instance that should have one, and says how it is."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Final, Self
from uuid import UUID

from services.sessions.chronicle import REPLACED, Chronicle, after, ending
from services.sessions.domain import lifecycle
from services.sessions.domain.instance import Instance, Step, next_step
from services.sessions.domain.lease import Lease
from services.sessions.domain.lifecycle import Change, State, Status
from services.sessions.engines.port import (
    Engine,
    Failed,
    Hindered,
    Opening,
    Replaced,
    SessionHappening,
)
from services.sessions.leases import Leases
from services.sessions.logins import LoginBudget
from services.sessions.metrics import SessionsMetrics
from services.sessions.store import instances
from shared import backoff
from shared.clock import Clock
from shared.db.database import Database
from shared.db.group_commit import GroupCommit
from shared.errors import Fenced, Rejected, Transient
from shared.log import get_logger
from shared.security.sealing import (
    KeyRing,
    Unsealable,
    open_settings,
    open_text,
    proxy_place,
)

log = get_logger()

Found = tuple[Instance, State | None]

# Per session: more would only wait in WhatsApp's own queue.
WINDOW: Final = 64
REOPEN_AFTER: Final = timedelta(seconds=2)
# Somebody else uses the same credentials if a session that is ours is replaced that often.
REPLACEMENTS: Final = 3
REPLACED_WITHIN: Final = timedelta(minutes=5)
BACK_AT_LATEST: Final = timedelta(minutes=1)
# How often everybody is told that connecting still fails, and for the same reason.
HINDERED_EVERY: Final = timedelta(seconds=30)
ENGINE_MISSING: Final = "engine_missing"


class Session:
    """The live connection of one instance, under one lease.

    ``replaced_at`` are the last times that it was replaced, ``hindered`` is what was last told of
    its attempts to connect, and when; both by the monotonic clock.
    """

    def __init__(self, instance: Instance, lease: Lease, engine: Engine) -> None:
        self.instance = instance
        self.lease = lease
        self.engine = engine
        self.status = Status.CONNECTING
        self.number: str | None = instance.phone_number
        self.window = asyncio.Semaphore(WINDOW)
        self.closing = False
        self.replaced_at: list[float] = []
        self.hindered: tuple[str, float] | None = None


class Supervisor:
    """Opens, closes and reopens sessions, a few per second; what becomes of them is written."""

    def __init__(
        self,
        *,
        database: Database,
        leases: Leases,
        chronicle: Chronicle,
        engines: Mapping[str, Engine],
        missing: Mapping[str, str] | None = None,
        logins: LoginBudget,
        ring: KeyRing,
        clock: Clock,
        metrics: SessionsMetrics,
    ) -> None:
        self._database = database
        self._ring = ring
        self._leases = leases
        self._chronicle = chronicle
        self._engines = engines
        # Engines that are not here, with what to do about it.
        self._missing = missing or {}
        self._logins = logins
        self._clock = clock
        self._metrics = metrics
        self._sessions: dict[UUID, Session] = {}
        self._locks: dict[UUID, asyncio.Lock] = {}
        self._group: asyncio.TaskGroup | None = None
        self._opening: set[asyncio.Task[None]] = set()
        # Together, because a process that starts, or takes over, claims many shards at once.
        self._finds: GroupCommit[int, Sequence[Found]] = GroupCommit(self._find, name="adoptions")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Be able to open sessions for as long as the context is open."""
        async with self._finds.running(), asyncio.TaskGroup() as group:
            self._group = group
            try:
                yield self
            finally:
                for task in self._opening:
                    task.cancel()

    def session(self, instance_id: UUID) -> Session | None:
        """The session of an instance, connected or not."""
        return self._sessions.get(instance_id)

    def ready(self, instance_id: UUID) -> Session | None:
        """The session of an instance if it can send."""
        session = self._sessions.get(instance_id)
        return session if session is not None and session.status is Status.READY else None

    async def adopt(self, lease: Lease) -> None:
        """Open the sessions of a shard; what an earlier owner left connected comes back."""
        for instance, state in await self._finds.submit(lease.shard):
            await self._set_right(instance, state)

    async def leave(self, lease: Lease) -> None:
        """Close a shard's sessions in good order: the next owner opens them again."""
        for session in self._of(lease):
            await self._close(session)
            try:
                await self._chronicle.change(
                    session.instance,
                    lease,
                    lambda state: lifecycle.interrupted(
                        state, reason="moved", now=self._clock.now()
                    ),
                )
            except (Fenced, Transient) as error:
                log.warning("session_left_unsaid", reason=error.message)

    async def abandon(self, lease: Lease) -> None:
        """Close a lost shard's sessions without a word: there may be another owner already."""
        for session in self._of(lease):
            await self._close(session)

    async def connect(self, instance_id: UUID, *, restart: bool = False) -> None:
        """An instance should be connected, says a command: look at its row."""
        async with self._lock(instance_id):
            found = await self._look(instance_id)
            if found is None or not found[0].wanted:
                return
            instance, state = found
            present = self._sessions.get(instance_id)
            if present is not None and not restart:
                present.instance = instance
                return
            if present is not None:
                await self._end(present.instance, present.lease, reason="restarted")
            elif next_step(instance, state, live=False) is not Step.OPEN:
                # For the second time, and it has ended since: by a ban, say.
                return
            await self._begin(instance)

    async def disconnect(self, instance_id: UUID, *, logout: bool = False) -> None:
        """An instance should not be connected, says a command: look at its row."""
        async with self._lock(instance_id):
            found = await self._look(instance_id)
            if found is None or found[0].wanted:
                # Late, or for the second time: somebody has connected it again since.
                return
            lease = self._leases.of(found[0].shard)
            if lease is not None:
                await self._end(found[0], lease, forget=logout or found[0].deleted)

    async def reconcile(self) -> None:
        """Compare what is wanted with what is so, and repair what a lost command left wrong."""
        held = {lease.shard for lease in self._leases.all() if self._leases.holds(lease)}
        async with self._database.hot() as connection:
            found = await instances.of_shards(connection, held)
        for instance, state in found:
            await self._set_right(instance, state)
        for instance_id in [id_ for id_, lock in self._locks.items() if not lock.locked()]:
            if instance_id not in self._sessions:
                del self._locks[instance_id]

    async def handle(self, event: SessionHappening) -> bool:
        """Write down what an engine says about a session; whether that is committed."""
        session = self._sessions.get(event.instance_id)
        if session is None or session.closing:
            return True  # It was closed while this was on its way; there is nothing left to say.
        if isinstance(event, Hindered) and self._told_lately(session, event):
            return True
        now = self._clock.now()
        try:
            state = await self._chronicle.change(
                session.instance, session.lease, lambda state: after(state, event, now=now)
            )
            if isinstance(event, Replaced):
                state = await self._bring_back(session) or state
        except Fenced:
            if isinstance(event, Replaced):
                # By the shard's new owner, as it should be; there is nothing to say.
                self._forget(session)
                return True
            return False
        session.status = state.status
        session.number = state.phone_number or session.number
        if session.status in lifecycle.ENDS:
            self._forget(session)
        return True

    def _told_lately(self, session: Session, event: Hindered) -> bool:
        now = self._clock.monotonic()
        if session.hindered is not None:
            reason, at = session.hindered
            if reason == event.reason and now - at < HINDERED_EVERY.total_seconds():
                return True
        session.hindered = (event.reason, now)
        return False

    async def _bring_back(self, session: Session) -> State | None:
        """Open a session again that was replaced although it is ours, unless that goes on.

        Returns the state that it has come to if it is given up. Raises ``Fenced``.
        """
        now = self._clock.monotonic()
        since = now - REPLACED_WITHIN.total_seconds()
        times = [*(at for at in session.replaced_at if at > since), now]
        if len(times) >= REPLACEMENTS:
            decide = ending(
                Status.FAILED,
                REPLACED,
                error=True,
                now=self._clock.now(),
                detail="replaced by another client that uses the same credentials",
            )
            return await self._chronicle.change(session.instance, session.lease, decide)
        session.replaced_at = times
        wait = backoff.exponential(len(times), base=REOPEN_AFTER, cap=BACK_AT_LATEST, jitter=0)
        self._start_opening(session, wait=wait)
        return None

    async def _set_right(self, instance: Instance, state: State | None) -> None:
        async with self._lock(instance.id):
            lease = self._leases.of(instance.shard)
            if lease is None:
                return
            present = self._sessions.get(instance.id)
            match next_step(instance, state, live=present is not None):
                case Step.OPEN:
                    await self._begin(instance)
                case Step.CLOSE:
                    await self._end(instance, lease)
                case Step.FORGET:
                    await self._end(instance, lease, forget=True)
                case Step.KEEP:
                    if present is not None:
                        present.instance = instance

    async def _begin(self, instance: Instance) -> None:
        lease = self._leases.of(instance.shard)
        engine = self._engines.get(instance.engine)
        if lease is None or self._group is None:
            return
        now = self._clock.now()
        if engine is None:
            why = self._missing.get(instance.engine, f"There is no engine {instance.engine} here.")
            decide = ending(Status.FAILED, ENGINE_MISSING, error=True, now=now, detail=why)
            await self._chronicle.change(instance, lease, decide)
            return
        session = Session(instance, lease, engine)
        self._sessions[instance.id] = session
        self._metrics.live.set(len(self._sessions))
        try:
            await self._chronicle.change(instance, lease, lambda state: _reopened(state, now=now))
        except BaseException:
            # Left in place, it would look alive to whoever tries again, and never be opened.
            self._forget(session)
            raise
        self._start_opening(session)

    def _start_opening(self, session: Session, *, wait: timedelta = timedelta(0)) -> None:
        if self._group is None:
            return
        task = self._group.create_task(
            self._open(session, wait=wait), name=f"open:{session.instance.id}"
        )
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _open(self, session: Session, *, wait: timedelta) -> None:
        await self._clock.sleep(wait)
        while self._keeps(session):
            await self._logins.turn()
            if not self._keeps(session) or not self._leases.holds(session.lease):
                return
            instance = session.instance
            try:
                await session.engine.open(self._opening_of(instance, session.lease))
            except Transient as error:
                log.warning("session_not_opened", reason=error.message)
                await self._clock.sleep(error.retry_after or REOPEN_AFTER)
            except Fenced:
                return  # Whoever owns the shard now opens it.
            except Rejected as error:
                await self._give_up(session, error.message)
                return
            else:
                self._metrics.logins.inc()
                present = self._sessions.get(instance.id)
                if present is None or (present is session and session.closing):
                    # It was closed while the engine was opening it.
                    await session.engine.close(instance.id)
                return

    async def _give_up(self, session: Session, reason: str) -> None:
        """Write down that a session can never be opened; nobody else would say it again."""
        id_ = session.instance.id
        while self._keeps(session) and self._leases.holds(session.lease):
            try:
                await self.handle(Failed(instance_id=id_, at=self._clock.now(), reason=reason))
            except Transient as error:
                log.warning("session_end_unsaid", reason=error.message)
                await self._clock.sleep(REOPEN_AFTER)
            else:
                return

    async def _end(
        self, instance: Instance, lease: Lease, *, forget: bool = False, reason: str = "requested"
    ) -> None:
        session = self._sessions.get(instance.id)
        engine = self._engines.get(instance.engine)
        if session is not None:
            await self._close(session, forget=forget)
        elif forget and engine is not None:
            await engine.forget(self._opening_of(instance, lease, forgetting=True))
        status = Status.LOGGED_OUT if forget else Status.DISCONNECTED
        await self._chronicle.change(
            instance, lease, ending(status, reason, error=False, now=self._clock.now())
        )

    async def _close(self, session: Session, *, forget: bool = False) -> None:
        """Close a session; what it has received by then can still be committed."""
        session.closing = True
        session.status = Status.CONNECTING  # Nothing is handed to it any more.
        try:
            if forget:
                opening = self._opening_of(session.instance, session.lease, forgetting=True)
                await session.engine.forget(opening)
            else:
                await session.engine.close(session.instance.id)
        finally:
            self._forget(session)

    def _forget(self, session: Session) -> None:
        if self._sessions.get(session.instance.id) is session:
            del self._sessions[session.instance.id]
        self._metrics.live.set(len(self._sessions))

    def _keeps(self, session: Session) -> bool:
        return self._sessions.get(session.instance.id) is session and not session.closing

    def _of(self, lease: Lease) -> Sequence[Session]:
        return [session for session in self._sessions.values() if session.lease == lease]

    def _lock(self, instance_id: UUID) -> asyncio.Lock:
        return self._locks.setdefault(instance_id, asyncio.Lock())

    def _opening_of(self, instance: Instance, lease: Lease, *, forgetting: bool = False) -> Opening:
        place = proxy_place(instance.tenant_id, instance.id)
        try:
            proxy = None if instance.proxy is None else open_text(self._ring, instance.proxy, place)
        except Unsealable as error:
            # It must not go out by another way than was wished for.
            raise Transient(f"The instance's proxy cannot be read. {error.message}") from None
        settings = instance.settings
        try:
            settings = open_settings(self._ring, settings, instance.tenant_id, instance.id)
        except Unsealable as error:
            # What nobody can read any more can still be forgotten.
            if not forgetting:
                why = f"The instance's secrets cannot be read. {error.message}"
                raise Transient(why) from None
        return Opening(
            instance_id=instance.id,
            tenant_id=instance.tenant_id,
            lease=lease,
            phone_number=instance.phone_number,
            settings=settings,
            proxy=proxy,
            device_name=instance.device_name,
        )

    async def _find(self, shards: Sequence[int]) -> Sequence[Sequence[Found]]:
        async with self._database.hot() as connection:
            found = await instances.of_shards(connection, shards)
        return [[pair for pair in found if pair[0].shard == shard] for shard in shards]

    async def _look(self, instance_id: UUID) -> Found | None:
        async with self._database.hot() as connection:
            return await instances.one(connection, instance_id)


def _reopened(state: State, *, now: datetime) -> Change | None:
    if state.status in lifecycle.ACTIVE:
        return lifecycle.interrupted(state, reason="moved", now=now)
    return lifecycle.opened(state, now=now)
