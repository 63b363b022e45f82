"""What operators see and do: all organizations, and what all of them are told."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from uuid import UUID

from sqlalchemy import func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.gateway.domain.periods import RECEIVED, SENT
from services.gateway.domain.team import PLATFORM
from services.gateway.store.counters import Counts
from shared.db.tables.gateway import (
    BroadcastRow,
    InstanceKeyRow,
    InstanceRow,
    OrganizationRow,
    UserRow,
)
from shared.db.tables.sessions import SessionStateRow
from shared.db.tables.stats import DailyCounterRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """An organization as operators see it, with how many people and instances it has."""

    id: UUID
    name: str
    timezone: str
    plan: str
    created_at: datetime
    suspended_at: datetime | None
    suspended_reason: str | None
    members: int
    instances: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantsInstance:
    """An instance as operators see it: how it is doing, and nothing of what is said by it."""

    id: UUID
    tenant_id: UUID
    organization: str
    name: str
    engine: str
    status: str
    connected: bool
    since: datetime | None
    last_error: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """How much there is on the platform."""

    organizations: int
    suspended: int
    users: int
    instances: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Broadcast:
    """What every organization is told. ``told_to`` is the last of those that have been."""

    id: UUID
    body: Mapping[str, object]
    created_by: UUID | None
    created_at: datetime
    request_id: str | None
    told_to: UUID | None = None


_TENANT_NAMES = tuple(Tenant.__dataclass_fields__)
_TENANT = (
    OrganizationRow.id,
    OrganizationRow.name,
    OrganizationRow.timezone,
    OrganizationRow.plan,
    OrganizationRow.created_at,
    OrganizationRow.suspended_at,
    OrganizationRow.suspended_reason,
    select(func.count())
    .select_from(UserRow)
    .where(UserRow.tenant_id == OrganizationRow.id, UserRow.active)
    .scalar_subquery(),
    select(func.count())
    .select_from(InstanceRow)
    .where(InstanceRow.tenant_id == OrganizationRow.id, InstanceRow.deleted_at.is_(None))
    .scalar_subquery(),
)
_status = func.coalesce(SessionStateRow.status, "created")
_INSTANCE_NAMES = tuple(TenantsInstance.__dataclass_fields__)


async def tenant(tx: AsyncConnection, tenant_id: UUID) -> Tenant | None:
    """An organization; the platform itself is none."""
    query = select(*_TENANT).where(OrganizationRow.id == tenant_id, OrganizationRow.id != PLATFORM)
    row = (await tx.execute(query)).first()
    return None if row is None else Tenant(**dict(zip(_TENANT_NAMES, row, strict=True)))


async def tenants(
    tx: AsyncConnection,
    *,
    plan: str | None,
    suspended: bool | None,
    after: UUID | None,
    limit: int,
) -> list[Tenant]:
    """Organizations, newest first."""
    query = (
        select(*_TENANT)
        .where(OrganizationRow.id != PLATFORM)
        .order_by(OrganizationRow.id.desc())
        .limit(limit)
    )
    if plan is not None:
        query = query.where(OrganizationRow.plan == plan)
    if suspended is not None:
        query = query.where(OrganizationRow.suspended_at.is_not(None) == suspended)
    if after is not None:
        query = query.where(OrganizationRow.id < after)
    return [Tenant(**dict(zip(_TENANT_NAMES, row, strict=True))) for row in await tx.execute(query)]


async def instances(
    tx: AsyncConnection,
    *,
    tenant_id: UUID | None,
    engine: str | None,
    status: str | None,
    after: UUID | None,
    limit: int,
) -> list[TenantsInstance]:
    """Instances of all organizations, or of one, newest first."""
    query = (
        select(
            InstanceRow.id,
            InstanceRow.tenant_id,
            OrganizationRow.name,
            InstanceRow.name,
            InstanceRow.engine,
            _status,
            InstanceRow.connected,
            SessionStateRow.since,
            SessionStateRow.last_error,
            InstanceRow.created_at,
        )
        .join(OrganizationRow, OrganizationRow.id == InstanceRow.tenant_id)
        .outerjoin(SessionStateRow, SessionStateRow.instance_id == InstanceRow.id)
        .where(InstanceRow.deleted_at.is_(None))
        .order_by(InstanceRow.id.desc())
        .limit(limit)
    )
    if tenant_id is not None:
        query = query.where(InstanceRow.tenant_id == tenant_id)
    if engine is not None:
        query = query.where(InstanceRow.engine == engine)
    if status is not None:
        query = query.where(_status == status)
    if after is not None:
        query = query.where(InstanceRow.id < after)
    return [
        TenantsInstance(**dict(zip(_INSTANCE_NAMES, row, strict=True)))
        for row in await tx.execute(query)
    ]


async def totals(tx: AsyncConnection) -> Totals:
    """How many organizations, people and instances there are."""
    organizations = await tx.execute(
        select(func.count(), func.count(OrganizationRow.suspended_at)).where(
            OrganizationRow.id != PLATFORM
        )
    )
    all_, suspended = organizations.one()
    users = await tx.execute(
        select(func.count())
        .select_from(UserRow)
        .where(UserRow.active, UserRow.tenant_id != PLATFORM)
    )
    by_status = await tx.execute(
        select(_status, func.count())
        .select_from(InstanceRow)
        .outerjoin(SessionStateRow, SessionStateRow.instance_id == InstanceRow.id)
        .where(InstanceRow.deleted_at.is_(None))
        .group_by(_status)
    )
    return Totals(
        organizations=all_,
        suspended=suspended,
        users=users.scalar_one(),
        instances={name: amount for name, amount in by_status if amount},
    )


async def traffic(tx: AsyncConnection, *, start: date, end: date) -> dict[date, Counts]:
    """Messages of all organizations by day; a day is what each organization's time zone says."""
    rows = await tx.execute(
        select(DailyCounterRow.day, DailyCounterRow.metric, func.sum(DailyCounterRow.count))
        .where(
            DailyCounterRow.metric.in_((SENT, RECEIVED)), DailyCounterRow.day.between(start, end)
        )
        .group_by(DailyCounterRow.day, DailyCounterRow.metric)
    )
    found: dict[date, dict[str, int]] = {}
    for day, metric, counted in rows:
        found.setdefault(day, {})[metric] = int(counted)
    return {
        day: Counts(sent=metrics.get(SENT, 0), received=metrics.get(RECEIVED, 0))
        for day, metrics in found.items()
    }


