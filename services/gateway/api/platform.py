"""The platform: what its operators see of all organizations, and do about them."""

from collections.abc import Callable
from datetime import date, timedelta
from typing import Final
from uuid import UUID
from zoneinfo import ZoneInfo

from aiohttp import web
from pydantic import TypeAdapter
from sqlalchemy.ext.asyncio import AsyncConnection

from services.gateway.api.auditing import note
from services.gateway.api.gate import PRINCIPAL, id_in_path
from services.gateway.api.once import Once
from services.gateway.api.revocation import Revocations
from services.gateway.api.schemas.platform import (
    BroadcastView,
    InstanceTotals,
    NewBroadcast,
    PlatformQuery,
    PlatformView,
    TenantChange,
    TenantsInstancesQuery,
    TenantsInstanceView,
    TenantsQuery,
    TenantTotals,
    TenantView,
    Traffic,
    TrafficDay,
)
from services.gateway.domain.periods import LONGEST_RANGE, days
from services.gateway.domain.plans import PLANS, month_at
from services.gateway.store import accounts, platform, usage
from services.gateway.store.counters import Counts
from services.gateway.store.platform import Broadcast, Tenant
from shared.clock import Clock
from shared.db.database import Database
from shared.errors import NotFound
from shared.ids import new_id
from shared.log import get_logger
from shared.web.body import BodyLimits, invalid, read_model, read_query
from shared.web.edge import REQUEST_ID
from shared.web.envelope import respond, respond_page
from shared.web.pagination import Keyset

log = get_logger()

_TENANTS: Keyset[UUID] = Keyset("organizations", TypeAdapter(UUID))
_INSTANCES: Keyset[UUID] = Keyset("all_instances", TypeAdapter(UUID))
_USUAL_RANGE: Final = timedelta(days=29)


