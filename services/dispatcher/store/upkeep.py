"""Upkeep: messages whose time is up, and repairs of what a crash has left behind."""

from datetime import datetime
from uuid import UUID

from services.dispatcher.domain.message import Message
from services.dispatcher.store.settling import COLUMNS, message
from shared.contracts.commands import SettledTransmission, TransmissionOutcome
from shared.db.database import HotConnection


async def lock_expired(connection: HotConnection, *, now: datetime, limit: int) -> list[Message]:
    """Messages that have waited past their expiry and are not in flight."""
    rows = await connection.fetch(
        f"""
        SELECT {COLUMNS} FROM dispatcher.messages
        WHERE status IN ('scheduled', 'queued', 'retrying') AND transmission_id IS NULL
          AND expires_at <= $1
        ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED
        """,  # noqa: S608 - a constant of ours
        now,
        limit,
    )
    return [message(row) for row in rows]


async def lock_unconfirmed(
    connection: HotConnection, *, now: datetime, limit: int
) -> list[Message]:
    """Messages that no receipt has confirmed in time."""
    rows = await connection.fetch(
        f"""
        SELECT {COLUMNS} FROM dispatcher.messages
        WHERE status = 'unconfirmed' AND due_at <= $1
        ORDER BY due_at LIMIT $2 FOR UPDATE SKIP LOCKED
        """,  # noqa: S608 - a constant of ours
        now,
        limit,
    )
    return [message(row) for row in rows]


async def lock_waiting_of(
    connection: HotConnection, instance: UUID, *, limit: int
) -> list[Message]:
    """Messages of one instance that wait and are not in flight."""
    rows = await connection.fetch(
        f"""
        SELECT {COLUMNS} FROM dispatcher.messages
        WHERE instance_id = $1 AND status IN ('queued', 'retrying') AND transmission_id IS NULL
        ORDER BY priority, sequence LIMIT $2 FOR UPDATE SKIP LOCKED
        """,  # noqa: S608 - a constant of ours
        instance,
        limit,
    )
    return [message(row) for row in rows]


async def unpark_orphans(connection: HotConnection) -> list[UUID]:
    """Put parked messages back in line whose chat has none in flight and none in line before them.

    Parking and settling race: a claim may park a message just after the one that blocked it was
    settled. Returns the instances that have something to send again.
    """
    rows = await connection.fetch(
        """
        WITH first AS (
            SELECT DISTINCT ON (instance_id, chat) id, instance_id, chat, priority, sequence
            FROM dispatcher.messages
            WHERE parked AND status IN ('queued', 'retrying')
            ORDER BY instance_id, chat, priority, sequence
        )
        UPDATE dispatcher.messages m SET parked = false
        FROM first f
        WHERE m.id = f.id AND NOT EXISTS (
            SELECT 1 FROM dispatcher.messages o
            WHERE o.instance_id = f.instance_id AND o.chat = f.chat
              AND o.status IN ('queued', 'sending', 'retrying') AND o.id <> f.id
              AND (o.transmission_id IS NOT NULL
                   OR (o.priority, o.sequence) < (f.priority, f.sequence))
        )
        RETURNING m.instance_id
        """
    )
    return sorted({row[0] for row in rows})


async def unreported(
    connection: HotConnection, *, before: datetime, limit: int
) -> list[SettledTransmission]:
    """Transmissions that sessions settled long ago, and whose report never came.

    It lies among the dead letters, or was thrown away there. The hand-over's row still knows how it
    ended, if not in WhatsApp's own words.
    """
    rows = await connection.fetch(
        """
        SELECT t.id, t.message_id, t.instance_id, h.outcome, h.settled_at, h.engine_message_id
        FROM dispatcher.transmissions t
        JOIN sessions.handovers h ON h.transmission_id = t.id
        WHERE t.outcome IS NULL AND h.outcome IS NOT NULL AND h.settled_at < $1
        LIMIT $2
        """,
        before,
        limit,
    )
    return [
        SettledTransmission(
            transmission_id=row[0],
            message_id=row[1],
            instance_id=row[2],
            outcome=TransmissionOutcome(row[3]),
            at=row[4],
            engine_message_id=row[5],
        )
        for row in rows
    ]
