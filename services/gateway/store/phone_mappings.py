"""Which phone numbers stand for which users, instance by instance."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.db.tables.gateway import PhoneMappingRow, UserRow

# What an instance may have at most.
MOST = 10_000


@dataclass(frozen=True, slots=True)
class PhoneMapping:
    """A phone number of a contact that stands for a user."""

    id: UUID
    tenant_id: UUID
    instance_id: UUID
    phone_number: str
    user_id: UUID
    created_at: datetime


_COLUMNS = (
    PhoneMappingRow.id,
    PhoneMappingRow.tenant_id,
    PhoneMappingRow.instance_id,
    PhoneMappingRow.phone_number,
    PhoneMappingRow.user_id,
    PhoneMappingRow.created_at,
)


async def add(tx: AsyncConnection, mapping: PhoneMapping) -> bool:
    """Store a mapping; false if the instance has one for that number."""
    added = await tx.execute(
        upsert(PhoneMappingRow)
        .values(
            id=mapping.id,
            tenant_id=mapping.tenant_id,
            instance_id=mapping.instance_id,
            phone_number=mapping.phone_number,
            user_id=mapping.user_id,
            created_at=mapping.created_at,
        )
        .on_conflict_do_nothing()
        .returning(PhoneMappingRow.id)
    )
    return added.first() is not None


async def count(tx: AsyncConnection, instance_id: UUID) -> int:
    """How many an instance has."""
    found = await tx.execute(
        select(func.count())
        .select_from(PhoneMappingRow)
        .where(PhoneMappingRow.instance_id == instance_id)
    )
    return found.scalar_one()


async def page(
    tx: AsyncConnection, instance_id: UUID, *, after: UUID | None, limit: int
) -> list[PhoneMapping]:
    """Mappings of an instance, newest first."""
    query = (
        select(*_COLUMNS)
        .where(PhoneMappingRow.instance_id == instance_id)
        .order_by(PhoneMappingRow.id.desc())
        .limit(limit)
    )
    if after is not None:
        query = query.where(PhoneMappingRow.id < after)
    return [PhoneMapping(*row) for row in await tx.execute(query)]


async def remove(tx: AsyncConnection, instance_id: UUID, mapping_id: UUID) -> PhoneMapping | None:
    """Delete a mapping; what it was, if it was there."""
    removed = await tx.execute(
        delete(PhoneMappingRow)
        .where(PhoneMappingRow.instance_id == instance_id, PhoneMappingRow.id == mapping_id)
        .returning(*_COLUMNS)
    )
    row = removed.one_or_none()
    return None if row is None else PhoneMapping(*row)


async def is_member(tx: AsyncConnection, tenant_id: UUID, user_id: UUID) -> bool:
    """Whether this is an active user of the tenant."""
    found = await tx.execute(
        select(UserRow.id).where(
            UserRow.id == user_id, UserRow.tenant_id == tenant_id, UserRow.active
        )
    )
    return found.first() is not None
