"""Which inbound stanzas have been recorded."""

from collections.abc import Collection
from datetime import datetime
from uuid import UUID

from shared.db.database import HotConnection


async def fresh(
    connection: HotConnection, keys: Collection[tuple[UUID, str]], *, now: datetime
) -> set[tuple[UUID, str]]:
    """Record stanzas, in the transaction of their effect; return those that were not there before.

    In order, so that two batches with the same stanzas cannot deadlock.
    """
    ordered = sorted(set(keys))
    rows = await connection.fetch(
        """
        INSERT INTO sessions.inbound (instance_id, stanza_key, seen_at)
        SELECT k.instance_id, k.stanza_key, $3
        FROM unnest($1::uuid[], $2::text[]) AS k (instance_id, stanza_key)
        ON CONFLICT DO NOTHING RETURNING instance_id, stanza_key
        """,
        [instance_id for instance_id, _ in ordered],
        [stanza_key for _, stanza_key in ordered],
        now,
    )
    return {(row[0], row[1]) for row in rows}
