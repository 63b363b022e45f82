"""Accepting messages by the hundred: one statement, one commit, whoever sent them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from shared.db.database import HotConnection


@dataclass(frozen=True, slots=True)
class Keyed:
    """The idempotency row that is committed with a message; ``response`` is sealed."""

    key_hash: bytes
    fingerprint: bytes
    response: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class NewMessage:
    """A message that is to be accepted. ``content`` and ``metadata`` are JSON already."""

    id: UUID
    tenant_id: UUID
    instance_id: UUID
    shard: int
    chat: str
    sender: str
    recipient: str
    type: str
    content: str
    metadata: str | None
    priority: int
    on_unknown: str
    request_id: str
    created_at: datetime
    keyed: Keyed | None = None


# ``WITH ORDINALITY`` and the order make ``sequence`` follow the order of the batch.
_MESSAGES = """
    SELECT u.* FROM unnest(
        $1::uuid[], $2::uuid[], $3::uuid[], $4::smallint[], $5::text[], $6::text[], $7::text[],
        $8::text[], $9::text[], $10::text[], $11::smallint[], $12::text[], $13::text[],
        $14::timestamptz[]
    ) WITH ORDINALITY AS u (
        id, tenant_id, instance_id, shard, chat, sender, recipient, type, content, metadata,
        priority, on_unknown, request_id, created_at, place
    )
"""
# The id on the wire is allocated here, long before the wire, and the same for every attempt.
_INSERT = """
    INSERT INTO dispatcher.messages (
        id, tenant_id, instance_id, shard, direction, chat, sender, recipient, type, content,
        metadata, status, priority, engine_message_id, on_unknown, request_id, due_at, expires_at,
        created_at
    )
    SELECT m.id, m.tenant_id, m.instance_id, m.shard, 'outbound', m.chat, m.sender, m.recipient,
           m.type, m.content::jsonb, m.metadata::jsonb, 'queued', m.priority,
           '3EB0' || upper(left(encode(sha256(m.id::text::bytea), 'hex'), 18)), m.on_unknown,
           m.request_id, m.created_at, m.created_at + interval '24 hours', m.created_at
"""
_PLAIN = f"{_INSERT} FROM ({_MESSAGES}) AS m ORDER BY m.place"

# A key that is there already leaves its message out. One that has expired is taken over. Keys are
# inserted in order, so that two processes which insert the same ones wait and never deadlock.
_KEYED = f"""
    WITH m AS ({_MESSAGES}),
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
        {_INSERT} FROM m WHERE NOT EXISTS (SELECT FROM refused r WHERE r.message_id = m.id)
        ORDER BY m.place
        RETURNING id
    )
    SELECT message_id FROM refused
"""  # noqa: S608 - constants of ours


async def accept(connection: HotConnection, messages: Sequence[NewMessage]) -> list[bool]:
    """Insert the messages and their keys; for each, whether it was: not if its key is in use.

    No two of ``messages`` may carry the same key.
    """
    columns: tuple[list[object], ...] = (
        [message.id for message in messages],
        [message.tenant_id for message in messages],
        [message.instance_id for message in messages],
        [message.shard for message in messages],
        [message.chat for message in messages],
        [message.sender for message in messages],
        [message.recipient for message in messages],
        [message.type for message in messages],
        [message.content for message in messages],
        [message.metadata for message in messages],
        [message.priority for message in messages],
        [message.on_unknown for message in messages],
        [message.request_id for message in messages],
        [message.created_at for message in messages],
    )
    keyed = [(message, key) for message in messages if (key := message.keyed) is not None]
    if not keyed:
        await connection.execute(_PLAIN, *columns)
        return [True] * len(messages)
    refused = await connection.fetch(
        _KEYED,
        *columns,
        [message.id for message, _ in keyed],
        [message.tenant_id for message, _ in keyed],
        [key.key_hash for _, key in keyed],
        [key.fingerprint for _, key in keyed],
        [key.response for _, key in keyed],
        [message.created_at for message, _ in keyed],
    )
    left_out = {row[0] for row in refused}
    return [message.id not in left_out for message in messages]
