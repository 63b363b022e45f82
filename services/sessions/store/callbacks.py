"""Callbacks: what WhatsApp has POSTed to the gateway, until a session has taken it."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from services.sessions.domain.lease import Lease
from services.sessions.store.fence import HELD, claimed
from shared.db.database import HotConnection
from shared.security.sealing import KeyRing, Place

TABLE = "sessions.callbacks"


@dataclass(frozen=True, slots=True)
class Waiting:
    """One that waits to be taken."""

    sequence: int
    id: UUID
    tenant_id: UUID
    instance_id: UUID
    sealed: bytes
    received_at: datetime

    def opened(self, ring: KeyRing) -> bytes:
        """What it says. Raises ``Unsealable``."""
        return ring.open(self.sealed, Place(self.tenant_id, TABLE, str(self.id)))


async def waiting(
    connection: HotConnection, instances: Collection[UUID], *, limit: int
) -> Sequence[Waiting]:
    """What waits for any of these instances, in the order in which it came."""
    rows = await connection.fetch(
        """
        SELECT sequence, id, tenant_id, instance_id, sealed, received_at FROM sessions.callbacks
        WHERE instance_id = ANY($1::uuid[]) AND error IS NULL ORDER BY sequence LIMIT $2
        """,
        list(instances),
        limit,
    )
    return [Waiting(*row) for row in rows]


async def taken(connection: HotConnection, sequences: Collection[int]) -> None:
    """Forget what was committed; whoever took it, so no lease is asked for."""
    await connection.execute(
        "DELETE FROM sessions.callbacks WHERE sequence = ANY($1::bigint[])", list(sequences)
    )


async def set_aside(connection: HotConnection, sequences: Collection[int], *, error: str) -> None:
    """Keep what cannot be read for whoever looks into it, out of the way of the others."""
    await connection.execute(
        "UPDATE sessions.callbacks SET error = $2 WHERE sequence = ANY($1::bigint[])",
        list(sequences),
        error,
    )


async def forget(connection: HotConnection, lease: Lease, instance_id: UUID) -> bool:
    """Forget all that waits for an instance; whether the lease is valid."""
    held = await connection.fetchval(
        f"""
        WITH {HELD}, dropped AS (
            DELETE FROM sessions.callbacks
            WHERE instance_id = $4 AND EXISTS (SELECT FROM held)
        )
        SELECT EXISTS (SELECT FROM held)
        """,  # noqa: S608 - constants of ours
        *claimed([lease]),
        instance_id,
    )
    return bool(held)


async def oldest(connection: HotConnection, instances: Collection[UUID]) -> datetime | None:
    """Since when the one has waited that has waited longest."""
    at: datetime | None = await connection.fetchval(
        """
        SELECT min(received_at) FROM sessions.callbacks
        WHERE instance_id = ANY($1::uuid[]) AND error IS NULL
        """,
        list(instances),
    )
    return at
