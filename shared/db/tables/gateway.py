"""The gateway's tables: accounts, teams, instances, keys, endpoints, answers, the event log."""

from datetime import date
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, Index, Text, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Mapped, mapped_column

from shared.db.tables.base import (
    Base,
    Big,
    Id,
    Json,
    Moment,
    OutboxColumns,
    Ref,
    Small,
    Word,
    WorkerColumns,
)

SCHEMA = {"schema": "gateway"}


class OrganizationRow(Base):
    """The tenant: who pays, and whose data is nobody else's. ``timezone`` is an IANA name.

    While ``suspended_at`` is there, nobody of it gets in. One of them is the platform itself, whose
    people are its operators.

    ``content_storage`` is ``none`` or ``encrypted``, chosen at ``content_storage_since``: whether
    what messages say is kept once nothing needs it any more. ``retention_days`` is after how many
    days messages are deleted, zero meaning never.
    """

    __tablename__ = "organizations"
    __table_args__ = (
        Index(
            "ix_organizations_retention",
            "retention_days",
            postgresql_where=text("retention_days > 0"),
        ),
        SCHEMA,
    )

    id: Mapped[Id]
    name: Mapped[Word]
    timezone: Mapped[Word]
    plan: Mapped[Word]
    content_storage: Mapped[Word] = mapped_column(server_default=text("'none'"))
    content_storage_since: Mapped[Moment | None]
    retention_days: Mapped[int] = mapped_column(server_default=text("0"))
    pii_masking: Mapped[bool] = mapped_column(server_default=text("false"))
    created_at: Mapped[Moment]
    suspended_at: Mapped[Moment | None]
    suspended_reason: Mapped[Word | None]


class UserRow(Base):
    """A person who signs in. ``email`` is stored in lower case.

    Who was invited and has not come yet has no ``joined_at``; who has to choose a password anew has
    no ``password_hash``. ``manager_id`` is by whom they are managed, beside the administrators.
    ``unlocks`` counts how often their failed logins were forgiven, and is part of what those are
    counted by.
    """

    __tablename__ = "users"
    __table_args__ = (
        UniqueConstraint("email"),
        Index(None, "tenant_id", "id"),
        Index(None, "manager_id"),
        SCHEMA,
    )

    id: Mapped[Id]
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("gateway.organizations.id"))
    email: Mapped[Word]
    name: Mapped[Word]
    password_hash: Mapped[Word | None]
    role: Mapped[Word]
    active: Mapped[bool]
    unlocks: Mapped[int] = mapped_column(server_default=text("0"))
    created_at: Mapped[Moment]
    joined_at: Mapped[Moment | None]
    manager_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("gateway.users.id", ondelete="SET NULL")
    )


class InvitationRow(Base):
    """What a person exchanges for a password, by its SHA-256: one at a time, and once."""

    __tablename__ = "invitations"
    __table_args__ = (UniqueConstraint("token_hash"), SCHEMA)

    user_id: Mapped[UUID] = mapped_column(
        ForeignKey("gateway.users.id", ondelete="CASCADE"), primary_key=True
    )
    token_hash: Mapped[bytes]
    created_at: Mapped[Moment]
    expires_at: Mapped[Moment]


class AssignmentRow(Base):
    """An instance that a person sees who does not see all of their organization's."""

    __tablename__ = "assignments"
    __table_args__ = (Index(None, "instance_id"), SCHEMA)

    user_id: Mapped[UUID] = mapped_column(
        ForeignKey("gateway.users.id", ondelete="CASCADE"), primary_key=True
    )
    instance_id: Mapped[UUID] = mapped_column(ForeignKey("gateway.instances.id"), primary_key=True)
    assigned_by: Mapped[UUID | None]
    assigned_at: Mapped[Moment]


class UserKeyRow(Base):
    """A key that acts as the person who made it, by its SHA-256. ``rate_limit``: an hour."""

    __tablename__ = "user_keys"
    __table_args__ = (
        UniqueConstraint("key_hash"),
        Index(None, "user_id", "id"),
        Index(None, "tenant_id", "id"),
        SCHEMA,
    )

    id: Mapped[Id]
    tenant_id: Mapped[Ref]
    user_id: Mapped[UUID] = mapped_column(ForeignKey("gateway.users.id", ondelete="CASCADE"))
    name: Mapped[Word]
    key_hash: Mapped[bytes]
    hint: Mapped[Word]
    rate_limit: Mapped[int]
    created_at: Mapped[Moment]
    expires_at: Mapped[Moment]
    revoked_at: Mapped[Moment | None]
    last_used_at: Mapped[Moment | None]


