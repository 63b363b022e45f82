"""Indexes of content, built beside those that work, since messages may be millions."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import sqlalchemy as sa
from alembic import op

revision = "0005b"
down_revision = "0005"
branch_labels = None
depends_on = None

# Schema, table, name, columns, and what else there is to say.
INDEXES: Final[tuple[tuple[str, str, str, list[str], dict[str, Any]], ...]] = (
    (
        "gateway",
        "media",
        "ix_media_passing",
        ["created_at"],
        {"postgresql_where": sa.text("passing AND deleted_at IS NULL")},
    ),
    (
        "dispatcher",
        "messages",
        "ix_messages_unsealed",
        ["id"],
        {"postgresql_where": sa.text("content IS NOT NULL")},
    ),
    (
        "dispatcher",
        "messages",
        "ix_messages_unindexed",
        ["sequence"],
        {"postgresql_where": sa.text("words = '{}'::bigint[]")},
    ),
    (
        "dispatcher",
        "messages",
        "ix_messages_tenant_id_chat_sequence",
        ["tenant_id", "chat", "sequence"],
        {},
    ),
    (
        "dispatcher",
        "messages",
        "ix_messages_kind",
        ["tenant_id", "type", "sequence"],
        {"postgresql_where": sa.text("type <> 'text'")},
    ),
    (
        "dispatcher",
        "messages",
        "ix_messages_ended",
        ["tenant_id", "status", "sequence"],
        {"postgresql_where": sa.text("status IN ('failed', 'canceled')")},
    ),
    (
        "dispatcher",
        "messages",
        "ix_messages_created_at",
        ["created_at"],
        {
            "postgresql_using": "brin",
            "postgresql_with": {"pages_per_range": "32", "autosummarize": "on"},
        },
    ),
)


def upgrade() -> None:
    """Forward. Whatever dies in between may be done again: what is there already is left."""
    with beside_those_that_work():
        for schema, table, name, columns, more in INDEXES:
            # One that was not built to its end is there, but nobody may use it.
            half_built = op.get_bind().scalar(
                sa.text(
                    "SELECT NOT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)"
                ),
                {"name": f"{schema}.{name}"},
            )
            if half_built:
                drop(schema, table, name)
            op.create_index(
                name,
                table,
                columns,
                schema=schema,
                unique=False,
                if_not_exists=True,
                postgresql_concurrently=True,
                **more,
            )


def downgrade() -> None:
    """Back."""
    with beside_those_that_work():
        for schema, table, name, _, _ in reversed(INDEXES):
            drop(schema, table, name)


def drop(schema: str, table: str, name: str) -> None:
    """Drop an index without stopping who uses its table."""
    op.drop_index(
        name, table_name=table, schema=schema, if_exists=True, postgresql_concurrently=True
    )


@contextmanager
def beside_those_that_work() -> Iterator[None]:
    """Outside of any transaction, and patient: waiting like this holds nobody up."""
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = '30min'")
        try:
            yield
        finally:
            op.execute("RESET lock_timeout")
