"""Forgetting: rows that are older than anything that could still refer to them."""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

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
    # Of an instance that was not connected since, or that nobody has looked into.
    """
    DELETE FROM sessions.callbacks WHERE sequence IN (
        SELECT sequence FROM sessions.callbacks
        WHERE received_at < $1 ORDER BY received_at LIMIT $2)
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


# Of one tenant, and of its instances.
_OF_TENANT: Final = (
    """
    DELETE FROM sessions.numbers WHERE (tenant_id, engine, number) IN (
        SELECT tenant_id, engine, number FROM sessions.numbers
        WHERE tenant_id = $1 AND checked_at < $2 LIMIT $3)
    """,
    """
    UPDATE sessions.inbound_media SET status = 'failed', error = 'MEDIA_GONE', handle = NULL,
        sealed_handle = NULL
    WHERE id = ANY (ARRAY(
        SELECT id FROM sessions.inbound_media
        WHERE tenant_id = $1 AND created_at < $2 AND status = 'waiting' LIMIT $3))
    """,
)
_OF_INSTANCES: Final = (
    """
    DELETE FROM sessions.sandbox_wire WHERE id = ANY (ARRAY(
        SELECT id FROM sessions.sandbox_wire
        WHERE instance_id = ANY ($1::uuid[]) AND at < $2 LIMIT $3))
    """,
    """
    DELETE FROM sessions.sandbox_refusals WHERE (instance_id, engine_message_id) IN (
        SELECT instance_id, engine_message_id FROM sessions.sandbox_refusals
        WHERE instance_id = ANY ($1::uuid[]) AND refused_at < $2 LIMIT $3)
    """,
    """
    DELETE FROM sessions.sandbox_stanzas WHERE id = ANY (ARRAY(
        SELECT id FROM sessions.sandbox_stanzas
        WHERE instance_id = ANY ($1::uuid[]) AND due_at < $2 LIMIT $3))
    """,
)
_HANDOVERS: Final = """
    DELETE FROM sessions.handovers WHERE transmission_id = ANY (ARRAY(
        SELECT transmission_id FROM sessions.handovers
        WHERE handed_over_at >= $2 AND handed_over_at < $3 AND tenant_id = ANY ($1::uuid[])
          AND outcome IS NOT NULL
        ORDER BY handed_over_at LIMIT $4))
"""
_ERASED: Final = """
    DELETE FROM sessions.inbound_media WHERE id = ANY (ARRAY(
        SELECT i.id FROM gateway.media m JOIN sessions.inbound_media i ON i.id = m.id
        WHERE m.erased_at IS NOT NULL AND i.status <> 'waiting' LIMIT $1))
"""


async def retentions(
    connection: HotConnection, *, shorter_than: timedelta
) -> dict[timedelta, frozenset[UUID]]:
    """For how long messages are kept, where that is less than this, and by which tenants."""
    rows = await connection.fetch(
        """
        SELECT retention_days, array_agg(id) FROM gateway.organizations
        WHERE retention_days > 0 AND retention_days < $1 GROUP BY retention_days ORDER BY 1
        """,
        shorter_than.days,
    )
    return {timedelta(days=row[0]): frozenset(row[1]) for row in rows}


async def forget_of(connection: HotConnection, tenant_id: UUID, *, before: datetime) -> int:
    """Delete one batch of what a tenant's messages of ``before`` have left; how many rows went."""
    instances = await connection.fetch(
        "SELECT id FROM gateway.instances WHERE tenant_id = $1", tenant_id
    )
    ids = [row[0] for row in instances]
    done = [
        *[await connection.execute(one, tenant_id, before, BATCH) for one in _OF_TENANT],
        *[await connection.execute(one, ids, before, BATCH) for one in _OF_INSTANCES],
    ]
    return sum(map(_count, done))


async def forget_handovers(
    connection: HotConnection, tenants: Collection[UUID], *, since: datetime, before: datetime
) -> int:
    """Delete one batch of what was handed over for some tenants in a while; how many rows went.

    Found by the time: an index by tenant would cost every hand-over of everybody's.
    """
    done = await connection.execute(_HANDOVERS, list(tenants), since, before, BATCH)
    return _count(done)


async def forget_erased(connection: HotConnection) -> int:
    """Delete one batch of rows, with names, of received files that are gone; returns how many."""
    return _count(await connection.execute(_ERASED, BATCH))


async def forget(connection: HotConnection, *, before: datetime) -> int:
    """Delete one batch of everything that is older than ``before``; return how many rows went."""
    gone = 0
    for statement in _STATEMENTS:
        status = await connection.execute(statement, before, BATCH)
        gone += _count(status)
    return gone


def _count(status: str) -> int:
    """How many rows a statement's status, such as ``DELETE 3``, tells of."""
    return int(status.rpartition(" ")[2])
