"""What operators of the platform see and do."""

from datetime import date
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AfterValidator, Field, StringConstraints

from services.gateway.domain.plans import PLANS
from services.gateway.store.platform import Tenant, TenantsInstance
from shared.contracts.events import SystemState
from shared.web.pagination import PageQuery
from shared.web.schemas import ApiModel, ApiView, Day, Instant


def _plan(value: str) -> str:
    if value not in PLANS:
        raise ValueError(f"is not a plan; there are: {', '.join(PLANS)}")
    return value


PlanName = Annotated[str, Field(max_length=50, examples=["pro"]), AfterValidator(_plan)]
Sentence = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1000)]


class TenantsQuery(PageQuery):
    """Which organizations, newest first."""

    plan: PlanName | None = None
    suspended: bool | None = None


class TenantView(ApiView):
    """An organization, with how many people and instances it has."""

    id: UUID
    name: str
    timezone: str
    plan: str
    suspended: bool
    suspended_at: Instant | None
    suspended_reason: str | None
    members: int
    instances: int
    created_at: Instant

    @classmethod
    def of(cls, tenant: Tenant) -> "TenantView":
        return cls(
            id=tenant.id,
            name=tenant.name,
            timezone=tenant.timezone,
            plan=tenant.plan,
            suspended=tenant.suspended_at is not None,
            suspended_at=tenant.suspended_at,
            suspended_reason=tenant.suspended_reason,
            members=tenant.members,
            instances=tenant.instances,
            created_at=tenant.created_at,
        )


class TenantChange(ApiModel):
    """What is to change; what is left out stays."""

    plan: PlanName | None = None
    suspended: bool | None = None
    suspended_reason: Sentence | None = Field(
        default=None, description="Kept for operators while it is suspended; never shown to it."
    )


class TenantsInstancesQuery(PageQuery):
    """Which instances, newest first."""

    organization_id: UUID | None = None
    engine: str | None = Field(default=None, max_length=50)
    status: str | None = Field(default=None, max_length=50)


class TenantsInstanceView(ApiView):
    """An instance: how it is doing, and nothing of what is said by it."""

    id: UUID
    organization_id: UUID
    organization_name: str
    name: str
    engine: str = Field(examples=["sandbox"])
    status: str = Field(examples=["ready"])
    connected: bool
    since: Instant | None
    last_error: str | None
    created_at: Instant

    @classmethod
    def of(cls, instance: TenantsInstance) -> "TenantsInstanceView":
        return cls(
            id=instance.id,
            organization_id=instance.tenant_id,
            organization_name=instance.organization,
            name=instance.name,
            engine=instance.engine,
            status=instance.status,
            connected=instance.connected,
            since=instance.since,
            last_error=instance.last_error,
            created_at=instance.created_at,
        )


class PlatformQuery(ApiModel):
    """The last 30 days if left out."""

    start_date: Day | None = None
    end_date: Day | None = None


class TenantTotals(ApiView):
    """How many organizations there are, and how many of them are suspended."""

    total: int
    suspended: int


class InstanceTotals(ApiView):
    """How many instances there are, and how they are doing."""

    total: int
    by_status: dict[str, int] = Field(examples=[{"ready": 12, "disconnected": 1}])


class TrafficDay(ApiView):
    """Messages of all organizations on one day, which each has in its own time zone."""

    date: date
    sent: int
    received: int


class Traffic(ApiView):
    """Messages of all organizations."""

    sent: int
    received: int
    days: list[TrafficDay]


class PlatformView(ApiView):
    """How much there is on the platform, and what goes over it."""

    start_date: date
    end_date: date
    organizations: TenantTotals
    users: int
    instances: InstanceTotals
    messages: Traffic


class NewBroadcast(ApiModel):
    """What every organization is told, by the event `system.status`."""

    status: SystemState = "maintenance"
    message: Sentence = Field(examples=["Maintenance on Sunday from 02:00 to 03:00 UTC."])
    starts_at: Instant | None = None
    ends_at: Instant | None = None


class BroadcastView(ApiView):
    """A broadcast that is under way: every organization gets one event of it."""

    id: UUID
    status: Literal["queued"] = "queued"
    created_at: Instant
