"""Files that were sent to instances: which of them wait to be fetched, and what became of them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import orjson
from asyncpg import Record
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.sessions.domain.lease import Lease
from services.sessions.store.fence import HELD, claimed
from shared.db.database import HotConnection
from shared.log import get_logger
from shared.security.sealing import KeyRing, Place, Unsealable

log = get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Announced:
    """A file that a message has told of. ``mime_type`` and ``size`` are its sender's words."""

    id: UUID
    tenant_id: UUID
    instance_id: UUID
    shard: int
    engine_message_id: str
    handle: Mapping[str, str]
    mime_type: str
    filename: str | None
    size: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A file that is to be fetched now. ``attempts`` were made before."""

    id: UUID
    tenant_id: UUID
    instance_id: UUID
    shard: int
    handle: Mapping[str, str]
    mime_type: str
    size: int | None
    attempts: int


async def announce(
    connection: HotConnection, files: Sequence[Announced], *, ring: KeyRing, now: datetime
) -> None:
    """Have files fetched, in the transaction of the messages that tell of them."""
    await connection.execute(
        """
        INSERT INTO sessions.inbound_media
            (id, tenant_id, instance_id, shard, engine_message_id, sealed_handle, mime_type,
             filename, size, status, due_at, created_at)
        SELECT u.id, u.tenant_id, u.instance_id, u.shard, u.engine_message_id, u.handle,
            u.mime_type, u.filename, u.size, 'waiting', $10, $10
        FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::smallint[], $5::text[], $6::bytea[],
                    $7::text[], $8::text[], $9::bigint[])
            AS u (id, tenant_id, instance_id, shard, engine_message_id, handle, mime_type,
                  filename, size)
        ON CONFLICT DO NOTHING
        """,
        [file.id for file in files],
        [file.tenant_id for file in files],
        [file.instance_id for file in files],
        [file.shard for file in files],
        [file.engine_message_id for file in files],
        [ring.seal(orjson.dumps(file.handle), _place(file.tenant_id, file.id)) for file in files],
        [file.mime_type for file in files],
        [file.filename for file in files],
        [file.size for file in files],
        now,
    )


async def due(
    connection: HotConnection,
    shards: Collection[int],
    *,
    ring: KeyRing,
    now: datetime,
    without: Collection[UUID],
    without_tenants: Collection[UUID],
    limit: int,
) -> tuple[list[Waiting], list[tuple[UUID, int]]]:
    """What is due for connected instances of some shards, the longest overdue first.

    Apart from it, by id and shard, what no key opens: to be ``put_off``.
    """
    rows = await connection.fetch(
        """
        SELECT m.id, m.tenant_id, m.instance_id, m.shard, m.handle, m.sealed_handle,
               m.mime_type, m.size, m.attempts
        FROM sessions.inbound_media m
        JOIN sessions.session_states st
            ON st.instance_id = m.instance_id AND st.status = 'ready'
        WHERE m.status = 'waiting' AND m.shard = ANY($1::smallint[]) AND m.due_at <= $2
            AND m.id <> ALL($3::uuid[]) AND m.tenant_id <> ALL($4::uuid[])
        ORDER BY m.due_at LIMIT $5
        """,
        sorted(shards),
        now,
        list(without),
        list(without_tenants),
        limit,
    )
    readable: list[Waiting] = []
    unreadable: list[tuple[UUID, int]] = []
    for row in rows:
        try:
            readable.append(_waiting(ring, row))
        except Unsealable:
            log.exception("media_handle_not_readable", media_id=str(row["id"]))
            unreadable.append((row["id"], row["shard"]))
    return readable, unreadable


def _waiting(ring: KeyRing, row: Record) -> Waiting:
    """The file that a row is about. Raises ``Unsealable``."""
    return Waiting(
        id=row["id"],
        tenant_id=row["tenant_id"],
        instance_id=row["instance_id"],
        shard=row["shard"],
        handle=_opened(ring, row),
        mime_type=row["mime_type"],
        size=row["size"],
        attempts=row["attempts"],
    )


def _opened(ring: KeyRing, row: Record) -> dict[str, str]:
    sealed: bytes | None = row["sealed_handle"]
    plain: bytes | str = row["handle"] or "{}"  # of a row from before there was a key ring
    if sealed is not None:
        plain = ring.open(sealed, _place(row["tenant_id"], row["id"]))
    found: dict[str, str] = orjson.loads(plain)
    return found


def _place(tenant_id: UUID, media_id: UUID) -> Place:
    return Place(tenant_id, "sessions.inbound_media", str(media_id))


async def put_off(
    connection: HotConnection, leases: Collection[Lease], ids: Sequence[UUID], *, until: datetime
) -> None:
    """Look at files again then. No attempt was made, so none is counted."""
    await connection.execute(
        f"""
        WITH {HELD}
        UPDATE sessions.inbound_media SET due_at = $5
        WHERE id = ANY ($4::uuid[]) AND status = 'waiting' AND shard IN (SELECT held.id FROM held)
        """,  # noqa: S608 - constants of ours
        *claimed(leases),
        ids,
        until,
    )


async def begin(
    connection: HotConnection, tries: Sequence[tuple[Lease, Waiting, datetime]]
) -> set[UUID]:
    """Count attempts before they are made, each with when the next is due; return what is ours.

    So an attempt that takes its process with it is one less of those that are left.
    """
    rows = await connection.fetch(
        f"""
        WITH {HELD}
        UPDATE sessions.inbound_media m SET attempts = m.attempts + 1, due_at = t.due_at
        FROM unnest($4::uuid[], $5::smallint[], $6::timestamptz[]) AS t (id, attempts, due_at)
        WHERE m.id = t.id AND m.attempts = t.attempts AND m.status = 'waiting'
            AND m.shard IN (SELECT held.id FROM held)
        RETURNING m.id
        """,  # noqa: S608 - constants of ours
        *claimed([lease for lease, _, _ in tries]),
        [waiting.id for _, waiting, _ in tries],
        [waiting.attempts for _, waiting, _ in tries],
        [due_at for _, _, due_at in tries],
    )
    return {row[0] for row in rows}


_STORED = text("""
    UPDATE sessions.inbound_media
    SET status = 'stored', mime_type = :mime_type, size = :size, sha256 = :sha256,
        stored_at = :now, error = NULL, handle = NULL, sealed_handle = NULL
    WHERE id = :id AND status = 'waiting'
