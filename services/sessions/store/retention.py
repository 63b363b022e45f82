"""Forgetting: rows that are older than anything that could still refer to them."""

from datetime import datetime
from typing import Final

from shared.db.database import HotConnection

# Small enough that the locks are held for milliseconds, large enough to keep up with a busy day.
BATCH: Final = 5000

_STATEMENTS: Final = (
    """
    DELETE FROM sessions.handovers WHERE transmission_id IN (
        SELECT transmission_id FROM sessions.handovers
        WHERE handed_over_at < $1 AND outcome IS NOT NULL ORDER BY handed_over_at LIMIT $2)
    """,
    """
    DELETE FROM sessions.inbound WHERE (instance_id, stanza_key) IN (
        SELECT instance_id, stanza_key FROM sessions.inbound
        WHERE seen_at < $1 ORDER BY seen_at LIMIT $2)
    """,
    """
    DELETE FROM sessions.numbers WHERE (tenant_id, engine, number) IN (
        SELECT tenant_id, engine, number FROM sessions.numbers
        WHERE checked_at < $1 ORDER BY checked_at LIMIT $2)
    """,
    # Of an instance that was not connected since: the handle is a secret and does not stay.
    """
    UPDATE sessions.inbound_media SET status = 'failed', error = 'MEDIA_GONE', handle = NULL,
        sealed_handle = NULL
    WHERE id IN (
        SELECT id FROM sessions.inbound_media
        WHERE status = 'waiting' AND created_at < $1 LIMIT $2)
    """,
    # There is no index on the time: rows are numbered in its order, so the oldest come first.
    """
    DELETE FROM sessions.sandbox_wire WHERE id IN (
        SELECT id FROM (SELECT id, at FROM sessions.sandbox_wire ORDER BY id LIMIT $2) AS oldest
        WHERE at < $1)
    """,
    """
    DELETE FROM sessions.sandbox_refusals WHERE (instance_id, engine_message_id) IN (
        SELECT instance_id, engine_message_id FROM sessions.sandbox_refusals
        WHERE refused_at < $1 LIMIT $2)
    """,
)


async def forget(connection: HotConnection, *, before: datetime) -> int:
    """Delete one batch of everything that is older than ``before``; return how many rows went."""
    gone = 0
    for statement in _STATEMENTS:
        status = await connection.execute(statement, before, BATCH)
        gone += int(status.rpartition(" ")[2])
    return gone
