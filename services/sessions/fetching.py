"""Fetching: the files of received messages, from WhatsApp into the media store."""

import asyncio
import hashlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final, Protocol, Self
from uuid import UUID

from services.sessions.domain.fetching import given_up, next_try
from services.sessions.domain.lease import Lease
from services.sessions.engines.port import SessionDown
from services.sessions.leases import Leases
from services.sessions.metrics import SessionsMetrics
from services.sessions.scratch import Scratch
from services.sessions.store import inbound_media
from services.sessions.store.fence import Fence
from services.sessions.store.inbound_media import Waiting
from services.sessions.supervisor import Session
from shared.clock import Clock
from shared.db.database import Database
from shared.errors import Fenced, PlatformError, Rejected, Transient
from shared.log import get_logger
from shared.media import keeping, kinds
from shared.media.kinds import MediaTooLarge
from shared.media.store import MediaStore
from shared.metrics import MessagingMetrics
from shared.nudge import Nudge
from shared.security.sealing import KeyRing

log = get_logger()

LOOK_EVERY: Final = timedelta(seconds=1)
# A file that is being deleted as it is put comes to stay at the second attempt, if not the first.
PUTS: Final = 3
# What cannot be read is looked at again after so long: somebody may bring its key back.
UNREADABLE: Final = timedelta(minutes=1)
# Of all files at a time, a quarter is out of any one tenant's reach.
OTHERS: Final = 4


class Sessions(Protocol):
    """Where the sessions are found that can fetch."""

    def ready(self, instance_id: UUID) -> Session | None:
        """The session of an instance if it is connected."""
        ...


@dataclass(frozen=True, slots=True)
class _Measured:
    mime_type: str
    size: int
    sha256: str


