"""Instance keys: by their owner, and by whoever shows one."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import and_, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.clock import Clock
from shared.db.database import Database
from shared.db.tables.gateway import InstanceKeyRow
from shared.errors import Transient
from shared.ids import new_id
from shared.log import get_logger

log = get_logger()


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
class Counted:
    """How many requests a key has made, and how many of them went well."""

    requests: int
    successes: int


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
    suspended: bool


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


async def counted(tx: AsyncConnection, key_id: UUID) -> Counted:
    """How a key was used, as far as that is written."""
    found = await tx.execute(
        select(InstanceKeyRow.requests, InstanceKeyRow.successes).where(InstanceKeyRow.id == key_id)
    )
    return Counted(*found.one())


async def change(tx: AsyncConnection, key_id: UUID, changes: Mapping[str, object]) -> bytes:
    """Store what has changed; returns the key's digest."""
    changed = await tx.execute(
        update(InstanceKeyRow)
        .where(InstanceKeyRow.id == key_id)
        .values(**changes)
        .returning(InstanceKeyRow.key_hash)
    )
    return changed.scalar_one()


async def replace(
    tx: AsyncConnection,
    key: InstanceKey,
    *,
    digest: bytes,
    instance_id: UUID,
    tenant_id: UUID,
    now: datetime,
) -> bytes:
    """Give a key, which keeps its id, another digest, hint and expiry; returns the old digest.

    The old one stays as a revoked key, so that whoever still shows it is told so, and is seen.
    """
    found = await tx.execute(
        select(InstanceKeyRow.key_hash, InstanceKeyRow.hint).where(InstanceKeyRow.id == key.id)
    )
    old_digest, old_hint = found.one()
    await change(tx, key.id, {"key_hash": digest, "hint": key.hint, "expires_at": key.expires_at})
    await tx.execute(
        insert(InstanceKeyRow).values(
            id=new_id(),
            replaced_by=key.id,
            tenant_id=tenant_id,
            instance_id=instance_id,
            name=key.name,
            key_hash=old_digest,
            hint=old_hint,
            permissions=key.permissions,
            rate_limit=key.rate_limit,
            created_at=key.created_at,
            revoked_at=now,
        )
    )
    return old_digest


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
            SELECT k.key_hash, coalesce(k.replaced_by, k.id), k.tenant_id, k.instance_id,
                   k.permissions, k.rate_limit, k.expires_at,
                   k.revoked_at IS NOT NULL OR i.deleted_at IS NOT NULL,
                   o.suspended_at IS NOT NULL
            FROM gateway.instance_keys k
            JOIN gateway.instances i ON i.id = k.instance_id
            JOIN gateway.organizations o ON o.id = k.tenant_id
            WHERE k.key_hash = ANY ($1::bytea[])
            """,
            digests,
        )
    return {row[0]: ShownKey(row[1], row[2], row[3], row[4], *row[5:9]) for row in rows}


class KeyUses:
    """How keys were used: counted in memory, and written once for many uses.

    A crash loses what was counted in the last seconds; a process that ends writes it first.
    """

    def __init__(self, database: Database, *, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._counted: dict[UUID, list[int]] = {}

    def note(self, key_id: UUID) -> None:
        """A key was shown."""
        if key_id not in self._counted:
            self._counted[key_id] = [0, 0]

    def count(self, key_id: UUID, *, succeeded: bool) -> None:
        """A request by a key was answered."""
        counted = self._counted.get(key_id)
        if counted is None:
            counted = self._counted[key_id] = [0, 0]
        counted[0] += 1
        if succeeded:
            counted[1] += 1

    def unwritten(self, key_id: UUID) -> Counted:
        """What was counted here since the last time that it was written."""
        return Counted(*self._counted.get(key_id, (0, 0)))

    @asynccontextmanager
    async def lasting(self) -> AsyncIterator[None]:
        """On leaving, what was counted is written, if it can be."""
        try:
            yield
        finally:
            try:
                await self.write(now=self._clock.now())
            except Transient as error:
                log.warning("key_use_lost", reason=error.message, keys=len(self._counted))

    async def write(self, *, now: datetime) -> int:
        """Store what was counted since the last time; returns for how many keys.

        On failure all of it stays counted, and nothing of it is stored. Replicas lock keys in one
        order, so that none waits for another that waits for it.
        """
        counted, self._counted = self._counted, {}
        if not counted:
            return 0
        uses = sorted((key_id, *numbers) for key_id, numbers in counted.items())
        try:
            # Not worth waiting for the disk: should PostgreSQL crash, some seconds are missing.
            async with self._database.hot_tx(durable=False) as connection:
                for table in ("user_keys", "instance_keys"):
                    await connection.execute(
                        f"""
                        SELECT FROM gateway.{table} WHERE id = ANY ($1::uuid[])
                        ORDER BY id FOR NO KEY UPDATE
                        """,
                        list(counted),
                    )
                await connection.execute(
                    "UPDATE gateway.user_keys SET last_used_at = $2 WHERE id = ANY ($1::uuid[])",
                    list(counted),
                    now,
                )
                await connection.execute(
                    """
                    UPDATE gateway.instance_keys k SET last_used_at = $4,
                        requests = k.requests + u.requests, successes = k.successes + u.successes
                    FROM unnest($1::uuid[], $2::bigint[], $3::bigint[])
                        AS u (id, requests, successes)
                    WHERE k.id = u.id
                    """,
                    *(list(column) for column in zip(*uses, strict=True)),
                    now,
                )
        except BaseException:
            for key_id, (requests, successes) in counted.items():
                again = self._counted.setdefault(key_id, [0, 0])
                again[0] += requests
                again[1] += successes
            raise
        return len(counted)
