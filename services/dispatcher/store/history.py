"""What was said before: sealed, indexed, erased and deleted, a bounded batch at a time.

Each batch is one transaction and leaves its rows in a state of their own, so whatever dies in
between is taken up by the next.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from services.dispatcher.domain.message import FINAL
from services.dispatcher.store.targets import UNINDEX
from shared.db.database import HotConnection
from shared.log import get_logger
from shared.messaging import words
from shared.messaging.contents import ABOUT_ANOTHER, opened, seal
from shared.security.sealing import KeyRing, Unsealable

log = get_logger()

# Whatever else becomes of them, nobody sends these any more.
_OVER: Final = [*sorted(FINAL), "received"]
# Rows are numbered nearly in the order of their times: an inbound one is told of a little later.
_DISORDER: Final = timedelta(days=1)
# Longer than any transaction that has read what a tenant keeps, and has not committed.
_ON_THEIR_WAY: Final = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Walked:
    """How far a walk along a tenant's messages came, what it did, and whether it is at the end."""

    upto: int
    done: int
    ended: bool


async def seal_old(connection: HotConnection, *, ring: KeyRing, limit: int) -> int:
    """Seal messages from before there was a key ring; returns how many."""
    rows = await connection.fetch(
        """
        SELECT id, tenant_id, content FROM dispatcher.messages WHERE content IS NOT NULL
        ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED
        """,
        limit,
    )
    await connection.execute(
        f"""
        UPDATE dispatcher.messages m
        SET sealed = u.sealed, content = NULL,
            media_id = CASE WHEN m.content ->> 'mediaId' ~ '^[0-9a-f-]{{36}}$'
                            THEN (m.content ->> 'mediaId')::uuid END,
            words = CASE WHEN g.content_storage = 'encrypted' AND m.type NOT IN {ABOUT_ANOTHER}
                         THEN '{{}}'::bigint[] END
        FROM unnest($1::uuid[], $2::uuid[], $3::bytea[]) AS u (id, tenant_id, sealed)
        LEFT JOIN gateway.organizations g ON g.id = u.tenant_id
        WHERE m.id = u.id
        """,  # noqa: S608 - a constant of ours
        [row[0] for row in rows],
        [row[1] for row in rows],
        [seal(ring, row[1], row[0], row[2]) for row in rows],
    )
    return len(rows)


async def index(connection: HotConnection, *, ring: KeyRing, limit: int) -> int:
    """Index the words of messages that wait for it, the oldest first; returns how many messages.

    The index is made with the key that seals. So what another key has sealed goes on waiting, and
    holds up nothing: for a replica that has that key first, or until it is sealed anew. What nobody
    wants to be found any more, or was changed so that it does not open, waits no longer.
    """
    rows = await connection.fetch(
        """
        SELECT m.id, m.tenant_id, m.sequence, m.content, m.sealed,
               coalesce(g.content_storage = 'encrypted', false)
        FROM dispatcher.messages m LEFT JOIN gateway.organizations g ON g.id = m.tenant_id
        WHERE m.words = '{}'::bigint[]
          AND (m.sealed IS NULL OR substring(m.sealed FOR $2) = $3
               OR coalesce(g.content_storage <> 'encrypted', true))
        ORDER BY m.sequence LIMIT $1 FOR UPDATE OF m SKIP LOCKED
        """,
        limit,
        len(ring.current),
        ring.current,
    )
    sequences: list[int] = []
    hashed: list[int] = []
    for id_, tenant_id, sequence, plain, sealed, wanted in rows:
        if not wanted:
            continue
        try:
            content = opened(ring, tenant_id, id_, sealed=sealed, plain=plain)
        except Unsealable:
            log.exception("message_not_indexed", message_id=str(id_))
            continue
        found = words.hashes(ring.index_keys(tenant_id)[0], words.of_content(content or {}))
        hashed += found
        sequences += [sequence] * len(found)
    await connection.execute(
        """
        WITH found AS (
            SELECT * FROM unnest($1::bigint[], $2::bigint[]) AS f (word, sequence)
        ), indexed AS (
            INSERT INTO dispatcher.message_words (word, sequence)
            SELECT word, sequence FROM found ORDER BY word, sequence ON CONFLICT DO NOTHING
        )
        UPDATE dispatcher.messages m
        SET words = (SELECT array_agg(f.word) FROM found f WHERE f.sequence = u.sequence)
        FROM unnest($3::uuid[], $4::bigint[]) AS u (id, sequence)
        WHERE m.id = u.id
        """,
        hashed,
        sequences,
        [row[0] for row in rows],
        [row[2] for row in rows],
    )
    return len(rows)


