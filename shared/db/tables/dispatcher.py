"""The dispatcher's tables: messages, their transmissions, and the pace of each instance."""

from uuid import UUID

from sqlalchemy import BigInteger, Identity, Index, text
from sqlalchemy.dialects.postgresql import ARRAY
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

SCHEMA = {"schema": "dispatcher"}


class MessageRow(Base):
    """What somebody wants said, or has said to us.

    ``sequence`` is the order in which messages were accepted. ``transmission_id`` is set while one
    is in flight. ``parked`` keeps a message out of the claim index while an earlier one of its chat
    is in line; settling that one unparks it. ``due_at`` is when it may next be tried, or when an
    unconfirmed one is given up. ``priority`` is 0 high, 1 normal, 2 low. ``target_id`` is the
    message that a reaction, an edit or a revocation is about; ``edited_at`` and ``revoked_at`` are
    when one has been changed so. ``engine_message_id`` is what was allocated for the wire until the
    engine has said which it used.

    ``sealed`` is what it says, readable only with the key ring; ``content`` is the same of rows
    from before there was one, until they are sealed. Both are null once it is erased.
    ``media_id`` is the file that it carries. ``words`` are keyed hashes of its words, as they stand
    in ``message_words``; empty while it waits to be indexed, and null if nobody may search it.
    """

    __tablename__ = "messages"
    __table_args__ = (
        Index(
            "ix_messages_ready",
            "instance_id",
            "priority",
            "sequence",
            postgresql_where=text(
                "status IN ('queued', 'retrying') AND transmission_id IS NULL AND NOT parked"
            ),
        ),
        Index(
            "ix_messages_line",
            "instance_id",
            "chat",
            "priority",
            "sequence",
            postgresql_where=text("status IN ('queued', 'sending', 'retrying')"),
        ),
        Index(
            "ix_messages_parked",
            "instance_id",
            "chat",
            "priority",
            "sequence",
            postgresql_where=text("parked AND status IN ('queued', 'retrying')"),
        ),
        Index(
            "ix_messages_due",
            "due_at",
            postgresql_where=text("status IN ('scheduled', 'unconfirmed')"),
        ),
        Index(
            "ix_messages_expiring",
            "expires_at",
            postgresql_where=text("status IN ('scheduled', 'queued', 'retrying')"),
        ),
        # What was said about a message later: few are, so that all others cost this index nothing.
        Index(
            "ix_messages_target",
            "target_id",
            "sequence",
            postgresql_where=text("target_id IS NOT NULL"),
        ),
        Index("ix_messages_media_id", "media_id", postgresql_where=text("media_id IS NOT NULL")),
        # Both are empty but for moments: what is done leaves them.
        Index("ix_messages_unsealed", "id", postgresql_where=text("content IS NOT NULL")),
        Index("ix_messages_unindexed", "sequence", postgresql_where=text("words = '{}'::bigint[]")),
        # Lists are in the order of acceptance: an inbound message's id is not made of its time.
        Index(None, "tenant_id", "sequence"),
        Index(None, "instance_id", "sequence"),
        Index(None, "tenant_id", "chat", "sequence"),
        # What few messages are: most pay nothing for these two.
        Index(
            "ix_messages_kind",
            "tenant_id",
            "type",
            "sequence",
            postgresql_where=text("type <> 'text'"),
        ),
        Index(
            "ix_messages_ended",
            "tenant_id",
            "status",
            "sequence",
            postgresql_where=text("status IN ('failed', 'canceled')"),
        ),
        # Rows lie nearly in the order of their times, so a few bytes for each 32 pages find a day.
        Index(
            "ix_messages_created_at",
            "created_at",
            postgresql_using="brin",
            postgresql_with={"pages_per_range": "32", "autosummarize": "on"},
        ),
        # Status and receipts change most rows four times; room on the page keeps half of it cheap.
        {"schema": "dispatcher", "postgresql_with": {"fillfactor": "80"}},
    )

    id: Mapped[Id]
    tenant_id: Mapped[Ref]
    instance_id: Mapped[Ref]
    shard: Mapped[Small]
    direction: Mapped[Word]
    chat: Mapped[Word]
    sender: Mapped[Word]
    recipient: Mapped[Word]
    type: Mapped[Word]
    content: Mapped[Json | None]
    sealed: Mapped[bytes | None]
    words: Mapped[list[int] | None] = mapped_column(ARRAY(BigInteger))
    media_id: Mapped[UUID | None]
    identity: Mapped[Json | None]
    metadata_: Mapped[Json | None] = mapped_column("metadata")
    status: Mapped[Word]
    priority: Mapped[Small]
    sequence: Mapped[int] = mapped_column(BigInteger, Identity(always=True))
    parked: Mapped[bool] = mapped_column(server_default=text("false"))
    attempts: Mapped[Small] = mapped_column(server_default=text("0"))
    transmission_id: Mapped[UUID | None]
    engine_message_id: Mapped[Word | None]
    on_unknown: Mapped[Word]
    error_code: Mapped[Word | None]
    error_message: Mapped[Word | None]
    request_id: Mapped[Word | None]
    due_at: Mapped[Moment]
    expires_at: Mapped[Moment]
    created_at: Mapped[Moment]
    sent_at: Mapped[Moment | None]
    delivered_at: Mapped[Moment | None]
    read_at: Mapped[Moment | None]
    failed_at: Mapped[Moment | None]
    target_id: Mapped[UUID | None]
    edited_at: Mapped[Moment | None]
    revoked_at: Mapped[Moment | None]


