"""Phone mappings; counters by the hour, and chats that wait for an answer."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward."""
    op.create_table(
        "phone_mappings",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("instance_id", sa.Uuid(), nullable=False),
        sa.Column("phone_number", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["instance_id"],
            ["gateway.instances.id"],
            name=op.f("fk_phone_mappings_instance_id"),
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["gateway.users.id"], name=op.f("fk_phone_mappings_user_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_phone_mappings")),
        sa.UniqueConstraint(
            "instance_id", "phone_number", name=op.f("uq_phone_mappings_instance_id_phone_number")
        ),
        schema="gateway",
    )
    op.create_index(
        op.f("ix_phone_mappings_instance_id_id"),
        "phone_mappings",
        ["instance_id", "id"],
        unique=False,
        schema="gateway",
    )
    op.create_table(
        "hourly_counters",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("instance_id", sa.Uuid(), nullable=False),
        sa.Column("hour", sa.DateTime(timezone=True), nullable=False),
        sa.Column("metric", sa.String(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint(
            "tenant_id", "instance_id", "hour", "metric", name=op.f("pk_hourly_counters")
        ),
        schema="stats",
    )
    op.create_index(
        op.f("ix_hourly_counters_hour"), "hourly_counters", ["hour"], unique=False, schema="stats"
    )
    op.create_table(
        "unanswered",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_unanswered")),
        schema="stats",
    )
    op.create_index(
        op.f("ix_unanswered_since"), "unanswered", ["since"], unique=False, schema="stats"
    )


def downgrade() -> None:
    """Back."""
    op.drop_table("unanswered", schema="stats")
    op.drop_table("hourly_counters", schema="stats")
    op.drop_table("phone_mappings", schema="gateway")
