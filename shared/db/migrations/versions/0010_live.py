"""When events were logged, and up to where the log has been forgotten."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward."""
    op.create_table(
        "event_log",
        sa.Column("id", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("forgotten_through", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_event_log")),
        schema="gateway",
    )
    # Of rows that are there already it says when they were found: they stay so much longer.
    op.add_column(
        "events",
        sa.Column(
            "logged_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        schema="gateway",
    )


def downgrade() -> None:
    """Back."""
    op.drop_column("events", "logged_at", schema="gateway")
    op.drop_table("event_log", schema="gateway")
