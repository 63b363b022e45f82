"""The inbox: which events a service has already taken into account."""

from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

from shared.db.database import HotConnection


async def fresh(
    connection: HotConnection, schema: str, ids: Iterable[UUID], *, now: datetime
) -> set[UUID]:
    """Record ids and return those that were not there before, in the transaction of their effect.

    They are inserted in order: two consumers that insert the same ids in different orders deadlock.
    """
    rows = await connection.fetch(
        f"""
        INSERT INTO {schema}.inbox (event_id, seen_at)
        SELECT id, $2 FROM unnest($1::uuid[]) AS u (id)
        ON CONFLICT DO NOTHING RETURNING event_id
        """,  # noqa: S608 - the schema is a constant of ours
        sorted(set(ids)),
        now,
    )
    return {row[0] for row in rows}
