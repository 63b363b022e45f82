"""Instances: what their owners want, and what the session service says is so."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Text,
    bindparam,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from services.gateway.domain.engines import metered
from services.gateway.domain.principal import Scope
from services.gateway.store.acceptance import Origin
from shared.broker.topology import SHARDS
from shared.db.database import Database
from shared.db.tables.gateway import InstanceRow
from shared.db.tables.sessions import SessionStateRow

# What an instance is before any session has ever been made for it.
CREATED = "created"
# While its session is one of these, WhatsApp may still hear from it.
OPEN = frozenset({"connecting", "qr", "pairing", "ready"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One WhatsApp connection of a tenant."""

    id: UUID
    tenant_id: UUID
    name: str
    engine: str
    phone_number: str | None
    settings: dict[str, object]
    guard: dict[str, object]
    shard: int
    connected: bool
    created_at: datetime
    updated_at: datetime
    status: str = CREATED
    session_phone: str | None = None
    device_info: dict[str, object] | None = None
    since: datetime | None = None
    last_error: str | None = None
    qr_code: str | None = None
    qr_expires_at: datetime | None = None

    @property
    def number(self) -> str | None:
        """The number that is linked, or else the one that is meant to be."""
        return self.session_phone or self.phone_number


@dataclass(frozen=True, slots=True)
class Sender:
    """What accepting a message must know about an instance. ``text`` is its id.

    ``plan`` and ``timezone`` are its tenant's, by name; ``metered`` is whether it uses up the plan.
    """

    id: UUID
    text: str
    origin: Origin
    connected: bool
    status: str
    engine: str
    plan: str
    timezone: str
    metered: bool

    @property
    def tenant_id(self) -> UUID:
        """Whose it is."""
        return self.origin.tenant_id

    @property
    def shard(self) -> int:
        """To whose owner its commands go."""
        return self.origin.shard


_COLUMNS = (
    InstanceRow.id,
    InstanceRow.tenant_id,
    InstanceRow.name,
    InstanceRow.engine,
    InstanceRow.phone_number,
    InstanceRow.settings,
    InstanceRow.guard,
    InstanceRow.shard,
    InstanceRow.connected,
    InstanceRow.created_at,
    InstanceRow.updated_at,
    func.coalesce(SessionStateRow.status, CREATED).label("status"),
    SessionStateRow.phone_number.label("session_phone"),
    SessionStateRow.device_info,
    SessionStateRow.since,
    SessionStateRow.last_error,
    SessionStateRow.qr_code,
    SessionStateRow.qr_expires_at,
)
_NAMES = tuple(Instance.__dataclass_fields__)


def visible(scope: Scope) -> list[ColumnElement[bool]]:
    """The conditions under which an instance exists for whoever has this scope."""
    conditions = [InstanceRow.tenant_id == scope.tenant_id, InstanceRow.deleted_at.is_(None)]
    if scope.instances is not None:
        conditions.append(InstanceRow.id.in_(scope.instances))
    return conditions


async def existing(tx: AsyncConnection, scope: Scope, ids: Collection[UUID]) -> set[UUID]:
    """Those of ``ids`` that exist for whoever has this scope."""
    found = await tx.execute(select(InstanceRow.id).where(*visible(scope), InstanceRow.id.in_(ids)))
    return {id_ for (id_,) in found}


async def add(tx: AsyncConnection, instance: Instance) -> None:
    """Store a new instance."""
    await tx.execute(
        insert(InstanceRow).values(
            id=instance.id,
            tenant_id=instance.tenant_id,
            name=instance.name,
            engine=instance.engine,
            phone_number=instance.phone_number,
            settings=instance.settings,
            guard=instance.guard,
            shard=instance.shard,
            connected=instance.connected,
            created_at=instance.created_at,
            updated_at=instance.updated_at,
        )
    )


async def least_loaded_shard(tx: AsyncConnection) -> int:
    """The shard with the fewest instances."""
    found = await tx.execute(
        text(
            """
            SELECT s.id FROM generate_series(0, :last) AS s (id)
            LEFT JOIN gateway.instances i ON i.shard = s.id AND i.deleted_at IS NULL
            GROUP BY s.id ORDER BY count(i.id), s.id LIMIT 1
            """
        ),
        {"last": SHARDS - 1},
    )
    shard: int = found.scalar_one()
    return shard


