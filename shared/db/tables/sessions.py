"""The session service's tables: who owns which shard, each session, and the sandbox's world."""

from uuid import UUID

from sqlalchemy import Index, SmallInteger, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from shared.db.tables.base import (
    Base,
    Big,
    Id,
    Json,
    Moment,
    OutboxColumns,
    Ref,
    Sequence,
    Small,
    Word,
    WorkerColumns,
)

SCHEMA = {"schema": "sessions"}


class ShardRow(Base):
    """A lease on one shard. Only the database's clock decides; ``epoch`` fences whoever lost it."""

    __tablename__ = "shards"
    __table_args__ = (SCHEMA,)

    id: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    owner: Mapped[Word | None]
    epoch: Mapped[Big]
    lease_until: Mapped[Moment]


class ReplicaRow(Base):
    """A live session process; its share of the shards depends on how many there are."""

    __tablename__ = "replicas"
    __table_args__ = (SCHEMA,)

    id: Mapped[str] = mapped_column(primary_key=True)
    started_at: Mapped[Moment]
    heartbeat_at: Mapped[Moment]
    draining: Mapped[bool]


class SessionStateRow(Base):
    """What is so with an instance's connection; written by its shard's owner under the epoch."""

    __tablename__ = "session_states"
    __table_args__ = (SCHEMA,)

    instance_id: Mapped[Id]
    tenant_id: Mapped[Ref]
    shard: Mapped[Small]
    epoch: Mapped[Big]
    version: Mapped[Big]
    status: Mapped[Word]
    phone_number: Mapped[Word | None]
    device_info: Mapped[Json | None]
    since: Mapped[Moment]
    last_error: Mapped[Word | None]
    qr_code: Mapped[Word | None]
    qr_expires_at: Mapped[Moment | None]


class HandoverRow(Base):
    """A transmission that was handed to an engine: inserted before the wire, settled after it.

    Its primary key is what makes a repeated command harmless; its open rows are what a new owner
    settles as unknown.
    """

    __tablename__ = "handovers"
    __table_args__ = (
        Index(None, "instance_id", "engine_message_id"),
        Index("ix_handovers_open", "shard", postgresql_where=text("outcome IS NULL")),
        Index(None, "handed_over_at"),
        SCHEMA,
    )

    transmission_id: Mapped[Id]
    message_id: Mapped[Ref]
    tenant_id: Mapped[Ref]
    instance_id: Mapped[Ref]
    shard: Mapped[Small]
    epoch: Mapped[Big]
    engine_message_id: Mapped[Word]
    handed_over_at: Mapped[Moment]
    outcome: Mapped[Word | None]
    settled_at: Mapped[Moment | None]


class InboundRow(Base):
    """An inbound stanza that has been recorded: once more, it is acknowledged and forgotten."""

    __tablename__ = "inbound"
    __table_args__ = (Index(None, "seen_at"), SCHEMA)

    instance_id: Mapped[UUID] = mapped_column(primary_key=True)
    stanza_key: Mapped[str] = mapped_column(primary_key=True)
    seen_at: Mapped[Moment]


class DeviceRow(Base):
    """The linked device of an instance; its keys are in the engine's own schema, ``whatsmeow``.

    ``address`` is WhatsApp's name of the device, by which its session is resumed.
    """

    __tablename__ = "devices"
    __table_args__ = (SCHEMA,)

    instance_id: Mapped[Id]
    tenant_id: Mapped[Ref]
    shard: Mapped[Small]
    epoch: Mapped[Big]
    address: Mapped[Word]
    lid: Mapped[Word | None]
    paired_at: Mapped[Moment]


class InboundMediaRow(Base):
    """A file that somebody sent to an instance, fetched after the message was told of.

    ``id`` is the ``mediaId`` of the message's content. ``sealed_handle`` is how the engine finds
    and decrypts the file, and is erased with the last attempt; ``handle`` is the same of rows from
    before there was a key ring. ``status`` is waiting, stored or failed.
    """

    __tablename__ = "inbound_media"
    __table_args__ = (
        Index("ix_inbound_media_due", "shard", "due_at", postgresql_where=text("status='waiting'")),
        Index(None, "tenant_id", "created_at", "id"),
        Index(None, "sha256"),
        SCHEMA,
    )

    id: Mapped[Id]
    tenant_id: Mapped[Ref]
    instance_id: Mapped[Ref]
    shard: Mapped[Small]
    engine_message_id: Mapped[Word]
    handle: Mapped[Json | None]
    sealed_handle: Mapped[bytes | None]
    mime_type: Mapped[Word]
    filename: Mapped[Word | None]
    size: Mapped[Big | None]
    sha256: Mapped[Word | None]
    status: Mapped[Word]
    error: Mapped[Word | None]
    attempts: Mapped[Small] = mapped_column(server_default=text("0"))
    due_at: Mapped[Moment]
    created_at: Mapped[Moment]
    stored_at: Mapped[Moment | None]


