"""The first answers to keyed requests."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.db.tables.gateway import IdempotencyRow

KEPT: Final = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class FirstAnswer:
    """What was answered to the first request with a key; ``response`` is sealed."""

    fingerprint: bytes
    status: int
    response: bytes


async def lock(tx: AsyncConnection, key_hash: bytes) -> bool:
    """Take the key for this transaction; false if another one has it."""
    number = int.from_bytes(key_hash[:8], "big", signed=True)
    taken = await tx.execute(select(func.pg_try_advisory_xact_lock(number)))
    return bool(taken.scalar_one())


async def find(
    tx: AsyncConnection, tenant_id: UUID, key_hash: bytes, *, now: datetime
) -> FirstAnswer | None:
    """The first answer, unless it has expired."""
    row = (
        await tx.execute(
            select(
                IdempotencyRow.fingerprint, IdempotencyRow.status, IdempotencyRow.response
            ).where(
                IdempotencyRow.tenant_id == tenant_id,
                IdempotencyRow.key_hash == key_hash,
                IdempotencyRow.expires_at > now,
            )
        )
    ).first()
    return None if row is None else FirstAnswer(row[0], row[1], bytes(row[2]))


async def keep(
    tx: AsyncConnection, tenant_id: UUID, key_hash: bytes, answer: FirstAnswer, *, now: datetime
) -> bool:
    """Store the first answer; false if another process has stored one meanwhile."""
    statement = upsert(IdempotencyRow).values(
        tenant_id=tenant_id,
        key_hash=key_hash,
        fingerprint=answer.fingerprint,
        status=answer.status,
        response=answer.response,
        created_at=now,
        expires_at=now + KEPT,
    )
    kept = await tx.execute(
        statement.on_conflict_do_update(
            index_elements=[IdempotencyRow.tenant_id, IdempotencyRow.key_hash],
            set_={
                name: statement.excluded[name]
                for name in ("fingerprint", "status", "response", "created_at", "expires_at")
            },
            where=IdempotencyRow.expires_at <= now,
        ).returning(IdempotencyRow.status)
    )
    return kept.first() is not None


async def forget(tx: AsyncConnection, *, expired_before: datetime) -> int:
    """Delete answers that have expired; returns how many."""
    gone = await tx.execute(
        delete(IdempotencyRow).where(IdempotencyRow.expires_at < expired_before)
    )
    return gone.rowcount
