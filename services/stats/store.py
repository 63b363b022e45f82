"""SQL of the statistics service: functions of a connection."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from uuid import UUID

from services.stats.domain.counting import Happening, HourKey, Key, Took
from shared.db.database import HotConnection


async def add(connection: HotConnection, counted: Mapping[Key, int]) -> None:
    """Add to counters, in the order given, in one statement."""
    keys = list(counted)
    await connection.execute(
        """
        INSERT INTO stats.daily_counters AS c (tenant_id, day, instance_id, metric, count)
        SELECT * FROM unnest($1::uuid[], $2::date[], $3::uuid[], $4::text[], $5::bigint[])
        ON CONFLICT (tenant_id, day, instance_id, metric)
        DO UPDATE SET count = c.count + excluded.count
        """,
        [key[0] for key in keys],
        [key[1] for key in keys],
        [key[2] for key in keys],
        [key[3] for key in keys],
        list(counted.values()),
    )


async def add_hours(connection: HotConnection, counted: Mapping[HourKey, int]) -> None:
    """Add to counters of hours, in the order given, in one statement."""
    keys = list(counted)
    await connection.execute(
        """
        INSERT INTO stats.hourly_counters AS c (tenant_id, instance_id, hour, metric, count)
        SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::timestamptz[], $4::text[], $5::bigint[])
        ON CONFLICT (tenant_id, instance_id, hour, metric)
        DO UPDATE SET count = c.count + excluded.count
        """,
        [key[0] for key in keys],
        [key[1] for key in keys],
        [key[2] for key in keys],
        [key[3] for key in keys],
        list(counted.values()),
    )


async def sent_at(connection: HotConnection, messages: Collection[UUID]) -> dict[UUID, datetime]:
    """When WhatsApp took each of these messages, of those that are known."""
    rows = await connection.fetch(
        """
        SELECT id, sent_at FROM dispatcher.messages
        WHERE id = ANY ($1::uuid[]) AND sent_at IS NOT NULL
        """,
        list(messages),
    )
    return {row[0]: row[1] for row in rows}


async def lock_chats(connection: HotConnection, happenings: Sequence[Happening]) -> None:
    """Take hold of all chats of a batch that wait for an answer, in order, before any is changed.

    What is received and what is sent change them in two statements: batches that had these the
    other way round would deadlock. Only a chat that somebody adds after this can still be met out
    of order; then the database ends one of the two, and its batch is counted later.
    """
    await connection.execute(
        "SELECT FROM stats.unanswered WHERE id = ANY ($1::uuid[]) ORDER BY id FOR UPDATE",
        sorted({one.chat_id for one in happenings}),
    )


async def wait(connection: HotConnection, received: Sequence[Happening]) -> None:
    """Note that these chats wait for an answer, since their first message that has none."""
    since: dict[UUID, datetime] = {}
    for one in received:
        since[one.chat_id] = min(one.at, since.get(one.chat_id, one.at))
    chats = sorted(since)
    await connection.execute(
        """
        INSERT INTO stats.unanswered AS u (id, since)
        SELECT * FROM unnest($1::uuid[], $2::timestamptz[])
        ON CONFLICT (id) DO UPDATE SET since = excluded.since WHERE excluded.since < u.since
        """,
        chats,
        [since[chat] for chat in chats],
    )


async def answered(connection: HotConnection, sent: Sequence[Happening]) -> list[Took]:
    """How long those chats have waited that wait no more, since something was sent there."""
    first: dict[UUID, Happening] = {}
    for one in sorted(sent, key=lambda each: each.at, reverse=True):
        first[one.chat_id] = one
    chats = list(first)
    rows = await connection.fetch(
        """
        WITH answered AS (
            SELECT u.id FROM stats.unanswered u
            JOIN unnest($1::uuid[], $2::timestamptz[]) AS s (id, at) ON s.id = u.id
            WHERE u.since <= s.at ORDER BY u.id FOR UPDATE OF u
        )
        DELETE FROM stats.unanswered u USING answered a WHERE u.id = a.id RETURNING u.id, u.since
        """,
        chats,
        [first[chat].at for chat in chats],
    )
    return [Took("response", first[row[0]], first[row[0]].at - row[1]) for row in rows]


async def forget_hours(connection: HotConnection, *, before: datetime, limit: int) -> int:
    """Delete counters of hours before then; return how many, at most ``limit``."""
    done = await connection.execute(
        """
        DELETE FROM stats.hourly_counters WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM stats.hourly_counters WHERE hour < $1
            ORDER BY hour LIMIT $2 FOR UPDATE SKIP LOCKED
        ))
        """,
        before,
        limit,
    )
    return int(done.rpartition(" ")[2])


async def forget_unanswered(connection: HotConnection, *, before: datetime, limit: int) -> int:
    """Delete chats that wait since before then; return how many, at most ``limit``."""
    done = await connection.execute(
        """
        DELETE FROM stats.unanswered WHERE id = ANY (ARRAY(
            SELECT id FROM stats.unanswered WHERE since < $1
            ORDER BY since LIMIT $2 FOR UPDATE SKIP LOCKED
        ))
        """,
        before,
        limit,
    )
    return int(done.rpartition(" ")[2])


async def time_zones(connection: HotConnection, tenants: Collection[UUID]) -> dict[UUID, str]:
    """The IANA names of the time zones of some tenants."""
    rows = await connection.fetch(
        "SELECT id, timezone FROM gateway.organizations WHERE id = ANY($1::uuid[])", list(tenants)
    )
    return {row[0]: row[1] for row in rows}


async def forget(connection: HotConnection, *, before: datetime, limit: int) -> int:
    """Delete inbox rows seen ``before``; return how many, at most ``limit``.

    By array, because a join with a ``LIMIT`` of unknown size is planned as a scan of the table.
    """
    done = await connection.execute(
        """
        DELETE FROM stats.inbox WHERE event_id = ANY (ARRAY(
            SELECT event_id FROM stats.inbox WHERE seen_at < $1
            ORDER BY seen_at LIMIT $2
            FOR UPDATE SKIP LOCKED
        ))
        """,
        before,
        limit,
    )
    return int(done.rpartition(" ")[2])
