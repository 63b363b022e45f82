"""Instance keys: by their owner, and by whoever shows one."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import and_, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.db.database import Database
from shared.db.tables.gateway import InstanceKeyRow


@dataclass(frozen=True, slots=True)
class InstanceKey:
    """A key as its owner sees it: never the key itself."""

    id: UUID
    name: str
    hint: str
    permissions: dict[str, object]
    rate_limit: int
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None


@dataclass(frozen=True, slots=True)
class ShownKey:
    """A key that somebody showed, as found by its digest; ``permissions`` is JSON still."""

    id: UUID
    tenant_id: UUID
    instance_id: UUID
    permissions: str
    rate_limit: int
    expires_at: datetime | None
    revoked: bool


_COLUMNS = (
    InstanceKeyRow.id,
    InstanceKeyRow.name,
    InstanceKeyRow.hint,
    InstanceKeyRow.permissions,
    InstanceKeyRow.rate_limit,
    InstanceKeyRow.created_at,
    InstanceKeyRow.expires_at,
    InstanceKeyRow.last_used_at,
)


async def add(
    tx: AsyncConnection, key: InstanceKey, *, tenant_id: UUID, instance_id: UUID, digest: bytes
) -> None:
    """Store a new key."""
    await tx.execute(
        insert(InstanceKeyRow).values(
            id=key.id,
            tenant_id=tenant_id,
            instance_id=instance_id,
            name=key.name,
            key_hash=digest,
            hint=key.hint,
            permissions=key.permissions,
            rate_limit=key.rate_limit,
            created_at=key.created_at,
            expires_at=key.expires_at,
        )
    )


async def count_usable(tx: AsyncConnection, instance_id: UUID, *, now: datetime) -> int:
    """How many keys of an instance work now."""
    found = await tx.execute(
        select(func.count())
        .select_from(InstanceKeyRow)
        .where(
            InstanceKeyRow.instance_id == instance_id,
            InstanceKeyRow.revoked_at.is_(None),
            or_(InstanceKeyRow.expires_at.is_(None), InstanceKeyRow.expires_at > now),
        )
    )
    return found.scalar_one()


async def page(
    tx: AsyncConnection, instance_id: UUID, *, after: UUID | None, limit: int
) -> list[InstanceKey]:
    """Keys of an instance that were not revoked, newest first."""
    query = (
        select(*_COLUMNS)
        .where(InstanceKeyRow.instance_id == instance_id, InstanceKeyRow.revoked_at.is_(None))
        .order_by(InstanceKeyRow.id.desc())
        .limit(limit)
    )
    if after is not None:
        query = query.where(InstanceKeyRow.id < after)
    return [InstanceKey(*row) for row in await tx.execute(query)]


async def find(tx: AsyncConnection, instance_id: UUID, key_id: UUID) -> InstanceKey | None:
    """One key of an instance, unless it was revoked."""
    row = (
        await tx.execute(
            select(*_COLUMNS).where(
                InstanceKeyRow.id == key_id,
                InstanceKeyRow.instance_id == instance_id,
                InstanceKeyRow.revoked_at.is_(None),
            )
        )
    ).first()
    return None if row is None else InstanceKey(*row)


async def revoke(
    tx: AsyncConnection, instance_id: UUID, *, key_id: UUID | None = None, now: datetime
) -> list[bytes]:
    """Revoke one key of an instance, or all; returns the digests of those that worked until now."""
    which = and_(InstanceKeyRow.instance_id == instance_id, InstanceKeyRow.revoked_at.is_(None))
    if key_id is not None:
        which = and_(which, InstanceKeyRow.id == key_id)
    revoked = await tx.execute(
        update(InstanceKeyRow)
        .where(which)
        .values(revoked_at=now)
        .returning(InstanceKeyRow.key_hash)
    )
    return [digest for (digest,) in revoked]


async def shown(database: Database, digests: Sequence[bytes]) -> dict[bytes, ShownKey]:
    """The keys with these digests, by digest, in one query on a hot connection."""
    async with database.hot() as connection:
        rows = await connection.fetch(
            """
            SELECT k.key_hash, k.id, k.tenant_id, k.instance_id, k.permissions, k.rate_limit,
                   k.expires_at, k.revoked_at IS NOT NULL OR i.deleted_at IS NOT NULL
            FROM gateway.instance_keys k JOIN gateway.instances i ON i.id = k.instance_id
            WHERE k.key_hash = ANY ($1::bytea[])
            """,
            digests,
        )
    return {
        row[0]: ShownKey(row[1], row[2], row[3], row[4], row[5], row[6], row[7]) for row in rows
    }


class KeyUses:
    """Which keys were used: noted in memory, and written once for many uses."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._noted: set[UUID] = set()

    def note(self, key_id: UUID) -> None:
        """A key has just been used."""
        self._noted.add(key_id)

    async def write(self, *, now: datetime) -> int:
        """Store what was noted since the last time; returns for how many keys.

        On failure all of it stays noted.
        """
        noted, self._noted = self._noted, set()
        if not noted:
            return 0
        try:
            # Not worth waiting for the disk: the next use writes it again.
            async with self._database.hot(durable=False) as connection:
                await connection.execute(
                    "UPDATE gateway.instance_keys SET last_used_at = $2"
                    " WHERE id = ANY ($1::uuid[])",
                    sorted(noted),
                    now,
                )
        except BaseException:
            self._noted |= noted
            raise
        return len(noted)