async def hold(tx: AsyncConnection, tenant_id: UUID, *, held: bool) -> None:
    """Have what an organization's instances have to send wait, or wait no longer."""
    await tx.execute(
        update(InstanceRow)
        .where(InstanceRow.tenant_id == tenant_id, InstanceRow.held != held)
        .values(held=held)
    )


async def credentials(tx: AsyncConnection, tenant_id: UUID) -> tuple[list[bytes], list[UUID]]:
    """By what people of an organization get in: the digests of its instance keys, and its users."""
    digests = await tx.execute(
        select(InstanceKeyRow.key_hash).where(
            InstanceKeyRow.tenant_id == tenant_id, InstanceKeyRow.revoked_at.is_(None)
        )
    )
    users = await tx.execute(
        select(UserRow.id).where(UserRow.tenant_id == tenant_id, UserRow.active)
    )
    return [digest for (digest,) in digests], [user for (user,) in users]


async def add_broadcast(tx: AsyncConnection, broadcast: Broadcast) -> None:
    """Store what is to be told."""
    await tx.execute(
        insert(BroadcastRow).values(
            id=broadcast.id,
            body=broadcast.body,
            created_by=broadcast.created_by,
            created_at=broadcast.created_at,
            request_id=broadcast.request_id,
        )
    )


async def lock_unfinished(tx: AsyncConnection) -> Broadcast | None:
    """The oldest broadcast that has not been told to all, unless another replica is at it."""
    row = (
        await tx.execute(
            select(
                BroadcastRow.id,
                BroadcastRow.body,
                BroadcastRow.created_by,
                BroadcastRow.created_at,
                BroadcastRow.request_id,
                BroadcastRow.told_to,
            )
            .where(BroadcastRow.finished_at.is_(None))
            .order_by(BroadcastRow.id)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
    ).first()
    if row is None:
        return None
    return Broadcast(
        id=row[0],
        body=row[1],
        created_by=row[2],
        created_at=row[3],
        request_id=row[4],
        told_to=row[5],
    )


async def next_tenants(tx: AsyncConnection, *, after: UUID | None, limit: int) -> list[UUID]:
    """Organizations in the order in which they are told; those made meanwhile come last."""
    query = (
        select(OrganizationRow.id)
        .where(OrganizationRow.id != PLATFORM)
        .order_by(OrganizationRow.id)
        .limit(limit)
    )
    if after is not None:
        query = query.where(OrganizationRow.id > after)
    return [tenant_id for (tenant_id,) in await tx.execute(query)]


async def note_told(
    tx: AsyncConnection, broadcast_id: UUID, tenants: Sequence[UUID], *, finished: datetime | None
) -> None:
    """Write down how far a broadcast has got."""
    values: dict[str, object] = {"told": BroadcastRow.told + len(tenants), "finished_at": finished}
    if tenants:
        values["told_to"] = tenants[-1]
    await tx.execute(update(BroadcastRow).where(BroadcastRow.id == broadcast_id).values(**values))
