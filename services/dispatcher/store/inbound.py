"""Inbound messages become rows here, so that one list shows a conversation's both sides."""

from collections.abc import Sequence
from uuid import UUID

from shared.contracts.envelope import Emitted
from shared.contracts.events import MessageEdited, MessageReceived, MessageRevoked
from shared.db.database import HotConnection


async def insert_received(
    connection: HotConnection, received: Sequence[tuple[Emitted, MessageReceived]]
) -> None:
    """Insert a row for each message; one that is there already stays as it is."""
    await connection.execute(
        """
        INSERT INTO dispatcher.messages
            (id, tenant_id, instance_id, shard, direction, chat, sender, recipient, type, content,
             identity, status, priority, engine_message_id, on_unknown, request_id,
             due_at, expires_at, created_at)
        SELECT u.id, u.tenant_id, u.instance_id, 0, 'inbound', u.chat, u.sender, u.recipient,
               u.type, u.content, u.identity, 'received', 1, u.engine_message_id, 'fail',
               u.request_id, u.at, u.at, u.at
        FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::text[],
                    $7::text[], $8::jsonb[], $9::jsonb[], $10::text[], $11::text[],
                    $12::timestamptz[])
             AS u (id, tenant_id, instance_id, chat, sender, recipient, type, content, identity,
                   engine_message_id, request_id, at)
        ON CONFLICT DO NOTHING
        """,
        [UUID(event.message_id) for _, event in received],
        [emitted.tenant_id for emitted, _ in received],
        [emitted.instance_id for emitted, _ in received],
        # The conversation, which for a group is not who wrote.
        [emitted.partition_key for emitted, _ in received],
        [event.from_ for _, event in received],
        [event.to for _, event in received],
        [event.message_type for _, event in received],
        [event.content.model_dump_json(by_alias=True, exclude_none=True) for _, event in received],
        [event.identity.model_dump_json(by_alias=True, exclude_none=True) for _, event in received],
        [event.engine_message_id for _, event in received],
        [emitted.correlation_id for emitted, _ in received],
        [emitted.time for emitted, _ in received],
    )


async def note_edited(
    connection: HotConnection, edited: Sequence[tuple[Emitted, MessageEdited]]
) -> None:
    """Give messages their new words, the latest of them; what we never received stays unknown."""
    latest: dict[UUID, tuple[Emitted, MessageEdited]] = {}
    for emitted, event in edited:
        id_ = UUID(event.message_id)
        if id_ not in latest or latest[id_][0].time <= emitted.time:
            latest[id_] = (emitted, event)
    await connection.execute(
        """
        UPDATE dispatcher.messages m SET content = u.content, edited_at = u.at
        FROM unnest($1::uuid[], $2::uuid[], $3::jsonb[], $4::timestamptz[])
             AS u (id, instance_id, content, at)
        WHERE m.id = u.id AND m.instance_id = u.instance_id AND m.direction = 'inbound'
          AND (m.edited_at IS NULL OR m.edited_at <= u.at)
        """,
        list(latest),
        [emitted.instance_id for emitted, _ in latest.values()],
        [
            event.content.model_dump_json(by_alias=True, exclude_none=True)
            for _, event in latest.values()
        ],
        [emitted.time for emitted, _ in latest.values()],
    )


async def note_revoked(
    connection: HotConnection, revoked: Sequence[tuple[Emitted, MessageRevoked]]
) -> None:
    """Note that messages were deleted by who wrote them; what they said stays readable here."""
    await connection.execute(
        """
        UPDATE dispatcher.messages m SET revoked_at = u.at
        FROM unnest($1::uuid[], $2::uuid[], $3::timestamptz[]) AS u (id, instance_id, at)
        WHERE m.id = u.id AND m.instance_id = u.instance_id AND m.direction = 'inbound'
          AND m.revoked_at IS NULL
        """,
        [UUID(event.message_id) for _, event in revoked],
        [emitted.instance_id for emitted, _ in revoked],
        [emitted.time for emitted, _ in revoked],
    )
