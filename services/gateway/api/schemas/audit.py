"""The audit log as it is asked for and shown."""

from typing import Literal
from uuid import UUID

from pydantic import Field

from services.gateway.store.audit import Logged
from shared.web.pagination import PageQuery
from shared.web.schemas import ApiView, Instant, When

_ACTION = r"^[a-z_]+(\.[a-z_]+)*(\.\*)?$"


class AuditQuery(PageQuery):
    """Which entries to list, latest first. Besides the cursor, `page` or `offset` may be used."""

    user_id: UUID | None = None
    action: str | None = Field(
        default=None,
        max_length=100,
        pattern=_ACTION,
        description="A whole action, or a family of them.",
        examples=["instance.*"],
    )
    resource_type: str | None = Field(default=None, max_length=64, examples=["instance"])
    resource_id: str | None = Field(default=None, max_length=200)
    from_: When | None = Field(
        default=None, alias="from", description="Done at this time or later; a date is a day."
    )
    to: When | None = Field(
        default=None, description="Done before this time; of a date, the day is included (UTC)."
    )
    tenant_id: UUID | None = Field(
        default=None, description="An operator may ask for one organization; others see their own."
    )
    page: int | None = Field(default=None, ge=1, le=10_000, description="1 is the first.")
    offset: int | None = Field(default=None, ge=0, le=1_000_000)
    format: Literal["json", "csv"] = "json"


class ActorView(ApiView):
    """Who did it. ``email`` is what the user has today."""

    type: str = Field(examples=["user"])
    user_id: UUID | None
    key_id: UUID | None
    email: str | None


class ResourceView(ApiView):
    """To what it was done."""

    type: str = Field(examples=["instance"])
    id: str | None


class AuditView(ApiView):
    """One entry. `before` and `after` hold what was changed, without secrets.

    `times` is above one for security events that are counted instead of listed one by one.
    """

    id: UUID
    at: Instant
    action: str = Field(examples=["instance.created"])
    actor: ActorView
    resource: ResourceView
    before: dict[str, object] | None
    after: dict[str, object] | None
    address: str | None = Field(examples=["203.0.113.7"])
    request_id: str | None
    organization_id: UUID | None
    times: int = Field(examples=[1])

    @classmethod
    def of(cls, entry: Logged) -> "AuditView":
        return cls(
            id=entry.id,
            at=entry.at,
            action=entry.action,
            actor=ActorView(
                type=entry.actor_type,
                user_id=entry.user_id,
                key_id=entry.key_id,
                email=entry.email,
            ),
            resource=ResourceView(type=entry.resource_type, id=entry.resource_id),
            before=entry.before,
            after=entry.after,
            address=entry.address,
            request_id=entry.request_id,
            organization_id=entry.tenant_id,
            times=entry.times,
        )
