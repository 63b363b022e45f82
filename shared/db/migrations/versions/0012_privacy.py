"""Retention of organizations reaches whatever is left of messages; an index that nothing reads."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward. Whatever dies in between may be done again: what is there already is left."""
    op.create_table(
        "tenant_logs",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("forgotten_through", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", name=op.f("pk_tenant_logs")),
        schema="gateway",
        if_not_exists=True,
    )
    op.create_index(
        "ix_organizations_retention",
        "organizations",
        ["retention_days"],
        schema="gateway",
        postgresql_where=sa.text("retention_days > 0"),
        if_not_exists=True,
    )
    # Names of files that are gone already.
    op.execute(
        "UPDATE gateway.media SET filename = NULL"
        " WHERE deleted_at IS NOT NULL AND filename IS NOT NULL"
    )
    # Outside of any transaction, and patient: waiting like this holds nobody up.
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = '30min'")
        # One that was not built to its end is there, but nobody may use it.
        half_built = op.get_bind().scalar(
            sa.text(
                "SELECT NOT indisvalid FROM pg_index"
                " WHERE indexrelid = to_regclass('gateway.ix_media_erased')"
            )
        )
        if half_built:
            _drop("media", "ix_media_erased")
        op.create_index(
            "ix_media_erased",
            "media",
            ["erased_at"],
            schema="gateway",
            postgresql_where=sa.text("erased_at IS NOT NULL"),
            if_not_exists=True,
            postgresql_concurrently=True,
        )
        _drop("events", "ix_events_time")
        op.execute("RESET lock_timeout")


def downgrade() -> None:
    """Back."""
    with op.get_context().autocommit_block():
        op.create_index(
            "ix_events_time",
            "events",
            ["time"],
            schema="gateway",
            if_not_exists=True,
            postgresql_concurrently=True,
        )
        _drop("media", "ix_media_erased")
    _drop("organizations", "ix_organizations_retention", beside=False)
    op.drop_table("tenant_logs", schema="gateway", if_exists=True)


def _drop(table: str, name: str, *, beside: bool = True) -> None:
    op.drop_index(
        name, table_name=table, schema="gateway", if_exists=True, postgresql_concurrently=beside
    )
