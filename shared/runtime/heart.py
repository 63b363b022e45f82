"""The heartbeat: how each process says that it lives, and hears what an operator wants of it.

Both go through the database, so that they are right when a process is dead or the broker is away.
"""

import asyncio
import os
import sys
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, Literal, Self

from shared.clock import Clock
from shared.db.database import Database, HotConnection
from shared.errors import Transient
from shared.ids import new_id
from shared.log import get_logger
from shared.pause import Pause
from shared.runtime.service import Workload

log = get_logger()

RHYTHM: Final = timedelta(seconds=3)
# Throughput is taken over this long.
RECENTLY: Final = timedelta(minutes=1)
# How long a process that died without a word is shown as lost.
REMEMBERED: Final = timedelta(hours=1)
# Of those, so many are forgotten with one beat.
_AT_ONCE: Final = 100

State = Literal["running", "paused", "draining"]


@dataclass(frozen=True, slots=True)
class _Orders:
    """What an operator wants of a process; what names it counts for more than what names all."""

    paused: bool
    restart_at: datetime | None
    cleared_at: datetime | None


class Heart:
    """Beats for one service of this process, and sees to it that orders are followed.

    ``restart`` is set to have the process drain and end, for its supervisor to start it again;
    without it there is no supervisor, and a restart cannot be ordered.
    """

    def __init__(
        self,
        *,
        service: str,
        host: str,
        workload: Workload,
        database: Database,
        pause: Pause,
        clock: Clock,
        stop: asyncio.Event,
        restart: asyncio.Event | None,
    ) -> None:
        self._service = service
        self.name = f"{service}@{host}"
        self._id = new_id()
        self._workload = workload
        self._database = database
        self._pause = pause
        self._clock = clock
        self._stop = stop
        self._restart = restart
        self._cleared_at: datetime | None = None
        self._failed_before = 0
        self._begun = False
        self._history: deque[tuple[float, int]] = deque()

    @asynccontextmanager
    async def beating(self) -> AsyncIterator[Self]:
        """Beat for as long as the context is open; on exit nothing is left of this process.

        While nobody can say whether it may, a process takes no work: it might have been paused.
        """
        if self._workload.pausable:
            self._pause.hold()
        await self._guarded()
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self._run(), name=f"heart:{self._service}")
            try:
                yield self
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                await self._leave()

    async def beat(self) -> None:
        """Say once that we live, and follow orders. Raises ``Transient``."""
        async with self._database.hot() as connection:
            orders = await self._asked(connection)
            if self._workload.pausable:
                self._follow_pause(orders.paused)
            started_at = await self._tell(connection)
            await self._bury(connection)
        if orders.cleared_at is not None and orders.cleared_at != self._cleared_at:
            self._cleared_at = orders.cleared_at
            if orders.cleared_at > started_at:
                self._failed_before = self._workload.failed()
        ordered = orders.restart_at is not None and orders.restart_at > started_at
        if ordered and self._restart is not None and not self._restart.is_set():
            log.warning("restart_ordered", worker=self.name)
            self._restart.set()

    def _follow_pause(self, paused: bool) -> None:
        begins, self._begun = not self._begun, True
        if paused == self._pause.on:
            return
        # To begin without having been ordered to wait is what every process does.
        if not begins:
            log.warning("work_paused" if paused else "work_resumed", worker=self.name)
        if paused:
            self._pause.hold()
        else:
            self._pause.go_on()

    async def _tell(self, connection: HotConnection) -> datetime:
        completed = self._workload.completed()
        started_at: datetime = await connection.fetchval(
            f"""
            INSERT INTO {self._service}.workers AS w (
                id, name, state, processing, completed, failed, throughput, memory, pausable,
                restartable, started_at, beat_at
            )
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, clock_timestamp(), clock_timestamp())
            ON CONFLICT (id) DO UPDATE SET
                state = excluded.state, processing = excluded.processing,
                completed = excluded.completed, failed = excluded.failed,
                throughput = excluded.throughput, memory = excluded.memory,
                beat_at = excluded.beat_at
            RETURNING w.started_at
            """,  # noqa: S608 - the schema is a constant of ours
            self._id,
            self.name,
            self._state(),
            self._workload.processing(),
            completed,
            max(0, self._workload.failed() - self._failed_before),
            self._throughput(completed),
            memory(),
            self._workload.pausable,
            self._restart is not None,
        )
        return started_at

    async def _bury(self, connection: HotConnection) -> None:
        """Forget processes of the service that died without a word, some at a time."""
        await connection.execute(
            f"""
            DELETE FROM {self._service}.workers WHERE id IN (
                SELECT id FROM {self._service}.workers
                WHERE beat_at < clock_timestamp() - CAST($1 AS interval)
                LIMIT $2 FOR UPDATE SKIP LOCKED
            )
            """,  # noqa: S608 - the schema is a constant of ours
            REMEMBERED,
            _AT_ONCE,
        )

    async def _asked(self, connection: HotConnection) -> _Orders:
        rows = await connection.fetch(
            """
            SELECT paused, restart_at, cleared_at FROM gateway.worker_orders
            WHERE service = $1 AND worker IN ('', $2) ORDER BY worker
            """,
            self._service,
            self.name,
        )
        paused = [row[0] for row in rows if row[0] is not None]
        return _Orders(
            paused=paused[-1] if paused else False,
            restart_at=max((row[1] for row in rows if row[1] is not None), default=None),
            cleared_at=max((row[2] for row in rows if row[2] is not None), default=None),
        )

    def _state(self) -> State:
        if self._stop.is_set():
            return "draining"
        return "paused" if self._pause.on else "running"

    def _throughput(self, completed: int) -> float:
        """What was completed a minute, lately."""
        now = self._clock.monotonic()
        history = self._history
        history.append((now, completed))
        while now - history[0][0] > RECENTLY.total_seconds():
            history.popleft()
        since, before = history[0]
        passed = now - since
        return (completed - before) * 60 / passed if passed > 0 else 0.0

    async def _run(self) -> None:
        while True:
            await self._clock.sleep(RHYTHM)
            await self._guarded()

    async def _guarded(self) -> None:
        try:
            async with asyncio.timeout(RHYTHM.total_seconds()):
                await self.beat()
        except (Transient, TimeoutError) as error:
            log.warning("heartbeat_missed", worker=self.name, reason=str(error))

    async def _leave(self) -> None:
        try:
            async with asyncio.timeout(RHYTHM.total_seconds()), self._database.hot() as connection:
                await connection.execute(
                    f"DELETE FROM {self._service}.workers WHERE id = $1",  # noqa: S608 - as above
                    self._id,
                )
        except (Transient, TimeoutError) as error:
            log.warning("departure_not_announced", worker=self.name, reason=str(error))


def memory() -> int:
    """What this process holds in memory, in bytes; 0 where that cannot be found out."""
    if sys.platform != "linux":
        return 0
    resident = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(resident) * os.sysconf("SC_PAGE_SIZE")