""")


async def note_stored(
    tx: AsyncConnection, media_id: UUID, *, mime_type: str, size: int, sha256: str, now: datetime
) -> None:
    """The file is in the media store. It is, whoever says so, so no lease is asked for."""
    await tx.execute(
        _STORED,
        {"id": media_id, "mime_type": mime_type, "size": size, "sha256": sha256, "now": now},
    )


async def note_failed(
    connection: HotConnection, lease: Lease, media_id: UUID, *, code: str
) -> None:
    """The file will not be fetched any more."""
    await connection.execute(
        f"""
        WITH {HELD}
        UPDATE sessions.inbound_media
        SET status = 'failed', error = $5, handle = NULL, sealed_handle = NULL
        WHERE id = $4 AND status = 'waiting' AND shard IN (SELECT held.id FROM held)
        """,  # noqa: S608 - constants of ours
        *claimed([lease]),
        media_id,
        code,
    )


async def oldest(connection: HotConnection, shards: Collection[int]) -> datetime | None:
    """Since when the file has waited that has waited longest."""
    at: datetime | None = await connection.fetchval(
        """
        SELECT min(created_at) FROM sessions.inbound_media
        WHERE status = 'waiting' AND shard = ANY($1::smallint[])
        """,
        sorted(shards),
    )
    return at