class BroadcastRow(Base):
    """What the platform tells every organization, and how far it has got.

    ``told_to`` is the last organization, by id, in whose name the event is in the outbox.
    """

    __tablename__ = "broadcasts"
    __table_args__ = (
        Index("ix_broadcasts_unfinished", "id", postgresql_where=text("finished_at IS NULL")),
        SCHEMA,
    )

    id: Mapped[Id]
    body: Mapped[Json]
    created_by: Mapped[UUID | None]
    created_at: Mapped[Moment]
    told_to: Mapped[UUID | None]
    told: Mapped[int] = mapped_column(server_default=text("0"))
    finished_at: Mapped[Moment | None]
    request_id: Mapped[Word | None]


class RefreshTokenRow(Base):
    """One refresh token of a family, by its SHA-256. Using a spent one revokes the whole family."""

    __tablename__ = "refresh_tokens"
    __table_args__ = (
        UniqueConstraint("token_hash"),
        Index(None, "family_id"),
        Index(None, "user_id"),
        SCHEMA,
    )

    id: Mapped[Id]
    family_id: Mapped[Ref]
    user_id: Mapped[UUID] = mapped_column(ForeignKey("gateway.users.id"))
    token_hash: Mapped[bytes]
    created_at: Mapped[Moment]
    expires_at: Mapped[Moment]
    spent_at: Mapped[Moment | None]
    revoked_at: Mapped[Moment | None]


class InstanceRow(Base):
    """One WhatsApp connection of a tenant.

    ``connected`` is what the tenant wants; what is so stands in ``sessions.session_states``.
    Secrets among the ``settings`` are sealed.
    ``guard`` holds the limits that protect the number and its recipients: ``perMinute``,
    ``perHour``, ``perDay``, zero meaning no limit; and, if any, the ``quietHours``, ``warmUp`` and
    ``pauses`` of ``shared/contracts/guard.py``. ``typing`` is whether chats are shown that a text
    is typed; ``proxy`` and ``deviceName``, if any, are how the instance connects and what the phone
    calls it. What ``held`` has to send waits, because its organization is suspended.
    """

    __tablename__ = "instances"
    __table_args__ = (
        Index(None, "tenant_id", "id"),
        Index("ix_instances_shard", "shard", postgresql_where=text("deleted_at IS NULL")),
        # By whose number or token a callback names an instance.
        Index(
            "ix_instances_callbacks",
            "settings",
            postgresql_using="gin",
            postgresql_ops={"settings": "jsonb_path_ops"},
            postgresql_where=text("engine = 'cloud_api' AND deleted_at IS NULL"),
        ),
        SCHEMA,
    )

    id: Mapped[Id]
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("gateway.organizations.id"))
    name: Mapped[Word]
    engine: Mapped[Word]
    phone_number: Mapped[Word | None]
    settings: Mapped[Json]
    guard: Mapped[Json]
    shard: Mapped[Small]
    connected: Mapped[bool]
    held: Mapped[bool] = mapped_column(server_default=text("false"))
    created_at: Mapped[Moment]
    updated_at: Mapped[Moment]
    deleted_at: Mapped[Moment | None]


class InstanceKeyRow(Base):
    """A key that acts as one instance, by its SHA-256. ``rate_limit`` is requests an hour.

    ``requests`` counts how often it was used, ``successes`` how often that went well; both follow
    a few seconds behind. A key that was regenerated keeps its row; what it was before is a revoked
    row of its own, ``replaced_by`` this one.
    """

    __tablename__ = "instance_keys"
    __table_args__ = (UniqueConstraint("key_hash"), Index(None, "instance_id", "id"), SCHEMA)

    id: Mapped[Id]
    tenant_id: Mapped[Ref]
    instance_id: Mapped[UUID] = mapped_column(ForeignKey("gateway.instances.id"))
    name: Mapped[Word]
    key_hash: Mapped[bytes]
    hint: Mapped[Word]
    permissions: Mapped[Json]
    rate_limit: Mapped[int]
    created_at: Mapped[Moment]
    expires_at: Mapped[Moment | None]
    revoked_at: Mapped[Moment | None]
    last_used_at: Mapped[Moment | None]
    requests: Mapped[Big] = mapped_column(server_default=text("0"))
    successes: Mapped[Big] = mapped_column(server_default=text("0"))
    replaced_by: Mapped[UUID | None]


class WebhookRow(Base):
    """A customer's URL. Without ``instance_id`` it gets the events of all the tenant's instances.

    ``is_primary`` marks the one webhook that ``/api/webhook`` manages for its instance. ``secret``
    is only there where it was stored before secrets were sealed.
    """

    __tablename__ = "webhooks"
    __table_args__ = (
        Index(None, "tenant_id", "id"),
        Index(
            "uq_webhooks_primary", "instance_id", unique=True, postgresql_where=text("is_primary")
        ),
        SCHEMA,
    )

    id: Mapped[Id]
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("gateway.organizations.id"))
    instance_id: Mapped[UUID | None] = mapped_column(ForeignKey("gateway.instances.id"))
    is_primary: Mapped[bool]
    url: Mapped[Word]
    events: Mapped[list[str]] = mapped_column(ARRAY(Text))
    secret: Mapped[Word | None]
    secret_sealed: Mapped[bytes | None]
    active: Mapped[bool]
    created_at: Mapped[Moment]
    updated_at: Mapped[Moment]