class MessageWordRow(Base):
    """That a message holds a word: the index behind searches, read from its newest end.

    ``word`` is a hash under a key of the tenant's, so no two tenants share one and none can be
    guessed; ``sequence`` is the message's.
    """

    __tablename__ = "message_words"
    __table_args__ = (SCHEMA,)

    word: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    sequence: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)


class ErasureRow(Base):
    """How far a tenant's history has been erased, since it chose that none is kept.

    Everything up to message ``upto`` is; ``since`` is the choice that this is about.
    """

    __tablename__ = "erasures"
    __table_args__ = (SCHEMA,)

    tenant_id: Mapped[Id]
    since: Mapped[Moment]
    upto: Mapped[Big]
    erased: Mapped[Big]
    started_at: Mapped[Moment]
    finished_at: Mapped[Moment | None]


class TransmissionRow(Base):
    """One hand-over of a message to an engine.

    ``paced_until`` is until when the instance's guard made it wait, and ``paced_by`` what of it:
    ``limits``, ``pauses`` or ``quiet_hours``, or ``whatsapp``, which asked to slow down.
    """

    __tablename__ = "transmissions"
    __table_args__ = (
        Index(None, "message_id"),
        Index(None, "instance_id", "created_at"),
        Index(
            "ix_transmissions_open",
            "instance_id",
            "published_at",
            postgresql_where=text("outcome IS NULL"),
        ),
        SCHEMA,
    )

    id: Mapped[Id]
    message_id: Mapped[Ref]
    instance_id: Mapped[Ref]
    shard: Mapped[Small]
    attempt: Mapped[Small]
    created_at: Mapped[Moment]
    published_at: Mapped[Moment]
    paced_until: Mapped[Moment | None]
    paced_by: Mapped[Word | None]
    outcome: Mapped[Word | None]
    code: Mapped[Word | None]
    detail: Mapped[Word | None]
    settled_at: Mapped[Moment | None]


class PacingRow(Base):
    """The lock for claiming an instance's messages, and until when what of its guard holds it back.

    ``paced_by`` is as in ``transmissions``.
    """

    __tablename__ = "pacing"
    __table_args__ = (SCHEMA,)

    instance_id: Mapped[Id]
    paced_until: Mapped[Moment | None]
    paced_by: Mapped[Word | None]
    throttled_until: Mapped[Moment | None]


class DispatcherOutboxRow(OutboxColumns, Base):
    """What the dispatcher has promised to tell."""

    __tablename__ = "outbox"
    __table_args__ = (SCHEMA,)


class DispatcherWorkerRow(WorkerColumns, Base):
    """A process of this service."""

    __tablename__ = "workers"
    __table_args__ = (SCHEMA,)
