"""Session states. They are written by a shard's owner alone, inside a fenced transaction."""

from dataclasses import replace
from uuid import UUID

import orjson

from services.sessions.domain.instance import Instance
from services.sessions.domain.lease import Lease
from services.sessions.domain.lifecycle import State, Status
from shared.db.database import HotConnection


async def load(connection: HotConnection, instance_id: UUID) -> State | None:
    """The present state, locked until the transaction ends, so that changes take turns."""
    row = await connection.fetchrow(
        """
        SELECT status, since, version, phone_number, device_info, last_error, qr_code, qr_expires_at
        FROM sessions.session_states WHERE instance_id = $1 FOR UPDATE
        """,
        instance_id,
    )
    if row is None:
        return None
    info = row["device_info"]
    return State(
        status=Status(row["status"]),
        since=row["since"],
        version=row["version"],
        phone_number=row["phone_number"],
        device_info=None if info is None else orjson.loads(info),
        last_error=row["last_error"],
        qr_code=row["qr_code"],
        qr_expires_at=row["qr_expires_at"],
    )


async def save(connection: HotConnection, instance: Instance, lease: Lease, state: State) -> State:
    """Write the next state; return it with its version, which grows by one with every write.

    The caller holds the lease in this transaction.
    """
    info = None if state.device_info is None else orjson.dumps(state.device_info).decode()
    version = await connection.fetchval(
        """
        INSERT INTO sessions.session_states AS st (
            instance_id, tenant_id, shard, epoch, version, status, phone_number, device_info, since,
            last_error, qr_code, qr_expires_at
        ) VALUES ($1, $2, $3, $4, 1, $5, $6, $7::jsonb, $8, $9, $10, $11)
        ON CONFLICT (instance_id) DO UPDATE SET
            shard = excluded.shard, epoch = excluded.epoch, version = st.version + 1,
            status = excluded.status, phone_number = excluded.phone_number,
            device_info = excluded.device_info, since = excluded.since,
            last_error = excluded.last_error, qr_code = excluded.qr_code,
            qr_expires_at = excluded.qr_expires_at
        RETURNING version
        """,
        instance.id,
        instance.tenant_id,
        lease.shard,
        lease.epoch,
        state.status.value,
        state.phone_number,
        info,
        state.since,
        state.last_error,
        state.qr_code,
        state.qr_expires_at,
    )
    return replace(state, version=version)
