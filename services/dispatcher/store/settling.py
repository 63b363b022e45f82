"""Settling: reading messages under lock and writing back what was decided, a batch at a time."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

import orjson
from asyncpg import Record

from services.dispatcher.domain.message import CHANGING, FINAL, Message
from shared.contracts.commands import SettledTransmission
from shared.db.database import HotConnection
from shared.messaging.outbox import Pending, Stored

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
    """Lock outbound messages, and all that ``targets.change`` writes if they are accepted.

    That is what edits and revocations are about, and other edits of the same. All of it in one
    order, that of ids, so that two batches cannot deadlock; what is about what never changes.
    """
    wanted = set(ids)
    rows = await connection.fetch(
        f"""
        WITH targets AS (
            SELECT target_id FROM dispatcher.messages
            WHERE id = ANY ($1::uuid[]) AND target_id IS NOT NULL AND type = ANY ($2::text[])
        )
        SELECT {COLUMNS}, direction FROM dispatcher.messages
        WHERE id = ANY (ARRAY(
            SELECT unnest($1::uuid[]) UNION ALL SELECT target_id FROM targets UNION ALL
            SELECT e.id FROM dispatcher.messages e JOIN targets USING (target_id)
            WHERE e.type = 'edit'
        ))
        ORDER BY id FOR UPDATE
        """,  # noqa: S608 - a constant of ours
        list(wanted),
        sorted(CHANGING),
    )
    return {row[0]: message(row) for row in rows if row[0] in wanted and row[17] == "outbound"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What a batch changes, written in one statement because most batches are small.

    ``due`` says when messages are next looked at, ``errors`` when and why they failed; ``settled``
    are hand-overs that have ended, the first word counting; ``chats`` have nothing in flight any
    more, so that the first parked message of each comes back in line; ``told`` goes to the outbox.
    """

    messages: Sequence[Message] = ()
    due: Mapping[UUID, datetime] = field(default_factory=dict)
    errors: Mapping[UUID, tuple[datetime, str, str]] = field(default_factory=dict)
    settled: Sequence[SettledTransmission] = ()
    chats: tuple[Sequence[UUID], Sequence[str]] = ((), ())
    told: Sequence[Pending] = ()


_WRITE = """
    WITH saved AS (
        UPDATE dispatcher.messages m
        SET status = u.status, transmission_id = u.transmission_id, sent_at = u.sent_at,
            delivered_at = u.delivered_at, read_at = u.read_at,
            due_at = coalesce(u.due_at, m.due_at), failed_at = u.failed_at,
            error_code = u.code, error_message = u.reason, engine_message_id = u.engine_id,
            sealed = CASE WHEN u.erases THEN NULL ELSE m.sealed END,
            content = CASE WHEN u.erases THEN NULL ELSE m.content END
        FROM (
            SELECT u.*, u.status = ANY ($25::text[]) AND EXISTS (
                SELECT FROM gateway.organizations g
                WHERE g.id = u.tenant_id AND g.content_storage = 'none'
            ) AS erases
            FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::timestamptz[], $5::timestamptz[],
                        $6::timestamptz[], $7::timestamptz[], $8::timestamptz[], $9::text[],
                        $10::text[], $24::text[], $26::uuid[])
                 AS u (id, status, transmission_id, sent_at, delivered_at, read_at, due_at,
                       failed_at, code, reason, engine_id, tenant_id)
        ) AS u
        WHERE m.id = u.id
    ), settled AS (
        UPDATE dispatcher.transmissions t
        SET outcome = u.outcome, code = u.code, detail = u.detail, settled_at = u.at
        FROM unnest($11::uuid[], $12::text[], $13::text[], $14::text[], $15::timestamptz[])
             AS u (id, outcome, code, detail, at)
        WHERE t.id = u.id AND t.outcome IS NULL
    ), told AS (
        INSERT INTO dispatcher.outbox (id, kind, name, routing_key, body, created_at)
        SELECT u.id, u.kind, u.name, u.routing_key, u.body, $23
        FROM unnest($18::uuid[], $19::text[], $20::text[], $21::text[], $22::bytea[])
             WITH ORDINALITY AS u (id, kind, name, routing_key, body, place)
        ORDER BY u.place
        RETURNING seq
    ), unparked AS (
    UPDATE dispatcher.messages SET parked = false
    WHERE id = ANY (ARRAY(
        SELECT f.id
        FROM unnest($16::uuid[], $17::text[]) AS c (instance_id, chat)
        CROSS JOIN LATERAL (
            SELECT id FROM dispatcher.messages
            WHERE instance_id = c.instance_id AND chat = c.chat
              AND parked AND status IN ('queued', 'retrying') AND id <> ALL ($1::uuid[])
            ORDER BY priority, sequence LIMIT 1
        ) f
    ))
    RETURNING instance_id
    )
    SELECT ARRAY(SELECT instance_id FROM unparked), ARRAY(SELECT seq FROM told)
"""


async def write(
    connection: HotConnection, changes: Changes, *, now: datetime
) -> tuple[set[UUID], list[Stored]]:
    """Write a batch; the instances of messages that came back in line, and the outbox's rows.

    What a message says is erased with its outcome, unless its organization wants it kept: nothing
    repeats it any more, and receipts do not ask for it.
    """
    errors = [changes.errors.get(one.id, (None, None, None)) for one in changes.messages]
    row = await connection.fetchrow(
        _WRITE,
        [one.id for one in changes.messages],
        [one.status for one in changes.messages],
        [one.transmission_id for one in changes.messages],
        [one.sent_at for one in changes.messages],
        [one.delivered_at for one in changes.messages],
        [one.read_at for one in changes.messages],
        [changes.due.get(one.id) for one in changes.messages],
        [at for at, _, _ in errors],
        [code for _, code, _ in errors],
        [reason for _, _, reason in errors],
        [one.transmission_id for one in changes.settled],
        [one.outcome.value for one in changes.settled],
        [one.code for one in changes.settled],
        [one.detail for one in changes.settled],
        [one.at for one in changes.settled],
        *changes.chats,
        [row.id for row in changes.told],
        [row.kind for row in changes.told],
        [row.name for row in changes.told],
        [row.routing_key for row in changes.told],
        [row.body for row in changes.told],
        now,
        [one.engine_message_id for one in changes.messages],
        sorted(FINAL),
        [one.tenant_id for one in changes.messages],
    )
    unparked, numbers = row or ((), ())
    told = [Stored(seq, pending) for seq, pending in zip(numbers, changes.told, strict=True)]
    return set(unparked), told


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
