"""Endpoints and instances, which are the gateway's: read here, never written."""

from collections.abc import Collection
from uuid import UUID

from asyncpg import Record

from services.webhooks.domain.endpoint import Endpoint
from shared.db.database import HotConnection

# Switching an endpoint on again is a change of its row, which only the gateway may write; so what
# we found out about it before that change no longer counts.
DISABLED = "(h.disabled_at IS NOT NULL AND h.disabled_at >= w.updated_at)"

# Sealed, but for those from before there was a key ring.
SIGNED_BY = "coalesce(w.secret_sealed, convert_to(w.secret, 'UTF8'))"


async def of_tenants(connection: HotConnection, tenants: Collection[UUID]) -> list[Endpoint]:
    """The endpoints of some tenants that are to be sent something."""
    rows = await connection.fetch(
        f"""
        SELECT w.id, w.tenant_id, w.instance_id, w.url, {SIGNED_BY}, w.events,
               coalesce(h.opened, 0) > 0 AND h.disabled_at IS NULL
        FROM gateway.webhooks w
        LEFT JOIN webhooks.endpoint_health h ON h.endpoint_id = w.id
        WHERE w.tenant_id = ANY($1::uuid[]) AND w.active AND NOT coalesce({DISABLED}, false)
        """,  # noqa: S608 - the condition is a constant of ours
        list(tenants),
    )
    return [_endpoint(row) for row in rows]


async def find(connection: HotConnection, endpoint_id: UUID) -> Endpoint | None:
    """One endpoint, whether it is switched on or not."""
    row = await connection.fetchrow(
        f"""
        SELECT w.id, w.tenant_id, w.instance_id, w.url, {SIGNED_BY}, w.events, false
        FROM gateway.webhooks w WHERE w.id = $1
        """,  # noqa: S608 - the column is a constant of ours
        endpoint_id,
    )
    return None if row is None else _endpoint(row)


async def instance_names(connection: HotConnection, instances: Collection[UUID]) -> dict[UUID, str]:
    """What the tenants call some of their instances."""
    rows = await connection.fetch(
        "SELECT id, name FROM gateway.instances WHERE id = ANY($1::uuid[])", list(instances)
    )
    return {id_: name for id_, name in rows}  # noqa: C416 - a record is not a pair to mypy


def _endpoint(row: Record) -> Endpoint:
    return Endpoint(
        id=row[0],
        tenant_id=row[1],
        instance_id=row[2],
        url=row[3],
        secret=row[4],
        patterns=tuple(row[5]),
        open=row[6],
    )
