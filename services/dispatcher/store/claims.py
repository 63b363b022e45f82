"""Claiming: which instances may send, how much, and which messages those are."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import orjson
from asyncpg import Record

from services.dispatcher.domain.pacing import Cause, Last, Limit, Usage
from shared.contracts.commands import Transmission
from shared.db.database import HotConnection
from shared.log import get_logger
from shared.messaging.contents import opened
from shared.security.sealing import KeyRing, Unsealable

log = get_logger()

# One that may be claimed: the predicate of the index ``ix_messages_ready``.
READY = "status IN ('queued', 'retrying') AND transmission_id IS NULL AND NOT parked"
# What cannot be read is looked at again after so long: somebody may bring its key back.
UNREADABLE: Final = timedelta(minutes=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An instance whose messages may be claimed, since its row is locked by this transaction.

    ``status`` is its session's, or ``deleted``, or ``held``: what it has to send waits. ``zone`` is
    its organization's time zone.
    """

    instance_id: UUID
    shard: int
    guard: Mapping[str, object]
    zone: str
    status: str
    throttled_until: datetime | None
    in_flight: int


async def with_ready_messages(connection: HotConnection) -> list[UUID]:
    """Every instance with something in line, by hopping through the index: one probe for each."""
    rows = await connection.fetch(
        f"""
        WITH RECURSIVE hop AS (
            (SELECT instance_id FROM dispatcher.messages WHERE {READY}
             ORDER BY instance_id LIMIT 1)
            UNION ALL
            SELECT (SELECT m.instance_id FROM dispatcher.messages m
                    WHERE {READY} AND m.instance_id > hop.instance_id
                    ORDER BY m.instance_id LIMIT 1)
            FROM hop WHERE hop.instance_id IS NOT NULL
        )
        SELECT instance_id FROM hop WHERE instance_id IS NOT NULL
        """  # noqa: S608 - a constant of ours
    )
    return [row[0] for row in rows]


async def ensure_pacing(connection: HotConnection, instances: Iterable[UUID]) -> None:
    """Make the rows that claims lock."""
    await connection.execute(
        """
        INSERT INTO dispatcher.pacing (instance_id)
        SELECT id FROM unnest($1::uuid[]) AS u (id) ON CONFLICT DO NOTHING
        """,
        sorted(instances),
    )


async def lock_candidates(connection: HotConnection, instances: Sequence[UUID]) -> list[Candidate]:
    """Lock these instances for claiming, leaving out those that another dispatcher is at."""
    rows = await connection.fetch(
        """
        SELECT p.instance_id, i.shard, i.guard,
               CASE WHEN i.deleted_at IS NOT NULL THEN 'deleted' WHEN i.held THEN 'held'
                    ELSE coalesce(s.status, 'created') END,
               p.throttled_until,
               (SELECT count(*) FROM dispatcher.transmissions t
                WHERE t.instance_id = p.instance_id AND t.outcome IS NULL),
               o.timezone
        FROM dispatcher.pacing p
        JOIN gateway.instances i ON i.id = p.instance_id
        JOIN gateway.organizations o ON o.id = i.tenant_id
        LEFT JOIN sessions.session_states s ON s.instance_id = p.instance_id
        WHERE p.instance_id = ANY ($1::uuid[])
        FOR UPDATE OF p SKIP LOCKED
        """,
        instances,
    )
    return [
        Candidate(
            instance_id=row[0],
            shard=row[1],
            guard=orjson.loads(row[2]),
            status=row[3],
            throttled_until=row[4],
            in_flight=row[5],
            zone=row[6],
        )
        for row in rows
    ]


async def usages(
    connection: HotConnection, limits: Sequence[tuple[UUID, Limit]], *, now: datetime
) -> dict[UUID, list[Usage]]:
    """How much of each limit is used. Reads at most as many transmissions as the limit allows."""
    rows = await connection.fetch(
        """
        SELECT l.ordinal, count(t.created_at), min(t.created_at)
        FROM unnest($1::uuid[], $2::int[], $3::interval[])
             WITH ORDINALITY AS l (instance_id, at_most, span, ordinal)
        LEFT JOIN LATERAL (
            SELECT created_at FROM dispatcher.transmissions
            WHERE instance_id = l.instance_id AND created_at > $4::timestamptz - l.span
            ORDER BY created_at DESC LIMIT l.at_most
        ) t ON true
        GROUP BY l.ordinal
        """,
        [instance for instance, _ in limits],
        [limit.count for _, limit in limits],
        [limit.span for _, limit in limits],
        now,
    )
    found: dict[UUID, list[Usage]] = {}
    for ordinal, used, oldest in rows:
        instance, limit = limits[ordinal - 1]
        found.setdefault(instance, []).append(Usage(limit, used, oldest))
    return found


