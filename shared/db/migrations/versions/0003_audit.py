"""The audit log, how often keys are used, and letting in again who was locked out."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# Whoever acts as the gateway can have old entries deleted, never young ones, and never some of
# them only: so nobody who has got hold of it can remove their own traces.
FORGET = """
CREATE FUNCTION gateway.forget_audit_logs(older_than timestamptz, at_most integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ''
AS $$
DECLARE
    gone integer;
BEGIN
    DELETE FROM gateway.audit_logs WHERE id IN (
        SELECT id FROM gateway.audit_logs
        WHERE at < least(older_than, pg_catalog.now() - interval '30 days')
        ORDER BY at, id LIMIT at_most
    );
    GET DIAGNOSTICS gone = ROW_COUNT;
    RETURN gone;
END
$$
"""


def upgrade() -> None:
    """Forward."""
    op.create_table(
        "audit_logs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=True),
        sa.Column("actor_type", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=True),
        sa.Column("key_id", sa.Uuid(), nullable=True),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("resource_type", sa.Text(), nullable=False),
        sa.Column("resource_id", sa.Text(), nullable=True),
        sa.Column("before", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("after", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("address", sa.Text(), nullable=True),
        sa.Column("request_id", sa.Text(), nullable=True),
        sa.Column("times", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_logs")),
        schema="gateway",
    )
    op.create_index(
        op.f("ix_audit_logs_at_id"), "audit_logs", ["at", "id"], unique=False, schema="gateway"
    )
    op.create_index(
        op.f("ix_audit_logs_tenant_id_at_id"),
        "audit_logs",
        ["tenant_id", "at", "id"],
        unique=False,
        schema="gateway",
    )
    op.create_index(
        op.f("ix_audit_logs_tenant_id_resource_id_at"),
        "audit_logs",
        ["tenant_id", "resource_id", "at"],
        unique=False,
        schema="gateway",
    )
    for name in ("requests", "successes"):
        op.add_column(
            "instance_keys",
            sa.Column(name, sa.BigInteger(), server_default=sa.text("0"), nullable=False),
            schema="gateway",
        )
    op.add_column(
        "instance_keys", sa.Column("replaced_by", sa.Uuid(), nullable=True), schema="gateway"
    )
    op.add_column(
        "users",
        sa.Column("unlocks", sa.Integer(), server_default=sa.text("0"), nullable=False),
        schema="gateway",
    )
    op.execute(FORGET)


def downgrade() -> None:
    """Back."""
    op.execute("DROP FUNCTION gateway.forget_audit_logs(timestamptz, integer)")
    op.drop_column("users", "unlocks", schema="gateway")
    for name in ("replaced_by", "successes", "requests"):
        op.drop_column("instance_keys", name, schema="gateway")
    op.drop_index(
        op.f("ix_audit_logs_tenant_id_resource_id_at"), table_name="audit_logs", schema="gateway"
    )
    op.drop_index(op.f("ix_audit_logs_tenant_id_at_id"), table_name="audit_logs", schema="gateway")
    op.drop_index(op.f("ix_audit_logs_at_id"), table_name="audit_logs", schema="gateway")
    op.drop_table("audit_logs", schema="gateway")