class CallbackRow(Base):
    """What WhatsApp has told an instance by a POST, kept until its session has taken it.

    The gateway adds it, once for each ``digest``; ``sequence`` is the order in which they came. One
    that cannot be read has an ``error`` and stays for whoever looks into it.
    """

    __tablename__ = "callbacks"
    __table_args__ = (
        UniqueConstraint("instance_id", "digest"),
        Index(
            "ix_callbacks_waiting",
            "instance_id",
            "sequence",
            postgresql_where=text("error IS NULL"),
        ),
        Index(None, "received_at"),
        SCHEMA,
    )

    sequence: Mapped[Sequence]
    id: Mapped[Ref]
    tenant_id: Mapped[Ref]
    instance_id: Mapped[Ref]
    digest: Mapped[bytes]
    sealed: Mapped[bytes]
    received_at: Mapped[Moment]
    error: Mapped[Word | None]


class NumberRow(Base):
    """What was last heard of a number: whether it is on WhatsApp, and under which address."""

    __tablename__ = "numbers"
    __table_args__ = (Index(None, "checked_at"), SCHEMA)

    tenant_id: Mapped[Id]
    engine: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[str] = mapped_column(primary_key=True)
    on_whatsapp: Mapped[bool]
    address: Mapped[Word | None]
    checked_at: Mapped[Moment]


class ProxyRow(Base):
    """Which proxy of the pool an instance was given; it keeps it until connecting by it fails."""

    __tablename__ = "proxies"
    __table_args__ = (SCHEMA,)

    instance_id: Mapped[Id]
    tenant_id: Mapped[Ref]
    proxy: Mapped[Word]
    failures: Mapped[Small] = mapped_column(server_default=text("0"))
    assigned_at: Mapped[Moment]


class SessionsOutboxRow(OutboxColumns, Base):
    """What the session service has promised to tell."""

    __tablename__ = "outbox"
    __table_args__ = (SCHEMA,)


class SandboxAccountRow(Base):
    """A number of the sandbox's WhatsApp and the instance that has linked it.

    Each tenant has a WhatsApp of its own, so that two of them may play with the same number.
    """

    __tablename__ = "sandbox_accounts"
    __table_args__ = (Index(None, "instance_id"), SCHEMA)

    tenant_id: Mapped[Id]
    phone: Mapped[str] = mapped_column(primary_key=True)
    instance_id: Mapped[Ref]
    linked_at: Mapped[Moment]


class SandboxWireRow(Base):
    """Every message that was put on the sandbox's wire, in order: the witness that tests ask.

    Like WhatsApp, the sandbox drops a message whose id it knows; ``replays`` counts how often.
    """

    __tablename__ = "sandbox_wire"
    __table_args__ = (UniqueConstraint("instance_id", "engine_message_id"), SCHEMA)

    id: Mapped[Sequence]
    instance_id: Mapped[Ref]
    shard: Mapped[Small]
    epoch: Mapped[Big]
    engine_message_id: Mapped[Word]
    sender: Mapped[Word]
    recipient: Mapped[Word]
    body: Mapped[Json]
    at: Mapped[Moment]
    replays: Mapped[Small] = mapped_column(server_default=text("0"))


class SandboxRefusalRow(Base):
    """How often the sandbox has refused a message for the moment; some numbers do so first."""

    __tablename__ = "sandbox_refusals"
    __table_args__ = (SCHEMA,)

    instance_id: Mapped[Id]
    engine_message_id: Mapped[str] = mapped_column(primary_key=True)
    refused: Mapped[Small]
    refused_at: Mapped[Moment]


class SandboxStanzaRow(Base):
    """What the sandbox's server has for an account: given out when due, kept until acknowledged."""

    __tablename__ = "sandbox_stanzas"
    __table_args__ = (Index(None, "instance_id", "due_at"), SCHEMA)

    id: Mapped[Sequence]
    instance_id: Mapped[Ref]
    due_at: Mapped[Moment]
    body: Mapped[dict[str, object]] = mapped_column(JSONB)


class SandboxGroupRow(Base):
    """A group of the sandbox's WhatsApp. ``members`` maps digits of numbers to roles."""

    __tablename__ = "sandbox_groups"
    __table_args__ = (SCHEMA,)

    tenant_id: Mapped[Id]
    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[Word]
    members: Mapped[Json]
    invite: Mapped[Word]
    created_at: Mapped[Moment]


class SessionsWorkerRow(WorkerColumns, Base):
    """A process of this service."""

    __tablename__ = "workers"
    __table_args__ = (SCHEMA,)
