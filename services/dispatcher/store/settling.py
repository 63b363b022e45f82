"""Settling: reading messages under lock and writing back what was decided, a batch at a time."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from uuid import UUID

import orjson
from asyncpg import Record

from services.dispatcher.domain.message import Message
from shared.contracts.commands import SettledTransmission
from shared.db.database import HotConnection

COLUMNS = """id, tenant_id, instance_id, chat, sender, recipient, type, metadata, status, attempts,
    transmission_id, engine_message_id, on_unknown, request_id, sent_at, delivered_at, read_at"""


def message(row: Record) -> Message:
    """A row of ``COLUMNS``."""
    return Message(
        id=row[0],
        tenant_id=row[1],
        instance_id=row[2],
        chat=row[3],
        sender=row[4],
        recipient=row[5],
        type=row[6],
        metadata=None if row[7] is None else orjson.loads(row[7]),
        status=row[8],
        attempts=row[9],
        transmission_id=row[10],
        engine_message_id=row[11],
        on_unknown=row[12],
        request_id=row[13],
        sent_at=row[14],
        delivered_at=row[15],
        read_at=row[16],
    )


async def lock_messages(connection: HotConnection, ids: Iterable[UUID]) -> dict[UUID, Message]:
    """Lock outbound messages, in order of id so that two batches cannot deadlock."""
    rows = await connection.fetch(
        f"""
        SELECT {COLUMNS} FROM dispatcher.messages
        WHERE id = ANY ($1::uuid[]) AND direction = 'outbound' ORDER BY id FOR UPDATE
        """,  # noqa: S608 - a constant of ours
        sorted(set(ids)),
    )
    return {row[0]: message(row) for row in rows}


async def save(
    connection: HotConnection,
    changed: Sequence[Message],
    *,
    due: dict[UUID, datetime],
    errors: dict[UUID, tuple[datetime, str, str]],
) -> None:
    """Write back changed messages: status and times, when those in ``due`` are next looked at, and
    why and when those in ``errors`` failed."""
    await connection.execute(
        """
        UPDATE dispatcher.messages m
        SET status = u.status, transmission_id = u.transmission_id, sent_at = u.sent_at,
            delivered_at = u.delivered_at, read_at = u.read_at,
            due_at = coalesce(u.due_at, m.due_at), failed_at = u.failed_at,
            error_code = u.code, error_message = u.reason
        FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::timestamptz[], $5::timestamptz[],
                    $6::timestamptz[], $7::timestamptz[], $8::timestamptz[], $9::text[],
                    $10::text[])
             AS u (id, status, transmission_id, sent_at, delivered_at, read_at, due_at, failed_at,
                   code, reason)
        WHERE m.id = u.id
        """,
        [one.id for one in changed],
        [one.status for one in changed],
        [one.transmission_id for one in changed],
        [one.sent_at for one in changed],
        [one.delivered_at for one in changed],
        [one.read_at for one in changed],
        [due.get(one.id) for one in changed],
        *zip(*(errors.get(one.id, (None, None, None)) for one in changed), strict=True),
    )


async def settle_transmissions(
    connection: HotConnection, settled: Sequence[SettledTransmission]
) -> None:
    """Record how hand-overs ended; the first word counts."""
    await connection.execute(
        """
        UPDATE dispatcher.transmissions t
        SET outcome = u.outcome, code = u.code, detail = u.detail, settled_at = u.at
        FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::timestamptz[])
             AS u (id, outcome, code, detail, at)
        WHERE t.id = u.id AND t.outcome IS NULL
        """,
        [one.transmission_id for one in settled],
        [one.outcome.value for one in settled],
        [one.code for one in settled],
        [one.detail for one in settled],
        [one.at for one in settled],
    )


async def unpark(
    connection: HotConnection, instances: Sequence[UUID], chats: Sequence[str]
) -> None:
    """Put the first parked message of each chat back in line."""
    await connection.execute(
        """
        UPDATE dispatcher.messages SET parked = false
        WHERE id IN (
            SELECT f.id
            FROM unnest($1::uuid[], $2::text[]) AS c (instance_id, chat)
            CROSS JOIN LATERAL (
                SELECT id FROM dispatcher.messages
                WHERE instance_id = c.instance_id AND chat = c.chat
                  AND parked AND status IN ('queued', 'retrying')
                ORDER BY priority, sequence LIMIT 1
            ) f
        )
        """,
        instances,
        chats,
    )


async def throttle(connection: HotConnection, until: dict[UUID, datetime]) -> None:
    """Hold whole instances back, because WhatsApp told them to slow down."""
    if not until:
        return
    await connection.execute(
        """
        UPDATE dispatcher.pacing p
        SET throttled_until = greatest(p.throttled_until, u.at), paced_until = u.at
        FROM unnest($1::uuid[], $2::timestamptz[]) AS u (instance_id, at)
        WHERE p.instance_id = u.instance_id
        """,
        list(until),
        list(until.values()),
    )
