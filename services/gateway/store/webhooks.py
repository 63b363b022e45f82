"""The primary webhook of an instance, how it is doing, and what a test of it found."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import delete, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.db.tables.gateway import WebhookRow
from shared.db.tables.webhooks import AttemptRow, DeliveryRow, EndpointHealthRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """A customer's URL. ``disabled_at`` says that it failed for too long, or answered 410."""

    id: UUID
    tenant_id: UUID
    instance_id: UUID | None
    url: str
    events: list[str]
    active: bool
    created_at: datetime
    updated_at: datetime
    disabled_at: datetime | None = None
    disabled_reason: str | None = None


@dataclass(frozen=True, slots=True)
class FirstAttempt:
    """What the first POST of a delivery found."""

    status_code: int | None
    duration_ms: int
    error: str | None


_COLUMNS = (
    WebhookRow.id,
    WebhookRow.tenant_id,
    WebhookRow.instance_id,
    WebhookRow.url,
    WebhookRow.events,
    WebhookRow.active,
    WebhookRow.created_at,
    WebhookRow.updated_at,
    EndpointHealthRow.disabled_at,
    EndpointHealthRow.disabled_reason,
)
_NAMES = tuple(Webhook.__dataclass_fields__)


async def primary(tx: AsyncConnection, tenant_id: UUID, instance_id: UUID) -> Webhook | None:
    """The webhook that ``/api/webhook`` manages for this instance."""
    query = (
        select(*_COLUMNS)
        .outerjoin(EndpointHealthRow, EndpointHealthRow.endpoint_id == WebhookRow.id)
        .where(
            WebhookRow.tenant_id == tenant_id,
            WebhookRow.instance_id == instance_id,
            WebhookRow.is_primary,
        )
    )
    row = (await tx.execute(query)).first()
    return None if row is None else Webhook(**dict(zip(_NAMES, row, strict=True)))


async def add_primary(tx: AsyncConnection, webhook: Webhook, *, secret: bytes) -> bool:
    """Store an instance's primary webhook with its sealed secret; false if it has one."""
    added = await tx.execute(
        upsert(WebhookRow)
        .values(
            id=webhook.id,
            tenant_id=webhook.tenant_id,
            instance_id=webhook.instance_id,
            is_primary=True,
            url=webhook.url,
            events=webhook.events,
            secret_sealed=secret,
            active=webhook.active,
            created_at=webhook.created_at,
            updated_at=webhook.updated_at,
        )
        .on_conflict_do_nothing(
            index_elements=[WebhookRow.instance_id], index_where=text("is_primary")
        )
        .returning(WebhookRow.id)
    )
    return added.first() is not None


async def change(
    tx: AsyncConnection, webhook_id: UUID, changes: Mapping[str, object], *, now: datetime
) -> None:
    """Store what has changed."""
    await tx.execute(
        update(WebhookRow).where(WebhookRow.id == webhook_id).values(**changes, updated_at=now)
    )


async def remove(tx: AsyncConnection, webhook_id: UUID) -> None:
    """Delete a webhook."""
    await tx.execute(delete(WebhookRow).where(WebhookRow.id == webhook_id))


async def first_attempt(
    tx: AsyncConnection, *, endpoint_id: UUID, event_id: UUID
) -> FirstAttempt | None:
    """What the first POST of this event to this endpoint found, once there was one."""
    row = (
        await tx.execute(
            select(AttemptRow.status_code, AttemptRow.duration_ms, AttemptRow.error)
            .join(DeliveryRow, DeliveryRow.id == AttemptRow.delivery_id)
            .where(DeliveryRow.endpoint_id == endpoint_id, DeliveryRow.event_id == event_id)
            .order_by(AttemptRow.number)
            .limit(1)
        )
    ).first()
    return None if row is None else FirstAttempt(*row)