class Fetching:
    """Fetches what is due for the shards of this process, a bounded number at a time.

    One tenant leaves a part of that to all others, however much of its own is overdue.

    An attempt is counted before it is made. Everything after that may be repeated: the same file
    put again is the same file, and a row is marked once. ``largest`` is in bytes.
    """

    def __init__(
        self,
        *,
        database: Database,
        ring: KeyRing,
        fence: Fence,
        leases: Leases,
        sessions: Sessions,
        store: MediaStore,
        scratch: Scratch,
        clock: Clock,
        metrics: SessionsMetrics,
        messaging: MessagingMetrics,
        deadline: timedelta,
        largest: int,
        most: int,
    ) -> None:
        self._database = database
        self._ring = ring
        self._fence = fence
        self._leases = leases
        self._sessions = sessions
        self._store = store
        self._scratch = scratch
        self._clock = clock
        self._metrics = metrics
        self._messaging = messaging
        self._deadline = deadline.total_seconds()
        self._largest = largest
        self._most = most
        self._each = most - most // OTHERS
        self._tasks: dict[asyncio.Task[None], Waiting] = {}
        self._nudge = Nudge()
        self._group: asyncio.TaskGroup | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Be able to fetch for as long as the context is open; what is cut off is fetched again."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                yield self
            finally:
                for task in self._tasks:
                    task.cancel()

    async def run(self) -> None:
        """Look for what is due, at once when something has come, until cancelled."""
        while True:
            self._nudge.clear()
            try:
                await self.step()
            except Transient as error:
                log.warning("media_not_looked_for", reason=error.message)
            else:
                succeeded = self._messaging.loop_succeeded.labels("fetching")
                succeeded.set(self._clock.now().timestamp())
            await self._nudge.wait(LOOK_EVERY)

    def wake(self) -> None:
        """There is something to fetch."""
        self._nudge.set()

    async def step(self) -> None:
        """Begin to fetch what is due, as far as there is room."""
        room = self._most - len(self._tasks)
        leases = {lease.shard: lease for lease in self._leases.all() if self._leases.holds(lease)}
        if room <= 0 or not leases:
            return
        now = self._clock.now()
        under_way = Counter(waiting.tenant_id for waiting in self._tasks.values())
        async with self._database.hot() as connection:
            due, unreadable = await inbound_media.due(
                connection,
                leases.keys(),
                ring=self._ring,
                now=now,
                without=[waiting.id for waiting in self._tasks.values()],
                without_tenants=[id_ for id_, count in under_way.items() if count >= self._each],
                limit=room,
            )
        if unreadable:
            await self._put_off({leases[shard] for _, shard in unreadable}, unreadable)
        found = []
        for waiting in due:
            under_way[waiting.tenant_id] += 1
            if under_way[waiting.tenant_id] <= self._each:
                found.append(waiting)
        if not found:
            return
        if len(found) < len(due):
            self._nudge.set()  # For what others have behind those that were left out.
        tries = [
            (
                leases[waiting.shard],
                waiting,
                next_try(waiting.attempts + 1, now=now, jitter=_jitter()),
            )
            for waiting in found
        ]
        async with self._fence.statement() as connection:
            ours = await inbound_media.begin(connection, tries)
        for lease, waiting, _ in tries:
            if waiting.id in ours:
                self._begin(lease, waiting)

    async def _put_off(
        self, leases: Collection[Lease], unreadable: Sequence[tuple[UUID, int]]
    ) -> None:
        """Let others go before what no key opens, until somebody has brought its key back."""
        until = self._clock.now() + UNREADABLE
        async with self._fence.statement() as connection:
            await inbound_media.put_off(
                connection, leases, [id_ for id_, _ in unreadable], until=until
            )
        self._nudge.set()  # Behind them there may be more.

    async def measure(self) -> None:
        """See how long files have waited."""
        shards = {lease.shard for lease in self._leases.all() if self._leases.holds(lease)}
        async with self._database.hot() as connection:
            since = await inbound_media.oldest(connection, shards)
        age = 0.0 if since is None else (self._clock.now() - since).total_seconds()
        self._metrics.media_age.set(age)

    def _begin(self, lease: Lease, waiting: Waiting) -> None:
        if self._group is None:
            raise RuntimeError("files are fetched within running() only")
        task = self._group.create_task(self._try(lease, waiting), name=f"fetch:{waiting.id}")
        self._tasks[task] = waiting
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._tasks[task]
        self._nudge.set()  # There is room again.

    async def _try(self, lease: Lease, waiting: Waiting) -> None:
        try:
            async with asyncio.timeout(self._deadline):
                await self._fetch(lease, waiting)
        except Fenced:
            return
        except Rejected as error:
            await self._fail(lease, waiting, error)
        except PlatformError as error:
            await self._later(lease, waiting, error)
        except TimeoutError:
            late = Transient("WhatsApp has not sent the file in time.")
            await self._later(lease, waiting, late)
        except Exception:
            log.exception("media_fetch_failed", media_id=str(waiting.id))
            await self._later(lease, waiting, Transient("The engine has failed over the file."))
        else:
            self._metrics.media.labels("stored").inc()

    async def _fetch(self, lease: Lease, waiting: Waiting) -> None:
        session = self._sessions.ready(waiting.instance_id)
        if session is None or not self._leases.holds(lease):
            raise SessionDown("The instance is not connected.")
        self._bound(waiting.size or 0)
        async with self._scratch.path() as path:
            await session.engine.fetch(waiting.instance_id, waiting.handle, path)
            file = await asyncio.to_thread(_measured, path, waiting.mime_type)
            self._bound(file.size)
            await self._keep(waiting, path, file)

    async def _keep(self, waiting: Waiting, path: Path, file: _Measured) -> None:
        for _ in range(PUTS):
            await self._store.put(waiting.tenant_id, path, file.sha256)
            async with self._database.tx() as tx:
                if await keeping.keep(tx, self._store, waiting.tenant_id, file.sha256):
                    await inbound_media.note_stored(
                        tx,
                        waiting.id,
                        mime_type=file.mime_type,
                        size=file.size,
                        sha256=file.sha256,
                        now=self._clock.now(),
                    )
                    return
        raise Transient("The file was deleted while it was kept.")

    async def _later(self, lease: Lease, waiting: Waiting, error: PlatformError) -> None:
        if given_up(waiting.attempts + 1):
            await self._fail(lease, waiting, error)
            return
        self._metrics.media.labels("postponed").inc()
        log.info("media_postponed", media_id=str(waiting.id), reason=error.message)

    async def _fail(self, lease: Lease, waiting: Waiting, error: PlatformError) -> None:
        try:
            async with self._fence.statement() as connection:
                await inbound_media.note_failed(connection, lease, waiting.id, code=error.code)
        except Transient:
            return  # It is due again, and fails again.
        self._metrics.media.labels("failed").inc()
        log.warning("media_given_up", media_id=str(waiting.id), reason=error.message)

    def _bound(self, size: int) -> None:
        if size > self._largest:
            raise MediaTooLarge(f"The file is larger than {self._largest} bytes.")


def _measured(path: Path, declared: str) -> _Measured:
    with path.open("rb") as file:
        mime_type = kinds.type_of(file.read(kinds.HEAD), declared)
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return _Measured(mime_type, file.tell(), digest)


def _jitter() -> float:
    return random.uniform(-1, 1)  # noqa: S311 - spreads retries, guards nothing
