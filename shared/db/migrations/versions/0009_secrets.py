"""Secrets of webhooks sealed; those of before stay as they are until they are rotated."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward."""
    op.add_column(
        "webhooks", sa.Column("secret_sealed", sa.LargeBinary(), nullable=True), schema="gateway"
    )
    op.alter_column("webhooks", "secret", nullable=True, schema="gateway")


def downgrade() -> None:
    """Back."""
    op.alter_column("webhooks", "secret", nullable=False, schema="gateway")
    op.drop_column("webhooks", "secret_sealed", schema="gateway")