class IdempotencyRow(Base):
    """The first answer to a keyed request.

    Neither the key nor the answer can be read here: the key is a SHA-256, and ``response`` is
    sealed under the key itself, because it may hold a secret that is shown only once.
    """

    __tablename__ = "idempotency_keys"
    __table_args__ = (Index(None, "expires_at"), SCHEMA)

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    key_hash: Mapped[bytes] = mapped_column(primary_key=True)
    fingerprint: Mapped[bytes]
    status: Mapped[Small]
    response: Mapped[bytes]
    created_at: Mapped[Moment]
    expires_at: Mapped[Moment]


class EventRow(Base):
    """One event of the log that ``GET /api/events`` pages through.

    ``sequence`` is given out under a lock, so a row with a lower number never appears after one
    with a higher number has been seen. ``body`` is sealed, but for what an earlier version wrote.
    ``time`` is when it happened, ``logged_at`` when it was logged, by the database's clock: one for
    all who write, so that it grows with ``sequence``.
    """

    __tablename__ = "events"
    __table_args__ = (
        UniqueConstraint("id"),
        Index(None, "tenant_id", "sequence"),
        SCHEMA,
    )

    sequence: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    id: Mapped[Ref]
    tenant_id: Mapped[Ref]
    instance_id: Mapped[UUID | None]
    type: Mapped[Word]
    time: Mapped[Moment]
    body: Mapped[bytes]
    logged_at: Mapped[Moment] = mapped_column(server_default=text("now()"))


class EventLogRow(Base):
    """One row, ``id`` 1, about the log as a whole.

    ``forgotten_through`` is the highest number that was deleted: a reader whose cursor is lower may
    have missed something.
    """

    __tablename__ = "event_log"
    __table_args__ = (SCHEMA,)

    id: Mapped[Small] = mapped_column(primary_key=True, autoincrement=False)
    forgotten_through: Mapped[int] = mapped_column(BigInteger)


class TenantLogRow(Base):
    """The same about what the log has for one tenant, which keeps messages for less time.

    There is a row for who has chosen so, once something of theirs was forgotten.
    """

    __tablename__ = "tenant_logs"
    __table_args__ = (SCHEMA,)

    tenant_id: Mapped[Id]
    forgotten_through: Mapped[int] = mapped_column(BigInteger)


class MessageUsageRow(Base):
    """How many messages a tenant has had accepted in a calendar month of its time zone.

    ``month`` is that month's first day. ``warned_at`` is when the tenant was told that most of what
    its plan allows is used.
    """

    __tablename__ = "message_usage"
    __table_args__ = ({"schema": "gateway", "postgresql_with": {"fillfactor": "50"}},)

    tenant_id: Mapped[UUID] = mapped_column(
        ForeignKey("gateway.organizations.id"), primary_key=True
    )
    month: Mapped[date] = mapped_column(primary_key=True)
    accepted: Mapped[int] = mapped_column(BigInteger)
    warned_at: Mapped[Moment | None]


class MediaRow(Base):
    """A file that a tenant has uploaded. The bytes are stored once per tenant and ``sha256``.

    ``instance_id`` is whose key brought it; a file without one was brought by a person, and
    ``uploaded_by`` says who, unless that was before it was kept. One that is ``passing`` came
    with a message, and is kept no longer than what that says. ``holders`` are the requests that
    have brought it with a message which was not refused; it goes with the last of them, or a day
    after the last was ``held_at`` if no message has come of it. Without, it was uploaded by itself,
    is carried by a message or has been named since, and stays. A row with ``deleted_at`` is as good
    as gone, has no name any more, and since ``erased_at`` no bytes; with the id of a row in
    ``sessions.inbound_media`` it says that a received file was deleted.
    """

    __tablename__ = "media"
    __table_args__ = (
        Index(None, "tenant_id", "created_at", "id"),
        Index(None, "tenant_id", "sha256"),
        Index(
            "ix_media_passing",
            "created_at",
            postgresql_where=text("passing AND deleted_at IS NULL"),
        ),
        Index(
            "ix_media_deleted",
            "deleted_at",
            postgresql_where=text("deleted_at IS NOT NULL AND erased_at IS NULL"),
        ),
        Index(
            "ix_media_held",
            "held_at",
            postgresql_where=text("holders IS NOT NULL AND deleted_at IS NULL"),
        ),
        Index("ix_media_erased", "erased_at", postgresql_where=text("erased_at IS NOT NULL")),
        SCHEMA,
    )

    id: Mapped[Id]
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("gateway.organizations.id"))
    instance_id: Mapped[UUID | None]
    uploaded_by: Mapped[UUID | None]
    sha256: Mapped[Word]
    size: Mapped[int] = mapped_column(BigInteger)
    mime_type: Mapped[Word]
    filename: Mapped[Word | None]
    passing: Mapped[bool] = mapped_column(server_default=text("false"))
    holders: Mapped[int | None]
    held_at: Mapped[Moment | None]
    created_at: Mapped[Moment]
    deleted_at: Mapped[Moment | None]
    erased_at: Mapped[Moment | None]