async def count(tx: AsyncConnection, tenant_id: UUID) -> int:
    """How many instances a tenant has."""
    found = await tx.execute(
        select(func.count()).select_from(InstanceRow).where(*visible(Scope(tenant_id)))
    )
    return found.scalar_one()


async def find(
    tx: AsyncConnection, scope: Scope, instance_id: UUID, *, lock: bool = False
) -> Instance | None:
    """The instance, if it exists for this scope; with ``lock`` nobody else changes it meanwhile."""
    query = (
        select(*_COLUMNS)
        .outerjoin(SessionStateRow, SessionStateRow.instance_id == InstanceRow.id)
        .where(InstanceRow.id == instance_id, *visible(scope))
    )
    if lock:
        query = query.with_for_update(of=InstanceRow)
    row = (await tx.execute(query)).first()
    return None if row is None else Instance(**dict(zip(_NAMES, row, strict=True)))


async def page(
    tx: AsyncConnection, scope: Scope, *, after: UUID | None, limit: int
) -> list[Instance]:
    """Instances, newest first, that come after the one named."""
    query = (
        select(*_COLUMNS)
        .outerjoin(SessionStateRow, SessionStateRow.instance_id == InstanceRow.id)
        .where(*visible(scope))
        .order_by(InstanceRow.id.desc())
        .limit(limit)
    )
    if after is not None:
        query = query.where(InstanceRow.id < after)
    return [Instance(**dict(zip(_NAMES, row, strict=True))) for row in await tx.execute(query)]


async def change(
    tx: AsyncConnection, instance_id: UUID, changes: Mapping[str, object], *, now: datetime | None
) -> None:
    """Store what has changed; ``now`` for whatever the session should take as a new wish.

    The session service opens a session that has ended again if its instance was updated since, so
    a mere change of name must not count as an update.
    """
    values = dict(changes) if now is None else {**changes, "updated_at": now}
    if values:
        await tx.execute(update(InstanceRow).where(InstanceRow.id == instance_id).values(**values))


async def forget_secrets(
    tx: AsyncConnection, names: Collection[str], *, deleted_before: datetime, at_most: int
) -> int:
    """Take these settings, and the proxy, from instances deleted by then; returns from how many.

    Not while a session is open: its device is unlinked by that proxy and by no other way.
    """
    gone = await tx.execute(
        text(
            """
            UPDATE gateway.instances SET settings = settings - :names,
                guard = guard - CAST(ARRAY['proxy', 'proxyShown'] AS text[])
            WHERE id IN (
                SELECT i.id FROM gateway.instances i
                LEFT JOIN sessions.session_states s ON s.instance_id = i.id
                WHERE i.deleted_at < :deleted_before
                    AND (i.settings ?| :names OR i.guard ? 'proxy')
                    AND coalesce(s.status, :created) <> ALL (:open)
                LIMIT :at_most FOR UPDATE OF i SKIP LOCKED
            )
            """
        ).bindparams(bindparam("names", type_=ARRAY(Text)), bindparam("open", type_=ARRAY(Text))),
        {
            "names": sorted(names),
            "deleted_before": deleted_before,
            "created": CREATED,
            "open": sorted(OPEN),
            "at_most": at_most,
        },
    )
    return gone.rowcount


async def senders(database: Database, ids: Sequence[UUID]) -> dict[UUID, Sender]:
    """What accepting a message must know of these, in one query on a hot connection."""
    async with database.hot() as connection:
        rows = await connection.fetch(
            """
            SELECT i.id, i.tenant_id, i.shard, i.connected, coalesce(s.status, 'created'),
                   coalesce(s.phone_number, i.phone_number, ''), i.engine, o.plan, o.timezone
            FROM gateway.instances i
            JOIN gateway.organizations o ON o.id = i.tenant_id
            LEFT JOIN sessions.session_states s ON s.instance_id = i.id
            WHERE i.id = ANY ($1::uuid[]) AND i.deleted_at IS NULL
            """,
            ids,
        )
    return {
        row[0]: Sender(
            id=row[0],
            text=str(row[0]),
            origin=Origin(row[0], row[1], row[2], row[5]),
            connected=row[3],
            status=row[4],
            engine=row[6],
            plan=row[7],
            timezone=row[8],
            metered=metered(row[6]),
        )
        for row in rows
    }
