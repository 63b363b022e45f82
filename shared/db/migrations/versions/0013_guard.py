"""What of its guard held a message back, beside until when."""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

TABLES: Final = ("transmissions", "pacing")


def upgrade() -> None:
    """Forward. A column without a default rewrites no row."""
    for table in TABLES:
        op.add_column(
            table,
            sa.Column("paced_by", sa.Text(), nullable=True),
            schema="dispatcher",
            if_not_exists=True,
        )


def downgrade() -> None:
    """Back."""
    for table in TABLES:
        op.drop_column(table, "paced_by", schema="dispatcher", if_exists=True)
