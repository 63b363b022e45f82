"""How much of its plan each tenant has used in a month, and who still counts on a file."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward."""
    op.create_table(
        "message_usage",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("month", sa.Date(), nullable=False),
        sa.Column("accepted", sa.BigInteger(), nullable=False),
        sa.Column("warned_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["tenant_id"],
            ["gateway.organizations.id"],
            name=op.f("fk_message_usage_tenant_id_organizations"),
        ),
        sa.PrimaryKeyConstraint("tenant_id", "month", name=op.f("pk_message_usage")),
        schema="gateway",
        postgresql_with={"fillfactor": "50"},
    )
    op.add_column("media", sa.Column("holders", sa.Integer(), nullable=True), schema="gateway")


def downgrade() -> None:
    """Back."""
    op.drop_column("media", "holders", schema="gateway")
    op.drop_table("message_usage", schema="gateway")