async def last_transmissions(
    connection: HotConnection, instances: Sequence[UUID]
) -> dict[UUID, Last]:
    """The newest transmission of each of some instances, if it has any."""
    rows = await connection.fetch(
        """
        SELECT i.id, t.id, coalesce(t.settled_at, t.created_at)
        FROM unnest($1::uuid[]) AS i (id)
        CROSS JOIN LATERAL (
            SELECT id, created_at, settled_at FROM dispatcher.transmissions
            WHERE instance_id = i.id ORDER BY created_at DESC LIMIT 1
        ) t
        """,
        instances,
    )
    return {instance: Last(id_, at) for instance, id_, at in rows}


async def claim_due(
    connection: HotConnection, rooms: Sequence[tuple[UUID, int]], *, ring: KeyRing, now: datetime
) -> list[tuple[int, Transmission]]:
    """Claim up to so many messages for each instance and make their transmissions.

    By priority, then in the order of acceptance. One whose chat has another in flight, or in line
    before it, is parked instead. Concurrent callers never take the same one, because they hold the
    instance's lock. Returns each transmission with its shard. One that no key opens stays in line,
    until it expires or its key is back.
    """
    rows = await connection.fetch(
        f"""
        WITH due AS MATERIALIZED (
            SELECT m.*
            FROM unnest($1::uuid[], $2::int[]) AS r (instance_id, room)
            CROSS JOIN LATERAL (
                SELECT id, instance_id, chat, priority, sequence
                FROM dispatcher.messages
                WHERE instance_id = r.instance_id AND {READY} AND due_at <= $3
                ORDER BY priority, sequence LIMIT r.room
                FOR UPDATE SKIP LOCKED
            ) m
        ), judged AS MATERIALIZED (
            SELECT d.id, EXISTS (
                SELECT 1 FROM dispatcher.messages o
                WHERE o.instance_id = d.instance_id AND o.chat = d.chat
                  AND o.status IN ('queued', 'sending', 'retrying') AND o.id <> d.id
                  AND (o.transmission_id IS NOT NULL
                       OR (o.priority, o.sequence) < (d.priority, d.sequence))
            ) AS blocked
            FROM due d
        ), parked AS (
            UPDATE dispatcher.messages m SET parked = true
            FROM judged j WHERE j.blocked AND m.id = j.id
        ), claimed AS (
            UPDATE dispatcher.messages m
            SET status = CASE m.status WHEN 'queued' THEN 'sending' ELSE m.status END,
                transmission_id = gen_random_uuid(), attempts = m.attempts + 1
            FROM judged j WHERE NOT j.blocked AND m.id = j.id
            RETURNING m.transmission_id, m.id, m.tenant_id, m.instance_id, m.attempts, m.chat,
                      m.content, m.sealed, m.engine_message_id, m.request_id, m.shard,
                      m.created_at, m.priority, m.sequence
        ), made AS (
            INSERT INTO dispatcher.transmissions
                (id, message_id, instance_id, shard, attempt, created_at, published_at, paced_until,
                 paced_by)
            SELECT c.transmission_id, c.id, c.instance_id, c.shard, c.attempts, $3, $3,
                   CASE WHEN p.paced_until > $3 THEN $3 ELSE p.paced_until END, p.paced_by
            FROM claimed c
            LEFT JOIN dispatcher.pacing p
                ON p.instance_id = c.instance_id AND p.paced_until > c.created_at
        )
        SELECT transmission_id, id, tenant_id, instance_id, attempts, chat, content, sealed,
               engine_message_id, request_id, shard
        FROM claimed ORDER BY priority, sequence
        """,  # noqa: S608 - a constant of ours
        [instance for instance, _ in rooms],
        [count for _, count in rooms],
        now,
    )
    readable, unreadable = _opened(ring, rows)
    if unreadable:
        await _set_back(connection, unreadable, until=now + UNREADABLE)
    return readable