class DeadLetterRow(Base):
    """What a service could not process: a command, or one event.

    ``kind`` is how it goes back, as in an outbox. ``tenant_id`` and ``instance_id`` are set if it
    concerns one of them alone. ``times`` is how often it has died. ``sealed`` is the body, which
    nobody reads here; it is gone once somebody has ``handled`` the letter.
    """

    __tablename__ = "dead_letters"
    __table_args__ = (
        Index("ix_dead_letters_waiting", "died_at", "id", postgresql_where=text("handled IS NULL")),
        Index(None, "tenant_id", "died_at", "id"),
        Index(
            "ix_dead_letters_handled",
            "handled_at",
            postgresql_where=text("handled_at IS NOT NULL"),
        ),
        SCHEMA,
    )

    id: Mapped[Id]
    queue: Mapped[Word]
    message_id: Mapped[Ref]
    kind: Mapped[Word]
    type: Mapped[Word]
    tenant_id: Mapped[UUID | None]
    instance_id: Mapped[UUID | None]
    reason: Mapped[Word]
    why: Mapped[Word]
    size: Mapped[int]
    times: Mapped[int]
    first_died_at: Mapped[Moment]
    died_at: Mapped[Moment]
    sealed: Mapped[bytes | None]
    handled: Mapped[Word | None]
    handled_at: Mapped[Moment | None]


class AuditLogRow(Base):
    """One thing that somebody did. Append only: the gateway's role may neither change nor delete.

    Without ``tenant_id`` it concerns no organization that is known. ``before`` and ``after`` hold
    no secrets. ``times`` is above one for what is sampled instead of written each time.
    """

    __tablename__ = "audit_logs"
    __table_args__ = (
        Index(None, "tenant_id", "at", "id"),
        Index(None, "tenant_id", "resource_id", "at"),
        Index(None, "at", "id"),
        SCHEMA,
    )

    id: Mapped[Id]
    at: Mapped[Moment]
    tenant_id: Mapped[UUID | None]
    actor_type: Mapped[Word]
    user_id: Mapped[UUID | None]
    key_id: Mapped[UUID | None]
    action: Mapped[Word]
    resource_type: Mapped[Word]
    resource_id: Mapped[Word | None]
    before: Mapped[dict[str, object] | None] = mapped_column(JSONB(none_as_null=True))
    after: Mapped[dict[str, object] | None] = mapped_column(JSONB(none_as_null=True))
    address: Mapped[Word | None]
    request_id: Mapped[Word | None]
    times: Mapped[int]


class PhoneMappingRow(Base):
    """A contact's number that stands for a user, at one instance."""

    __tablename__ = "phone_mappings"
    __table_args__ = (
        UniqueConstraint("instance_id", "phone_number"),
        Index(None, "instance_id", "id"),
        SCHEMA,
    )

    id: Mapped[Id]
    tenant_id: Mapped[Ref]
    instance_id: Mapped[UUID] = mapped_column(ForeignKey("gateway.instances.id"))
    phone_number: Mapped[Word]
    user_id: Mapped[UUID] = mapped_column(ForeignKey("gateway.users.id"))
    created_at: Mapped[Moment]


class GatewayOutboxRow(OutboxColumns, Base):
    """What the gateway has promised to tell."""

    __tablename__ = "outbox"
    __table_args__ = (SCHEMA,)


class GatewayWorkerRow(WorkerColumns, Base):
    """A process of this service."""

    __tablename__ = "workers"
    __table_args__ = (SCHEMA,)


class WorkerOrderRow(Base):
    """What an operator wants of a service's workers: of one by its name, or of all, without.

    ``paused`` is null where that is left to what is wanted of all. Workers that have started since
    ``restart_at`` need not; failures before ``cleared_at`` are not shown any more.
    """

    __tablename__ = "worker_orders"
    __table_args__ = (SCHEMA,)

    service: Mapped[str] = mapped_column(Text, primary_key=True)
    worker: Mapped[str] = mapped_column(Text, primary_key=True)
    paused: Mapped[bool | None]
    restart_at: Mapped[Moment | None]
    cleared_at: Mapped[Moment | None]
