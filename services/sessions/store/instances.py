"""What the tenants want: the gateway's instances beside this service's states."""

from collections.abc import Collection, Sequence
from uuid import UUID

import orjson
from asyncpg import Record

from services.sessions.domain.instance import Instance
from services.sessions.domain.lifecycle import State, Status
from shared.db.database import HotConnection

_COLUMNS = """
    i.id, i.tenant_id, i.shard, i.engine, i.phone_number, i.settings,
    i.connected AND i.deleted_at IS NULL AS wanted, i.deleted_at IS NOT NULL AS deleted,
    i.updated_at, i.guard ->> 'proxy' AS proxy, i.guard ->> 'deviceName' AS device_name,
    coalesce((i.guard ->> 'typing')::boolean, false) AS typing,
    st.status, st.since, st.version, st.phone_number AS own_number, st.device_info, st.last_error,
    st.qr_code, st.qr_expires_at
"""


async def one(connection: HotConnection, instance_id: UUID) -> tuple[Instance, State | None] | None:
    """One instance and its state."""
    row = await connection.fetchrow(
        f"""
        SELECT {_COLUMNS} FROM gateway.instances i
        LEFT JOIN sessions.session_states st ON st.instance_id = i.id WHERE i.id = $1
        """,  # noqa: S608 - constants of ours
        instance_id,
    )
    return None if row is None else _pair(row)


async def of_shards(
    connection: HotConnection, shards: Collection[int]
) -> Sequence[tuple[Instance, State | None]]:
    """All instances of some shards, without those that were deleted and closed long ago."""
    rows = await connection.fetch(
        f"""
        SELECT {_COLUMNS} FROM gateway.instances i
        LEFT JOIN sessions.session_states st ON st.instance_id = i.id
        WHERE i.shard = ANY($1::smallint[]) AND (
            i.deleted_at IS NULL OR st.status IN ('connecting', 'qr', 'pairing', 'ready')
        ) ORDER BY i.id
        """,  # noqa: S608 - constants of ours
        sorted(shards),
    )
    return [_pair(row) for row in rows]


def _pair(row: Record) -> tuple[Instance, State | None]:
    instance = Instance(
        id=row["id"],
        tenant_id=row["tenant_id"],
        shard=row["shard"],
        engine=row["engine"],
        phone_number=row["phone_number"],
        settings=orjson.loads(row["settings"]),
        wanted=row["wanted"],
        deleted=row["deleted"],
        updated_at=row["updated_at"],
        proxy=row["proxy"],
        device_name=row["device_name"],
        typing=row["typing"],
    )
    if row["status"] is None:
        return instance, None
    info = row["device_info"]
    state = State(
        status=Status(row["status"]),
        since=row["since"],
        version=row["version"],
        phone_number=row["own_number"],
        device_info=None if info is None else orjson.loads(info),
        last_error=row["last_error"],
        qr_code=row["qr_code"],
        qr_expires_at=row["qr_expires_at"],
    )
    return instance, state
