"""Dead letters in a table; workers, and what operators want of them."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005b"
branch_labels = None
depends_on = None


# Literal, not imported: a migration keeps to what was so when it was written.
SCHEMAS = ("gateway", "dispatcher", "sessions", "webhooks", "stats")


def upgrade() -> None:
    """Forward."""
    for schema in SCHEMAS:
        op.create_table(
            "workers",
            sa.Column("id", sa.Uuid(), nullable=False),
            sa.Column("name", sa.Text(), nullable=False),
            sa.Column("state", sa.Text(), nullable=False),
            sa.Column("processing", sa.Integer(), nullable=False),
            sa.Column("completed", sa.BigInteger(), nullable=False),
            sa.Column("failed", sa.BigInteger(), nullable=False),
            sa.Column("throughput", sa.Float(), nullable=False),
            sa.Column("memory", sa.BigInteger(), nullable=False),
            sa.Column("pausable", sa.Boolean(), nullable=False),
            sa.Column("restartable", sa.Boolean(), nullable=False),
            sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
            sa.Column("beat_at", sa.DateTime(timezone=True), nullable=False),
            sa.PrimaryKeyConstraint("id", name=op.f("pk_workers")),
            schema=schema,
        )
    op.create_table(
        "worker_orders",
        sa.Column("service", sa.Text(), nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("paused", sa.Boolean(), nullable=True),
        sa.Column("restart_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("cleared_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("service", "worker", name=op.f("pk_worker_orders")),
        schema="gateway",
    )
    op.create_table(
        "dead_letters",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("message_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=True),
        sa.Column("instance_id", sa.Uuid(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("times", sa.Integer(), nullable=False),
        sa.Column("first_died_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("died_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=True),
        sa.Column("handled", sa.Text(), nullable=True),
        sa.Column("handled_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dead_letters")),
        schema="gateway",
    )
    op.create_index(
        "ix_dead_letters_waiting",
        "dead_letters",
        ["died_at", "id"],
        unique=False,
        schema="gateway",
        postgresql_where=sa.text("handled IS NULL"),
    )
    op.create_index(
        op.f("ix_dead_letters_tenant_id_died_at_id"),
        "dead_letters",
        ["tenant_id", "died_at", "id"],
        unique=False,
        schema="gateway",
    )
    op.create_index(
        "ix_dead_letters_handled",
        "dead_letters",
        ["handled_at"],
        unique=False,
        schema="gateway",
        postgresql_where=sa.text("handled_at IS NOT NULL"),
    )


def downgrade() -> None:
    """Back."""
    op.drop_table("dead_letters", schema="gateway")
    op.drop_table("worker_orders", schema="gateway")
    for schema in SCHEMAS:
        op.drop_table("workers", schema=schema)
