"""Callbacks: what WhatsApp tells by a POST, until a session has taken it."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward."""
    op.create_table(
        "callbacks",
        sa.Column("sequence", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("instance_id", sa.Uuid(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_callbacks")),
        sa.UniqueConstraint("instance_id", "digest", name=op.f("uq_callbacks_instance_id_digest")),
        schema="sessions",
    )
    op.create_index(
        "ix_callbacks_waiting",
        "callbacks",
        ["instance_id", "sequence"],
        unique=False,
        schema="sessions",
        postgresql_where=sa.text("error IS NULL"),
    )
    op.create_index(
        op.f("ix_callbacks_received_at"),
        "callbacks",
        ["received_at"],
        unique=False,
        schema="sessions",
    )
    # There are no such instances yet, so it is empty and made in a moment.
    op.create_index(
        "ix_instances_callbacks",
        "instances",
        ["settings"],
        unique=False,
        schema="gateway",
        postgresql_using="gin",
        postgresql_ops={"settings": "jsonb_path_ops"},
        postgresql_where=sa.text("engine = 'cloud_api' AND deleted_at IS NULL"),
    )


def downgrade() -> None:
    """Back."""
    op.drop_index("ix_instances_callbacks", table_name="instances", schema="gateway")
    op.drop_table("callbacks", schema="sessions")
