"""Values with a default for every field, so that a test states only what matters to it."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson
from asyncpg import Connection

from services.dispatcher.domain.message import Message
from shared.contracts.commands import SettledTransmission, TransmissionOutcome
from shared.ids import new_id
from shared.messaging.contents import seal

NOON = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)


def a_message(**given: Any) -> Message:
    """A message that waits to be sent."""
    return Message(
        **{
            "id": new_id(),
            "tenant_id": new_id(),
            "instance_id": new_id(),
            "chat": "12025550199@s.whatsapp.net",
            "sender": "+12025550000",
            "recipient": "+12025550199",
            "type": "text",
            "metadata": None,
            "status": "queued",
            "attempts": 0,
            "transmission_id": None,
            "engine_message_id": "3EB0AAAA",
            "on_unknown": "fail",
            "request_id": None,
            "sent_at": None,
            "delivered_at": None,
            "read_at": None,
            **given,
        }
    )


def a_settled(outcome: TransmissionOutcome, **given: Any) -> SettledTransmission:
    """The end of a hand-over."""
    return SettledTransmission(
        **{
            "transmission_id": new_id(),
            "message_id": new_id(),
            "instance_id": new_id(),
            "outcome": outcome,
            "at": NOON,
            **given,
        }
    )


async def an_organization(connection: Connection, **given: Any) -> UUID:
    """A tenant's row."""
    row = {
        "id": new_id(),
        "name": "Example",
        "timezone": "UTC",
        "plan": "basic",
        "content_storage": "encrypted",
        **given,
    }
    await connection.execute(
        "INSERT INTO gateway.organizations (id, name, timezone, plan, created_at, content_storage) "
        "VALUES ($1, $2, $3, $4, $5, $6)",
        row["id"],
        row["name"],
        row["timezone"],
        row["plan"],
        NOON,
        row["content_storage"],
    )
    return UUID(str(row["id"]))


async def an_instance(connection: Connection, tenant: UUID, **given: Any) -> UUID:
    """A sandbox instance's row and, unless ``status`` is None, the state of its session."""
    row: dict[str, Any] = {
        "id": new_id(),
        "engine": "sandbox",
        "phone_number": None,
        "settings": {},
        "guard": {"perMinute": 0, "perHour": 0, "perDay": 0},
        "shard": 7,
        "connected": True,
        "status": "ready",
        "deleted_at": None,
        **given,
    }
    await connection.execute(
        "INSERT INTO gateway.instances (id, tenant_id, name, engine, phone_number, settings, guard,"
        " shard, connected, created_at, updated_at, deleted_at)"
        " VALUES ($1, $2, 'An instance', $3, $4, $5::jsonb, $6::jsonb, $7, $8, $9, $9, $10)",
        row["id"],
        tenant,
        row["engine"],
        row["phone_number"],
        orjson.dumps(row["settings"]).decode(),
        orjson.dumps(row["guard"]).decode(),
        row["shard"],
        row["connected"],
        NOON,
        row["deleted_at"],
    )
    if row["status"] is not None:
        await connection.execute(
            "INSERT INTO sessions.session_states"
            " (instance_id, tenant_id, shard, epoch, version, status, since)"
            " VALUES ($1, $2, $3, 1, 1, $4, $5)",
            row["id"],
            tenant,
            row["shard"],
            row["status"],
            NOON,
        )
    return UUID(str(row["id"]))


async def a_message_row(connection: Connection, tenant: UUID, instance: UUID, **given: Any) -> UUID:
    """An accepted message's row."""
    row: dict[str, Any] = {
        "id": new_id(),
        "chat": "12025550199@s.whatsapp.net",
        "status": "queued",
        "priority": 1,
        "on_unknown": "fail",
        "due_at": NOON,
        "expires_at": datetime(2036, 1, 1, tzinfo=UTC),
        "text": "Hello",
        # Without a ring as before there was one.
        "ring": None,
        **given,
    }
    content = orjson.dumps({"kind": "text", "text": row["text"]}).decode()
    ring = row["ring"]
    await connection.execute(
        "INSERT INTO dispatcher.messages (id, tenant_id, instance_id, shard, direction, chat,"
        " sender, recipient, type, content, status, priority, engine_message_id, on_unknown,"
        " due_at, expires_at, created_at, sealed)"
        " VALUES ($1, $2, $3, 7, 'outbound', $4, '+12025550000', $5, 'text', $6::jsonb, $7, $8, $9,"
        " $10, $11, $12, $13, $14)",
        row["id"],
        tenant,
        instance,
        row["chat"],
        "+" + str(row["chat"]).partition("@")[0],
        content if ring is None else None,
        row["status"],
        row["priority"],
        "3EB0" + row["id"].hex[:18].upper(),
        row["on_unknown"],
        row["due_at"],
        row["expires_at"],
        NOON,
        None if ring is None else seal(ring, tenant, row["id"], content),
    )
    return UUID(str(row["id"]))


async def a_file(connection: Connection, tenant: UUID, **given: Any) -> UUID:
    """The row of a file that was uploaded; its bytes are the caller's to store."""
    row: dict[str, Any] = {
        "id": new_id(),
        "sha256": "0" * 64,
        "size": 1,
        "mime_type": "text/plain",
        "filename": None,
        "deleted_at": None,
        **given,
    }
    await connection.execute(
        "INSERT INTO gateway.media"
        " (id, tenant_id, sha256, size, mime_type, filename, created_at, deleted_at)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        row["id"],
        tenant,
        row["sha256"],
        row["size"],
        row["mime_type"],
        row["filename"],
        NOON,
        row["deleted_at"],
    )
    return UUID(str(row["id"]))