async def _set_back(
    connection: HotConnection, messages: Sequence[UUID], *, until: datetime
) -> None:
    """Put messages back in line that were claimed within this transaction."""
    await connection.execute(
        """
        WITH back AS (
            UPDATE dispatcher.messages SET transmission_id = NULL, attempts = attempts - 1,
                status = CASE status WHEN 'sending' THEN 'queued' ELSE status END, due_at = $2
            WHERE id = ANY ($1::uuid[])
        )
        DELETE FROM dispatcher.transmissions t USING dispatcher.messages m
        WHERE m.id = ANY ($1::uuid[]) AND t.id = m.transmission_id
        """,
        messages,
        until,
    )


async def note_pace(
    connection: HotConnection, slots: Sequence[tuple[UUID, datetime, Cause | None]]
) -> None:
    """Note until when guards hold instances back, so that the timeline can say why one waited."""
    await connection.execute(
        """
        UPDATE dispatcher.pacing p SET paced_until = u.at, paced_by = u.cause
        FROM unnest($1::uuid[], $2::timestamptz[], $3::text[]) AS u (instance_id, at, cause)
        WHERE p.instance_id = u.instance_id
          AND (p.paced_until, p.paced_by) IS DISTINCT FROM (u.at, u.cause)
        """,
        [instance for instance, _, _ in slots],
        [at for _, at, _ in slots],
        [cause for _, _, cause in slots],
    )


async def stale_transmissions(
    connection: HotConnection, *, before: datetime, ring: KeyRing, now: datetime, limit: int
) -> list[tuple[int, Transmission]]:
    """Transmissions that were published long ago and have not been handed over.

    Their command was lost, or the process died before publishing it. They keep their id, so the
    repeat is harmless if the first one is only late. Shards without an owner are left alone: their
    queue already holds the command.
    """
    rows = await connection.fetch(
        """
        WITH stale AS (
            SELECT t.id FROM dispatcher.transmissions t
            JOIN sessions.shards s ON s.id = t.shard AND s.lease_until > clock_timestamp()
            WHERE t.outcome IS NULL AND t.published_at < $1
              AND NOT EXISTS (SELECT 1 FROM sessions.handovers h WHERE h.transmission_id = t.id)
            LIMIT $3
            FOR UPDATE OF t SKIP LOCKED
        ), again AS (
            UPDATE dispatcher.transmissions t SET published_at = $2
            FROM stale WHERE t.id = stale.id RETURNING t.id, t.message_id, t.attempt
        )
        SELECT a.id, m.id, m.tenant_id, m.instance_id, a.attempt, m.chat, m.content,
               m.sealed, m.engine_message_id, m.request_id, m.shard
        FROM again a JOIN dispatcher.messages m ON m.id = a.message_id
        ORDER BY m.priority, m.sequence
        """,
        before,
        now,
        limit,
    )
    readable, _ = _opened(ring, rows)
    return readable


def _opened(
    ring: KeyRing, rows: Sequence[Record]
) -> tuple[list[tuple[int, Transmission]], list[UUID]]:
    """The transmissions, each with its shard, and the messages that no key opens."""
    readable: list[tuple[int, Transmission]] = []
    unreadable: list[UUID] = []
    for row in rows:
        try:
            readable.append((row[10], transmission(ring, row)))
        except Unsealable:
            unreadable.append(row[1])
            log.exception("message_not_readable", message_id=str(row[1]))
    return readable, unreadable


def transmission(ring: KeyRing, row: Record) -> Transmission:
    """The command's item for a row of the two queries above. Raises ``Unsealable``."""
    return Transmission.model_validate(
        {
            "transmission_id": row[0],
            "message_id": row[1],
            "tenant_id": row[2],
            "instance_id": row[3],
            "attempt": row[4],
            "to": row[5],
            "content": opened(ring, row[2], row[1], sealed=row[7], plain=row[6]),
            "engine_message_id": row[8],
            "request_id": row[9],
        }
    )