class Administration:
    """``/api/admin``. ``announced`` is called after a broadcast was committed."""

    def __init__(
        self,
        *,
        database: Database,
        once: Once,
        revocations: Revocations,
        announced: Callable[[], None],
        limits: BodyLimits,
        clock: Clock,
    ) -> None:
        self._database = database
        self._once = once
        self._revocations = revocations
        self._announced = announced
        self._limits = limits
        self._clock = clock

    async def organizations(self, request: web.Request) -> web.StreamResponse:
        query = read_query(request, TenantsQuery)
        async with self._database.tx() as tx:
            rows = await platform.tenants(
                tx,
                plan=query.plan,
                suspended=query.suspended,
                after=_TENANTS.decode(query.cursor) if query.cursor else None,
                limit=query.limit + 1,
            )
        shown, pagination = _TENANTS.page(rows, limit=query.limit, position=lambda row: row.id)
        return respond_page([TenantView.of(row) for row in shown], pagination)

    async def change_organization(self, request: web.Request) -> web.StreamResponse:
        tenant_id = id_in_path(request)
        body = await read_model(request, TenantChange, self._limits)
        if body.suspended_reason is not None and body.suspended is not True:
            raise invalid({"suspendedReason": "goes with `suspended: true` only"})
        async with self._database.tx() as tx:
            organization = await accounts.organization(tx, tenant_id, lock=True)
            tenant = await _tenant(tx, tenant_id)
            changes = self._changes(tenant, body)
            await accounts.update_organization(tx, tenant_id, changes)
            await platform.hold(
                tx, tenant_id, held=changes.get("suspended_at", tenant.suspended_at) is not None
            )
            if organization is not None and _grows(tenant.plan, body.plan):
                month = month_at(self._clock.now(), ZoneInfo(organization.timezone))
                await usage.unwarn(tx, tenant_id, since=month.first)
            keys, users = await platform.credentials(tx, tenant_id)
            changed = await _tenant(tx, tenant_id)
            before, after = TenantView.of(tenant), TenantView.of(changed)
            await note(
                tx,
                request,
                "organization",
                tenant_id,
                before=_facts(before),
                after=_facts(after),
                tenant_id=tenant_id,
            )
        if "suspended_at" in changes:
            await self._revocations.tell(keys=keys, users=users)
        log.info("organization_changed", organization_id=str(tenant_id), changed=sorted(changes))
        return respond(after)

    def _changes(self, tenant: Tenant, body: TenantChange) -> dict[str, object]:
        changes: dict[str, object] = {}
        if body.plan is not None:
            changes["plan"] = body.plan
        if body.suspended is True:
            changes["suspended_at"] = tenant.suspended_at or self._clock.now()
            changes["suspended_reason"] = body.suspended_reason or tenant.suspended_reason
        elif body.suspended is False:
            changes |= {"suspended_at": None, "suspended_reason": None}
        return changes

    async def instances(self, request: web.Request) -> web.StreamResponse:
        query = read_query(request, TenantsInstancesQuery)
        async with self._database.tx() as tx:
            rows = await platform.instances(
                tx,
                tenant_id=query.organization_id,
                engine=query.engine,
                status=query.status,
                after=_INSTANCES.decode(query.cursor) if query.cursor else None,
                limit=query.limit + 1,
            )
        shown, pagination = _INSTANCES.page(rows, limit=query.limit, position=lambda row: row.id)
        return respond_page([TenantsInstanceView.of(row) for row in shown], pagination)

    async def analytics(self, request: web.Request) -> web.StreamResponse:
        query = read_query(request, PlatformQuery)
        start, end = _range(query, today=self._clock.now().date())
        async with self._database.tx() as tx:
            totals = await platform.totals(tx)
            traffic = await platform.traffic(tx, start=start, end=end)
        rows = [(day, traffic.get(day, Counts())) for day in days(start, end)]
        return respond(
            PlatformView(
                start_date=start,
                end_date=end,
                organizations=TenantTotals(total=totals.organizations, suspended=totals.suspended),
                users=totals.users,
                instances=InstanceTotals(
                    total=sum(totals.instances.values()), by_status=dict(totals.instances)
                ),
                messages=Traffic(
                    sent=sum(counts.sent for _, counts in rows),
                    received=sum(counts.received for _, counts in rows),
                    days=[
                        TrafficDay(date=day, sent=counts.sent, received=counts.received)
                        for day, counts in rows
                    ],
                ),
            )
        )

    async def broadcast(self, request: web.Request) -> web.StreamResponse:
        principal = request[PRINCIPAL]
        body = await read_model(request, NewBroadcast, self._limits)
        if body.starts_at and body.ends_at and body.ends_at <= body.starts_at:
            raise invalid({"endsAt": "is not after startsAt; swap them"})

        async def work(tx: AsyncConnection) -> BroadcastView:
            made = Broadcast(
                id=new_id(),
                body=body.model_dump(mode="json", by_alias=True, exclude_none=True),
                created_by=principal.user_id,
                created_at=self._clock.now(),
                request_id=request[REQUEST_ID],
            )
            await platform.add_broadcast(tx, made)
            await note(tx, request, "broadcast", made.id, after=made.body)
            log.info("broadcast_announced", broadcast_id=str(made.id))
            return BroadcastView(id=made.id, created_at=made.created_at)

        answer = await self._once.run(request, body, work, principal=principal, status=202)
        self._announced()
        return answer


def _facts(tenant: TenantView) -> dict[str, object]:
    """What the organization's own administrators may read of it in their audit log."""
    return tenant.model_dump(mode="json", by_alias=True, exclude={"suspended_reason"})


def _grows(before: str, after: str | None) -> bool:
    return after is not None and PLANS[after].messages > PLANS[before].messages


async def _tenant(tx: AsyncConnection, tenant_id: UUID) -> Tenant:
    found = await platform.tenant(tx, tenant_id)
    if found is None:
        raise NotFound("There is no such organization; GET /api/admin/organizations lists them.")
    return found


def _range(query: PlatformQuery, *, today: date) -> tuple[date, date]:
    end = query.end_date or today
    start = query.start_date or end - _USUAL_RANGE
    if end < start:
        raise invalid({"endDate": "is before startDate; swap them"})
    if (end - start).days >= LONGEST_RANGE:
        raise invalid({"startDate": f"is too early; a range has at most {LONGEST_RANGE} days"})
    return start, end
