"""Accepting messages by the hundred: one statement, one commit, whoever sent them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import NamedTuple
from uuid import UUID

import orjson

from shared.db.database import HotConnection
from shared.messaging.contents import ABOUT_ANOTHER, seal_all
from shared.security.sealing import KeyRing


@dataclass(frozen=True, slots=True)
class Keyed:
    """The idempotency row that is committed with a message; ``response`` is sealed."""

    key_hash: bytes
    fingerprint: bytes
    response: bytes


class Origin(NamedTuple):
    """The instance that sends, as far as a message's row holds it. ``number`` is what is shown."""

    instance_id: UUID
    tenant_id: UUID
    shard: int
    number: str


class Options(NamedTuple):
    """What few messages have. ``metadata`` is JSON already. Without ``expires_at`` it is a day."""

    metadata: str | None = None
    priority: int = 1
    on_unknown: str = "fail"
    target_id: UUID | None = None
    expires_at: datetime | None = None
    media_id: UUID | None = None


class NewMessage(NamedTuple):
    """A message that is to be accepted: a tuple, because thousands are made every second.

    ``id`` is a UUID as text, ``content`` JSON already; it is sealed as it is stored. ``month`` is
    whose quota it counts against, by its first day; without one it is free. Texts without
    ``options`` and without an idempotency key are a few columns only, which halves what their
    insertion costs here.
    """

    id: str
    origin: Origin
    chat: str
    content: str
    request_id: str
    created_at: datetime
    type: str = "text"
    options: Options | None = None
    keyed: Keyed | None = None
    month: date | None = None

    @property
    def tenant_id(self) -> UUID:
        """Whose it is."""
        return self.origin.tenant_id


class Accepted(NamedTuple):
    """For each message whether it was inserted; and what tenants have used in a month by now."""

    flags: list[bool]
    used: dict[tuple[UUID, date], int]


# ``WITH ORDINALITY`` and the order make ``sequence`` follow the order of the batch. The id on the
# wire is allocated here, long before the wire, and the same for every attempt.
_INSERT = f"""
    INSERT INTO dispatcher.messages (
        id, tenant_id, instance_id, shard, direction, chat, sender, recipient, type, sealed,
        metadata, status, priority, engine_message_id, on_unknown, request_id, due_at, expires_at,
        created_at, target_id, media_id, words
    )
    SELECT m.id, o.tenant_id, o.id, o.shard, 'outbound', m.chat, o.number,
           CASE WHEN m.chat LIKE '%@s.whatsapp.net' THEN '+' || split_part(m.chat, '@', 1)
                ELSE m.chat END,
           m.type, m.sealed, m.metadata::jsonb, 'queued', m.priority,
           '3EB0' || upper(left(encode(sha256(m.id::text::bytea), 'hex'), 18)), m.on_unknown,
           m.request_id, m.created_at,
           coalesce(m.expires_at, m.created_at + interval '24 hours'), m.created_at,
           m.target_id, m.media_id,
           CASE WHEN o.content_storage = 'encrypted' AND m.type NOT IN {ABOUT_ANOTHER}
                THEN '{{}}'::bigint[] END
"""
# Whether words are to be indexed is as the organization has it now, however long ago somebody here
# last looked.
_ORIGINS = """
    SELECT u.*, g.content_storage
    FROM unnest($1::uuid[], $2::uuid[], $3::smallint[], $4::text[])
        WITH ORDINALITY AS u (id, tenant_id, shard, number, place)
    LEFT JOIN gateway.organizations AS g ON g.id = u.tenant_id
"""


def _lines(number: int) -> str:
    """A parameter that is one text of many lines, as an array of them."""
    return f"string_to_array(${number}, E'\\n')"


# Every value is a line of a text, since asyncpg looks at each element of an array for half a
# microsecond. None has a line break: they are ids, numbers, times, and hexadecimal digits. If one
# had, all below it would slip to the next message; so the join is an outer one, by which the line
# that is left over becomes a row that has no tenant, and refuses the batch.
_PLAIN = f"""
    {_INSERT}
    FROM (
        SELECT *, 'text' AS type, NULL AS metadata, 1 AS priority, 'fail' AS on_unknown,
               NULL::uuid AS target_id, NULL::timestamptz AS expires_at, NULL::uuid AS media_id
        FROM (
            SELECT origin::int, id::uuid, chat, decode(sealed, 'hex') AS sealed, request_id,
                   created_at::timestamptz, place
            FROM unnest(
                {_lines(5)}, {_lines(6)}, {_lines(7)}, {_lines(8)}, {_lines(9)}, {_lines(10)}
            ) WITH ORDINALITY AS m (origin, id, chat, sealed, request_id, created_at, place)
        ) AS m
    ) AS m
    LEFT JOIN ({_ORIGINS}) AS o ON o.place = m.origin
    ORDER BY m.place
"""  # noqa: S608 - constants of ours

# Counters are locked in order, so that two processes which count for the same tenants wait for one
# another and never deadlock.
_USED = """
    INSERT INTO gateway.message_usage AS u (tenant_id, month, accepted)
    {counts}
    ON CONFLICT (tenant_id, month) DO UPDATE SET accepted = u.accepted + excluded.accepted
    RETURNING tenant_id, month, accepted
"""
_COUNTS = """
    SELECT * FROM unnest($11::uuid[], $12::date[], $13::bigint[]) AS c (tenant_id, month, counted)
    ORDER BY tenant_id, month
"""
_PLAIN_COUNTED = f"""
    WITH used AS ({_USED.format(counts=_COUNTS)}), accepted AS ({_PLAIN})
    SELECT tenant_id, month, accepted FROM used
"""  # noqa: S608 - constants of ours

