"""Workers: their heartbeats, what waits for them, and what operators want of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.gateway.domain.workers import Target
from shared.db.tables.grants import SERVICES
from shared.runtime.heart import REMEMBERED

# Without a heartbeat for so long, a worker is taken for dead.
LOST: Final = timedelta(seconds=15)
# Counting stops here: a queue this long says enough, and millions would take seconds.
MOST_COUNTED: Final = 10_000
# Whose affair it is that a message has failed.
_FAILS: Final = "dispatcher"


@dataclass(frozen=True, slots=True)
class Worker:
    """A process, by its last heartbeat."""

    name: str
    service: str
    state: str
    processing: int
    completed: int
    failed: int
    throughput: float
    memory: int
    pausable: bool
    restartable: bool
    started_at: datetime
    beat_at: datetime


@dataclass(frozen=True, slots=True)
class Queue:
    """What waits for a service, and what it is at; at most ``MOST_COUNTED`` of either.

    ``failed`` is what has failed today, where that is told.
    """

    waiting: int
    processing: int
    failed: int | None = None


def _beats(service: str) -> str:
    return f"""
        SELECT name, '{service}' AS service,
               CASE WHEN beat_at < clock_timestamp() - CAST(:lost AS interval) THEN 'lost'
                    ELSE state END,
               processing, completed, failed, throughput, memory, pausable, restartable,
               started_at, beat_at
        FROM {service}.workers WHERE beat_at >= clock_timestamp() - CAST(:remembered AS interval)
    """  # noqa: S608 - the schemas are constants of ours


_WORKERS = text(
    " UNION ALL ".join(_beats(service) for service in SERVICES)
    + " ORDER BY service, name, started_at LIMIT 1000"
)

_OPEN = "dispatcher.transmissions t WHERE t.outcome IS NULL"
_HANDED_OVER = "EXISTS (SELECT 1 FROM sessions.handovers h WHERE h.transmission_id = t.id)"
# Of each service: what waits for it, and what it is at.
_QUEUES = {
    "dispatcher": (
        "dispatcher.messages t WHERE status IN ('queued', 'retrying') AND transmission_id IS NULL",
        _OPEN,
    ),
    "sessions": (f"{_OPEN} AND NOT {_HANDED_OVER}", f"{_OPEN} AND {_HANDED_OVER}"),
    "webhooks": (
        "webhooks.deliveries t WHERE state = 'pending'",
        "webhooks.deliveries t WHERE state = 'claimed'",
    ),
}
_COUNT = "(SELECT count(*) FROM (SELECT 1 FROM {} AND {} LIMIT :most) AS counted)"
_OF_INSTANCES = "t.instance_id = ANY (:instances)"
_OURS = {
    "dispatcher": _OF_INSTANCES,
    "sessions": _OF_INSTANCES,
    "webhooks": "t.tenant_id = :tenant AND t.endpoint_id = ANY (:endpoints)",
}


_FAILED = """(
    SELECT CAST(coalesce(sum(c.count), 0) AS bigint) FROM stats.daily_counters c
    JOIN gateway.organizations o ON o.id = c.tenant_id
    WHERE c.tenant_id = :tenant AND c.metric = 'failed'
      AND c.day = CAST(clock_timestamp() AT TIME ZONE o.timezone AS date)
)"""


def _queues(*, ours: bool) -> str:
    counts = [
        _COUNT.format(part, _OURS[service] if ours else "true")
        for service, parts in _QUEUES.items()
        for part in parts
    ]
    return f"SELECT {', '.join(counts)}, {_FAILED if ours else 'NULL'}"


_ALL_QUEUES = text(_queues(ours=False))
_OUR_QUEUES = text(_queues(ours=True))
_OUR_OWN = text("""
    SELECT ARRAY(SELECT id FROM gateway.instances WHERE tenant_id = :tenant),
           ARRAY(SELECT id FROM gateway.webhooks WHERE tenant_id = :tenant)
""")

_PAUSE = text("""
    INSERT INTO gateway.worker_orders (service, worker, paused) VALUES (:service, :worker, :paused)
    ON CONFLICT (service, worker) DO UPDATE SET paused = excluded.paused
""")
# What is wanted of all is wanted of each, whatever was wanted of it before.
_FORGET_EACH = text("""
    UPDATE gateway.worker_orders SET paused = NULL WHERE service = :service AND worker <> ''
""")
_RESTART = text("""
    INSERT INTO gateway.worker_orders (service, worker, restart_at)
    VALUES (:service, :worker, clock_timestamp())
    ON CONFLICT (service, worker) DO UPDATE SET restart_at = excluded.restart_at
""")
_CLEAR = text("""
    INSERT INTO gateway.worker_orders (service, worker, cleared_at)
    VALUES (:service, :worker, clock_timestamp())
    ON CONFLICT (service, worker) DO UPDATE SET cleared_at = excluded.cleared_at
""")


async def workers(tx: AsyncConnection) -> list[Worker]:
    """All processes that live, or have lived within the hour."""
    rows = await tx.execute(_WORKERS, {"lost": LOST, "remembered": REMEMBERED})
    return [Worker(*row) for row in rows]


async def queues(tx: AsyncConnection, *, tenant_id: UUID | None) -> dict[str, Queue]:
    """What waits and what is under way, of one tenant or of all; only where that can be told."""
    given: dict[str, object] = {"most": MOST_COUNTED}
    if tenant_id is not None:
        instances, endpoints = (await tx.execute(_OUR_OWN, {"tenant": tenant_id})).one()
        given |= {"tenant": tenant_id, "instances": instances, "endpoints": endpoints}
    row = (await tx.execute(_ALL_QUEUES if tenant_id is None else _OUR_QUEUES, given)).one()
    *counts, failed = row
    pairs = zip(_QUEUES, counts[::2], counts[1::2], strict=True)
    return {
        service: Queue(waiting, processing, failed if service == _FAILS else None)
        for service, waiting, processing in pairs
    }


async def pause(tx: AsyncConnection, targets: Sequence[Target], *, paused: bool) -> None:
    """Want these to take no work, or to take it again."""
    for target in targets:
        given = {"service": target.service, "worker": target.worker}
        await tx.execute(_PAUSE, {**given, "paused": paused})
        if not target.worker:
            await tx.execute(_FORGET_EACH, {"service": target.service})


async def restart(tx: AsyncConnection, targets: Sequence[Target]) -> None:
    """Want these to end, if they run now, and to be started again."""
    for target in targets:
        await tx.execute(_RESTART, {"service": target.service, "worker": target.worker})


async def clear_failed(tx: AsyncConnection, targets: Sequence[Target]) -> None:
    """Want these to count what fails anew."""
    for target in targets:
        await tx.execute(_CLEAR, {"service": target.service, "worker": target.worker})