async def begin_erasing(connection: HotConnection, *, now: datetime) -> UUID | None:
    """A tenant that has chosen to keep nothing, and whose history is still there; locked.

    Another replica that is at it at this moment is left alone.
    """
    await connection.execute(
        """
        INSERT INTO dispatcher.erasures AS e (tenant_id, since, upto, erased, started_at)
        SELECT o.id, o.content_storage_since, 0, 0, $1 FROM gateway.organizations o
        WHERE o.content_storage = 'none' AND o.content_storage_since IS NOT NULL
          AND NOT EXISTS (
              SELECT FROM dispatcher.erasures b
              WHERE b.tenant_id = o.id AND b.since = o.content_storage_since
          )
        ON CONFLICT (tenant_id) DO UPDATE
        SET since = excluded.since, upto = 0, erased = 0, started_at = excluded.started_at,
            finished_at = NULL
        WHERE e.since <> excluded.since
        """,
        now,
    )
    tenant_id: UUID | None = await connection.fetchval(
        """
        SELECT e.tenant_id FROM dispatcher.erasures e
        JOIN gateway.organizations o ON o.id = e.tenant_id AND o.content_storage = 'none'
        WHERE e.finished_at IS NULL AND e.started_at <= $1
        ORDER BY e.started_at LIMIT 1 FOR UPDATE OF e SKIP LOCKED
        """,
        now,
    )
    return tenant_id


async def erase(connection: HotConnection, tenant_id: UUID, *, now: datetime, limit: int) -> Walked:
    """Erase what the next of a tenant's messages say, and take down how far that is.

    What is still to be sent keeps its content until it has been, and is found no more. A walk that
    ends soon after the tenant has chosen is followed by another: a message may have been on its way
    in that was to be kept when it began. Within the transaction of ``begin_erasing``.
    """
    [(upto, since)] = await connection.fetch(
        "SELECT upto, since FROM dispatcher.erasures WHERE tenant_id = $1", tenant_id
    )
    settled_at = since + _ON_THEIR_WAY
    rows = await connection.fetch(
        """
        SELECT id, sequence FROM dispatcher.messages WHERE tenant_id = $1 AND sequence > $2
        ORDER BY sequence LIMIT $3
        """,
        tenant_id,
        upto,
        limit,
    )
    ids = sorted(row[0] for row in rows)
    await connection.execute(
        "SELECT FROM dispatcher.messages WHERE id = ANY ($1::uuid[]) ORDER BY id FOR UPDATE", ids
    )
    await connection.execute(UNINDEX, ids)
    await connection.execute(
        """
        UPDATE dispatcher.messages SET words = NULL
        WHERE id = ANY ($1::uuid[]) AND words IS NOT NULL AND NOT status = ANY ($2::text[])
        """,
        ids,
        _OVER,
    )
    done = await connection.execute(
        """
        UPDATE dispatcher.messages SET sealed = NULL, content = NULL, words = NULL
        WHERE id = ANY ($1::uuid[]) AND num_nonnulls(sealed, content) > 0
          AND status = ANY ($2::text[])
        """,
        ids,
        _OVER,
    )
    through = len(rows) < limit
    again = through and now < settled_at
    walked = Walked(
        upto=0 if again else rows[-1][1] if rows else upto,
        done=int(done.rpartition(" ")[2]),
        ended=through and not again,
    )
    await connection.execute(
        """
        UPDATE dispatcher.erasures
        SET upto = $2, erased = erased + $3, finished_at = CASE WHEN $4 THEN $5::timestamptz END,
            started_at = CASE WHEN $6 THEN $7 ELSE started_at END
        WHERE tenant_id = $1
        """,
        tenant_id,
        walked.upto,
        walked.done,
        walked.ended,
        now,
        again,
        settled_at,
    )
    return walked


async def retentions(connection: HotConnection) -> list[tuple[UUID, timedelta]]:
    """Tenants whose messages are deleted some time, and when that is."""
    rows = await connection.fetch(
        "SELECT id, retention_days FROM gateway.organizations WHERE retention_days > 0 ORDER BY id"
    )
    return [(row[0], timedelta(days=row[1])) for row in rows]


async def delete_old(
    connection: HotConnection, tenant_id: UUID, *, before: datetime, after: int, limit: int
) -> Walked:
    """Delete a tenant's messages of ``before``, with their transmissions and words.

    Walks along the messages numbered above ``after``; what is still to be sent stays.
    """
    rows = await connection.fetch(
        """
        SELECT id, sequence, created_at, status = ANY ($4::text[]) FROM dispatcher.messages
        WHERE tenant_id = $1 AND sequence > $2 ORDER BY sequence LIMIT $3
        """,
        tenant_id,
        after,
        limit,
        _OVER,
    )
    old = sorted(row[0] for row in rows if row[3] and row[2] < before)
    if old:
        await connection.execute(
            "SELECT FROM dispatcher.messages WHERE id = ANY ($1::uuid[]) ORDER BY id FOR UPDATE",
            old,
        )
        await connection.execute(UNINDEX, old)
        await connection.execute(
            """
            WITH gone AS (
                DELETE FROM dispatcher.transmissions WHERE message_id = ANY ($1::uuid[])
            )
            DELETE FROM dispatcher.messages WHERE id = ANY ($1::uuid[])
            """,
            old,
        )
    ended = len(rows) < limit or rows[-1][2] >= before + _DISORDER
    return Walked(upto=rows[-1][1] if rows else after, done=len(old), ended=ended)
