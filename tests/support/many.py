"""Many messages of one tenant, made by the database itself."""

from uuid import UUID

import asyncpg

from shared.messaging import words
from shared.messaging.contents import seal
from tests.support.builders import NOON
from tests.support.keys import RING

CONTACTS = 1000
# One in so many messages holds the word, or is of the kind.
COMMON, USUAL, RARE = 1, 10, 10_000
WORDS = {"hello": COMMON, "order": USUAL, "refund": USUAL + 1, "anaconda": RARE}


async def seed(sql: asyncpg.Connection, tenant: UUID, instance: UUID, *, many: int) -> None:
    """So many messages over thirty days, with their words indexed; the statistics are current.

    All say the same, sealed for the first: whether that opens is not what is measured.
    """
    sealed = seal(RING, tenant, UUID(int=0), '{"kind":"text","text":"hello"}')
    await sql.execute(
        """
        INSERT INTO dispatcher.messages (
            id, tenant_id, instance_id, shard, direction, chat, sender, recipient, type, sealed,
            status, priority, engine_message_id, on_unknown, due_at, expires_at, created_at)
        SELECT gen_random_uuid(), $1, $2, 7, CASE WHEN n % 3 = 0 THEN 'inbound' ELSE 'outbound' END,
               chat.number || '@s.whatsapp.net', '+12025550000', '+' || chat.number,
               CASE WHEN n % $6 = 7 THEN 'poll' ELSE 'text' END, $3,
               CASE WHEN n % $6 = 5 THEN 'failed' WHEN n % 3 = 0 THEN 'received' ELSE 'read' END,
               1, '3EB0' || n, 'fail', at.time, at.time, at.time
        FROM generate_series(1, $4::int) AS n
        CROSS JOIN LATERAL (SELECT (12025600000 + n::bigint * 7919 % $5)::text AS number) AS chat
        CROSS JOIN LATERAL (
            SELECT $7::timestamptz + interval '30 days' * (n::float8 / $4) AS time) AS at
        """,
        tenant,
        instance,
        sealed,
        many,
        CONTACTS,
        RARE,
        NOON,
        timeout=120,
    )
    hashed = words.hashes(RING.index_keys(tenant)[0], WORDS)
    for word, every in zip(hashed, WORDS.values(), strict=True):
        await sql.execute(
            "INSERT INTO dispatcher.message_words (word, sequence)"
            " SELECT $1, sequence FROM dispatcher.messages"
            " WHERE tenant_id = $2 AND sequence % $3 = 0 ORDER BY sequence",
            word,
            tenant,
            every,
            timeout=120,
        )
    await sql.execute("VACUUM (ANALYZE) dispatcher.messages", timeout=120)
    await sql.execute("VACUUM (ANALYZE) dispatcher.message_words", timeout=120)