# A key that is there already leaves its message out. One that has expired is taken over. Keys are
# inserted in order, so that two processes which insert the same ones wait and never deadlock.
_ACCEPTED = """
    SELECT a.tenant_id, m.month, count(*)
    FROM accepted a JOIN m ON m.id = a.id
    WHERE m.month IS NOT NULL
    GROUP BY a.tenant_id, m.month
    ORDER BY a.tenant_id, m.month
"""
_ANY = f"""
    WITH m AS (
        SELECT * FROM unnest(
            $5::int[], $6::uuid[], $7::text[], $8::bytea[], $9::text[], $10::timestamptz[],
            $11::text[], $12::text[], $13::smallint[], $14::text[], $21::uuid[],
            $22::timestamptz[], $23::date[], $24::uuid[]
        ) WITH ORDINALITY AS m (
            origin, id, chat, sealed, request_id, created_at, type, metadata, priority, on_unknown,
            target_id, expires_at, month, media_id, place
        )
    ),
    k AS (
        SELECT * FROM unnest($15::uuid[], $16::uuid[], $17::bytea[], $18::bytea[], $19::bytea[],
                             $20::timestamptz[])
            AS k (message_id, tenant_id, key_hash, fingerprint, response, created_at)
    ),
    taken AS (
        INSERT INTO gateway.idempotency_keys AS i (
            tenant_id, key_hash, fingerprint, status, response, created_at, expires_at
        )
        SELECT tenant_id, key_hash, fingerprint, 202, response, created_at,
               created_at + interval '24 hours'
        FROM k ORDER BY tenant_id, key_hash
        ON CONFLICT (tenant_id, key_hash) DO UPDATE SET
            fingerprint = excluded.fingerprint, status = excluded.status,
            response = excluded.response, created_at = excluded.created_at,
            expires_at = excluded.expires_at
        WHERE i.expires_at <= excluded.created_at
        RETURNING tenant_id, key_hash
    ),
    refused AS (
        SELECT k.message_id FROM k
        WHERE NOT EXISTS (
            SELECT FROM taken t WHERE t.tenant_id = k.tenant_id AND t.key_hash = k.key_hash
        )
    ),
    accepted AS (
        {_INSERT}
        FROM m JOIN ({_ORIGINS}) AS o ON o.place = m.origin
        WHERE NOT EXISTS (SELECT FROM refused r WHERE r.message_id = m.id)
        ORDER BY m.place
        RETURNING id, tenant_id
    ),
    used AS ({_USED.format(counts=_ACCEPTED)})
    SELECT message_id::text, NULL::uuid, NULL::date, NULL::bigint FROM refused
    UNION ALL SELECT NULL, tenant_id, month, accepted FROM used
"""  # noqa: S608 - constants of ours

_USUAL = Options()


async def accept(
    connection: HotConnection, messages: Sequence[NewMessage], *, ring: KeyRing
) -> Accepted:
    """Insert the messages and their keys; a message whose key is in use is not inserted.

    No two of ``messages`` may carry the same key.
    """
    ids, by, chats, contents, requests, times, types, options, keys, months = zip(
        *messages, strict=True
    )
    # By identity: to hash ids costs more than an origin that is listed twice.
    distinct = {id(origin): origin for origin in by}
    places = {origin: place for place, origin in enumerate(distinct, 1)}
    senders = [places[id(origin)] for origin in by]
    origins = [list(column) for column in zip(*distinct.values(), strict=True)]
    sealed = seal_all(ring, [origin.tenant_id for origin in by], ids, contents)
    if not any(options) and not any(keys) and set(types) == {"text"}:
        written = (
            map(str, senders),
            ids,
            chats,
            map(bytes.hex, sealed),
            requests,
            orjson.loads(orjson.dumps(times)),  # a fifth of what isoformat() takes
        )
        columns = (*origins, *map("\n".join, written))
        return Accepted([True] * len(messages), await _plain(connection, messages, columns))
    chosen = [option or _USUAL for option in options]
    keyed = [(message, key) for message in messages if (key := message.keyed) is not None]
    rows = await connection.fetch(
        _ANY,
        *origins,
        senders,
        ids,
        chats,
        sealed,
        requests,
        times,
        types,
        [option.metadata for option in chosen],
        [option.priority for option in chosen],
        [option.on_unknown for option in chosen],
        [message.id for message, _ in keyed],
        [message.tenant_id for message, _ in keyed],
        [key.key_hash for _, key in keyed],
        [key.fingerprint for _, key in keyed],
        [key.response for _, key in keyed],
        [message.created_at for message, _ in keyed],
        [option.target_id for option in chosen],
        [option.expires_at for option in chosen],
        months,
        [option.media_id for option in chosen],
    )
    left_out = {row[0] for row in rows if row[0] is not None}
    used = {(row[1], row[2]): row[3] for row in rows if row[0] is None}
    return Accepted([message.id not in left_out for message in messages], used)


async def _plain(
    connection: HotConnection, messages: Sequence[NewMessage], columns: Sequence[object]
) -> dict[tuple[UUID, date], int]:
    counts = Counter(
        (message.tenant_id, message.month) for message in messages if message.month is not None
    )
    if not counts:
        await connection.execute(_PLAIN, *columns)
        return {}
    tenants, months = zip(*counts, strict=True)
    rows = await connection.fetch(_PLAIN_COUNTED, *columns, tenants, months, list(counts.values()))
    return {(row[0], row[1]): row[2] for row in rows}
