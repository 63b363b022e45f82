"""The webhook service's tables: deliveries, their attempts, and how each endpoint is doing."""

from uuid import UUID

from sqlalchemy import Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from shared.db.tables.base import (
    Base,
    Id,
    Moment,
    OutboxColumns,
    Ref,
    Small,
    Word,
    WorkerColumns,
)

SCHEMA = {"schema": "webhooks"}


class DeliveryRow(Base):
    """One event addressed to one endpoint.

    ``state`` is pending, claimed, delivered, exhausted or disabled. A claim is a short lease: past
    ``claim_until`` another worker may take it, under the same event id. ``body`` is sealed, but for
    what an earlier version wrote; it is null once it is erased.
    """

    __tablename__ = "deliveries"
    __table_args__ = (
        UniqueConstraint("endpoint_id", "event_id"),
        Index(
            "ix_deliveries_due",
            "endpoint_id",
            "next_at",
            postgresql_where=text("state = 'pending'"),
        ),
        Index("ix_deliveries_claimed", "claim_until", postgresql_where=text("state = 'claimed'")),
        Index(None, "message_id"),
        Index(None, "tenant_id", "id"),
        {"schema": "webhooks", "postgresql_with": {"fillfactor": "80"}},
    )

    id: Mapped[Id]
    tenant_id: Mapped[Ref]
    instance_id: Mapped[UUID | None]
    endpoint_id: Mapped[Ref]
    event_id: Mapped[Ref]
    event_type: Mapped[Word]
    message_id: Mapped[UUID | None]
    body: Mapped[bytes | None]
    state: Mapped[Word]
    attempts: Mapped[Small]
    next_at: Mapped[Moment]
    claim_until: Mapped[Moment | None]
    claimed_by: Mapped[Word | None]
    created_at: Mapped[Moment]
    done_at: Mapped[Moment | None]


class AttemptRow(Base):
    """One POST of a delivery: what was answered, in how many milliseconds, or what went wrong.

    ``sealed_response`` is the beginning of the answer's body, which may repeat what it was sent;
    ``response`` is the same of rows from before there was a key ring.
    """

    __tablename__ = "attempts"
    __table_args__ = (Index(None, "at"), SCHEMA)

    delivery_id: Mapped[UUID] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[Moment]
    duration_ms: Mapped[int]
    status_code: Mapped[Small | None]
    error: Mapped[Word | None]
    response: Mapped[Word | None]
    sealed_response: Mapped[bytes | None]


class EndpointHealthRow(Base):
    """How an endpoint is doing. ``open_until`` holds its deliveries back without using up attempts.

    ``consecutive_unreachable`` counts what opens the breaker, failures to connect and timeouts;
    ``consecutive_failures`` counts those and bad answers. ``opened`` is how often in a row it has.
    ``disabled_at`` holds until the endpoint's row is changed: enabling is the gateway's to write.
    """

    __tablename__ = "endpoint_health"
    __table_args__ = (SCHEMA,)

    endpoint_id: Mapped[Id]
    consecutive_failures: Mapped[int]
    consecutive_unreachable: Mapped[int]
    failing_since: Mapped[Moment | None]
    last_success_at: Mapped[Moment | None]
    opened: Mapped[Small]
    open_until: Mapped[Moment | None]
    disabled_at: Mapped[Moment | None]
    disabled_reason: Mapped[Word | None]


class WebhooksOutboxRow(OutboxColumns, Base):
    """What the webhook service has promised to tell."""

    __tablename__ = "outbox"
    __table_args__ = (SCHEMA,)


class WebhooksWorkerRow(WorkerColumns, Base):
    """A process of this service."""

    __tablename__ = "workers"
    __table_args__ = (SCHEMA,)
