"""Inbound messages become rows here, so that one list shows a conversation's both sides.

What they say is kept only if their organization wants it: whoever is to hear of it hears by the
event.
"""

from collections.abc import Sequence
from uuid import UUID

from services.dispatcher.store.targets import UNINDEX
from shared.contracts.envelope import Emitted
from shared.contracts.events import MessageEdited, MessageReceived, MessageRevoked
from shared.db.database import HotConnection
from shared.messaging.contents import ABOUT_ANOTHER, seal
from shared.security.sealing import KeyRing


async def insert_received(
    connection: HotConnection,
    received: Sequence[tuple[Emitted, MessageReceived]],
    *,
    ring: KeyRing,
) -> None:
    """Insert a row for each message; one that is there already stays as it is."""
    await connection.execute(
        f"""
        INSERT INTO dispatcher.messages
            (id, tenant_id, instance_id, shard, direction, chat, sender, recipient, type, sealed,
             words, identity, status, priority, engine_message_id, on_unknown, request_id,
             due_at, expires_at, created_at)
        SELECT u.id, u.tenant_id, u.instance_id, 0, 'inbound', u.chat, u.sender, u.recipient,
               u.type, CASE WHEN g.content_storage = 'encrypted' THEN u.sealed END,
               CASE WHEN g.content_storage = 'encrypted' AND u.type NOT IN {ABOUT_ANOTHER}
                    THEN '{{}}'::bigint[] END,
               u.identity, 'received', 1, u.engine_message_id, 'fail',
               u.request_id, u.at, u.at, u.at
        FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::text[],
                    $7::text[], $8::bytea[], $9::jsonb[], $10::text[], $11::text[],
                    $12::timestamptz[])
             WITH ORDINALITY AS u (
                 id, tenant_id, instance_id, chat, sender, recipient, type, sealed, identity,
                 engine_message_id, request_id, at, place
             )
        LEFT JOIN gateway.organizations g ON g.id = u.tenant_id
        ORDER BY u.place
        ON CONFLICT DO NOTHING
        """,  # noqa: S608 - a constant of ours
        [UUID(event.message_id) for _, event in received],
        [emitted.tenant_id for emitted, _ in received],
        [emitted.instance_id for emitted, _ in received],
        # The conversation, which for a group is not who wrote.
        [emitted.partition_key for emitted, _ in received],
        [event.from_ for _, event in received],
        [event.to for _, event in received],
        [event.message_type for _, event in received],
        [_sealed(ring, emitted, event) for emitted, event in received],
        [event.identity.model_dump_json(by_alias=True, exclude_none=True) for _, event in received],
        [event.engine_message_id for _, event in received],
        [emitted.correlation_id for emitted, _ in received],
        [emitted.time for emitted, _ in received],
    )


async def note_edited(
    connection: HotConnection,
    edited: Sequence[tuple[Emitted, MessageEdited]],
    *,
    ring: KeyRing,
) -> None:
    """Give messages their new words, the latest of them; what we never received stays unknown.

    Within a transaction. What was erased stays so.
    """
    latest: dict[UUID, tuple[Emitted, MessageEdited]] = {}
    for emitted, event in edited:
        id_ = UUID(event.message_id)
        if id_ not in latest or latest[id_][0].time <= emitted.time:
            latest[id_] = (emitted, event)
    rows = await connection.fetch(
        """
        SELECT m.id
        FROM unnest($1::uuid[], $2::uuid[], $3::timestamptz[]) AS u (id, instance_id, at)
        JOIN dispatcher.messages m ON m.id = u.id AND m.instance_id = u.instance_id
        WHERE m.direction = 'inbound' AND (m.edited_at IS NULL OR m.edited_at <= u.at)
        ORDER BY m.id FOR UPDATE OF m
        """,
        list(latest),
        [emitted.instance_id for emitted, _ in latest.values()],
        [emitted.time for emitted, _ in latest.values()],
    )
    ids = [row[0] for row in rows]
    await connection.execute(UNINDEX, ids)
    await connection.execute(
        """
        UPDATE dispatcher.messages m
        SET sealed = CASE WHEN num_nonnulls(m.sealed, m.content) > 0
                          THEN u.sealed END,
            content = NULL, edited_at = u.at,
            words = CASE WHEN m.words IS NOT NULL THEN '{}'::bigint[] END
        FROM unnest($1::uuid[], $2::bytea[], $3::timestamptz[]) AS u (id, sealed, at)
        WHERE m.id = u.id
        """,
        ids,
        [_sealed(ring, *latest[id_]) for id_ in ids],
        [latest[id_][0].time for id_ in ids],
    )


async def note_revoked(
    connection: HotConnection, revoked: Sequence[tuple[Emitted, MessageRevoked]]
) -> None:
    """Note that messages were deleted by who wrote them, and erase what they said.

    Within a transaction.
    """
    rows = await connection.fetch(
        """
        SELECT m.id
        FROM unnest($1::uuid[], $2::uuid[]) AS u (id, instance_id)
        JOIN dispatcher.messages m ON m.id = u.id AND m.instance_id = u.instance_id
        WHERE m.direction = 'inbound' AND m.revoked_at IS NULL
        ORDER BY m.id FOR UPDATE OF m
        """,
        [UUID(event.message_id) for _, event in revoked],
        [emitted.instance_id for emitted, _ in revoked],
    )
    at = {UUID(event.message_id): emitted.time for emitted, event in revoked}
    ids = [row[0] for row in rows]
    await connection.execute(UNINDEX, ids)
    await connection.execute(
        """
        UPDATE dispatcher.messages m
        SET revoked_at = u.at, sealed = NULL, content = NULL, words = NULL
        FROM unnest($1::uuid[], $2::timestamptz[]) AS u (id, at)
        WHERE m.id = u.id
        """,
        ids,
        [at[id_] for id_ in ids],
    )


def _sealed(ring: KeyRing, emitted: Emitted, event: MessageReceived | MessageEdited) -> bytes:
    content = event.content.model_dump_json(by_alias=True, exclude_none=True)
    return seal(ring, emitted.tenant_id, UUID(event.message_id), content)
