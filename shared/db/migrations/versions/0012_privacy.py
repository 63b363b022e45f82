"""Retention of organizations reaches whatever is left of messages; an index that nothing reads."""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

# Schema, table, name, column and of which rows; of messages those with files alone.
INDEXES: Final = (
    ("gateway", "media", "ix_media_erased", "erased_at", "erased_at IS NOT NULL"),
    ("gateway", "media", "ix_media_held", "held_at", "holders IS NOT NULL AND deleted_at IS NULL"),
    ("dispatcher", "messages", "ix_messages_media_id", "media_id", "media_id IS NOT NULL"),
)


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
    op.add_column(
        "media",
        sa.Column("held_at", sa.DateTime(timezone=True), nullable=True),
        schema="gateway",
        if_not_exists=True,
    )
    op.execute("UPDATE gateway.media SET held_at = created_at WHERE holders IS NOT NULL")
    # Names of files that are gone already.
    op.execute(
        "UPDATE gateway.media SET filename = NULL"
        " WHERE deleted_at IS NOT NULL AND filename IS NOT NULL"
    )
    # Outside of any transaction, and patient: waiting like this holds nobody up.
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = '30min'")
        for schema, table, name, column, where in INDEXES:
            # One that was not built to its end is there, but nobody may use it.
            half_built = op.get_bind().scalar(
                sa.text(
                    "SELECT NOT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)"
                ),
                {"name": f"{schema}.{name}"},
            )
            if half_built:
                _drop(schema, table, name)
            op.create_index(
                name,
                table,
                [column],
                schema=schema,
                postgresql_where=sa.text(where),
                if_not_exists=True,
                postgresql_concurrently=True,
            )
        _drop("gateway", "events", "ix_events_time")
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
        for schema, table, name, _, _ in reversed(INDEXES):
            _drop(schema, table, name)
    op.drop_column("media", "held_at", schema="gateway", if_exists=True)
    op.drop_index(
        "ix_organizations_retention", table_name="organizations", schema="gateway", if_exists=True
    )
    op.drop_table("tenant_logs", schema="gateway", if_exists=True)


def _drop(schema: str, table: str, name: str) -> None:
    op.drop_index(
        name, table_name=table, schema=schema, if_exists=True, postgresql_concurrently=True
    )
