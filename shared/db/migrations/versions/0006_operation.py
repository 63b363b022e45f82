"""Dead letters in a table."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward."""
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
