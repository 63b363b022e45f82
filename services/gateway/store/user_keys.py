"""User keys: by whoever made them, and by whoever shows one."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.gateway.store.accounts import Person
from shared.db.database import Database
from shared.db.tables.gateway import UserKeyRow


@dataclass(frozen=True, slots=True)
class UserKey:
    """A key as its owner sees it: never the key itself."""

    id: UUID
    user_id: UUID
    name: str
    hint: str
    rate_limit: int
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None


@dataclass(frozen=True, slots=True)
class ShownUserKey:
    """A key that somebody showed, as found by its digest. ``revoked`` too if its user is gone."""

    id: UUID
    rate_limit: int
    expires_at: datetime
    revoked: bool
    person: Person


_COLUMNS = (
    UserKeyRow.id,
    UserKeyRow.user_id,
    UserKeyRow.name,
    UserKeyRow.hint,
    UserKeyRow.rate_limit,
    UserKeyRow.created_at,
    UserKeyRow.expires_at,
    UserKeyRow.last_used_at,
)


async def add(tx: AsyncConnection, key: UserKey, *, tenant_id: UUID, digest: bytes) -> None:
    """Store a new key; its user must be locked."""
    await tx.execute(
        insert(UserKeyRow).values(
            id=key.id,
            tenant_id=tenant_id,
            user_id=key.user_id,
            name=key.name,
            key_hash=digest,
            hint=key.hint,
            rate_limit=key.rate_limit,
            created_at=key.created_at,
            expires_at=key.expires_at,
        )
    )


async def count_usable(tx: AsyncConnection, user_id: UUID, *, now: datetime) -> int:
    """How many keys of somebody work now."""
    found = await tx.execute(
        select(func.count())
        .select_from(UserKeyRow)
        .where(
            UserKeyRow.user_id == user_id,
            UserKeyRow.revoked_at.is_(None),
            UserKeyRow.expires_at > now,
        )
    )
    return found.scalar_one()


async def page(
    tx: AsyncConnection, tenant_id: UUID, *, user_id: UUID | None, after: UUID | None, limit: int
) -> list[UserKey]:
    """Keys that were not revoked, newest first: somebody's, or those of the whole organization."""
    query = (
        select(*_COLUMNS)
        .where(*_live(tenant_id, user_id))
        .order_by(UserKeyRow.id.desc())
        .limit(limit)
    )
    if after is not None:
        query = query.where(UserKeyRow.id < after)
    return [UserKey(*row) for row in await tx.execute(query)]


async def revoke(
    tx: AsyncConnection, tenant_id: UUID, key_id: UUID, *, user_id: UUID | None, now: datetime
) -> bytes | None:
    """Revoke a key, if it is somebody's of this organization; returns its digest if it worked."""
    row = (
        await tx.execute(
            update(UserKeyRow)
            .where(UserKeyRow.id == key_id, *_live(tenant_id, user_id))
            .values(revoked_at=now)
            .returning(UserKeyRow.key_hash)
        )
    ).first()
    return None if row is None else row[0]


async def shown(database: Database, digests: Sequence[bytes]) -> dict[bytes, ShownUserKey]:
    """The keys with these digests, in one query on a hot connection."""
    async with database.hot() as connection:
        rows = await connection.fetch(
            """
            SELECT k.key_hash, k.id, k.rate_limit, k.expires_at,
                   k.revoked_at IS NOT NULL OR NOT u.active,
                   u.id, u.tenant_id, u.role, o.suspended_at IS NOT NULL, o.pii_masking,
                   ARRAY(SELECT a.instance_id FROM gateway.assignments a
                         JOIN gateway.instances i ON i.id = a.instance_id
                         WHERE a.user_id = u.id AND i.deleted_at IS NULL)
            FROM gateway.user_keys k
            JOIN gateway.users u ON u.id = k.user_id
            JOIN gateway.organizations o ON o.id = u.tenant_id
            WHERE k.key_hash = ANY ($1::bytea[])
            """,
            digests,
        )
    return {
        row[0]: ShownUserKey(
            row[1],
            row[2],
            row[3],
            row[4],
            Person(row[5], row[6], row[7], row[8], row[9], frozenset(row[10])),
        )
        for row in rows
    }


def _live(tenant_id: UUID, user_id: UUID | None) -> list[ColumnElement[bool]]:
    conditions = [UserKeyRow.tenant_id == tenant_id, UserKeyRow.revoked_at.is_(None)]
    if user_id is not None:
        conditions.append(UserKeyRow.user_id == user_id)
    return conditions
