"""Content that is sealed, searched, masked and forgotten as each organization wants it."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward."""
    op.add_column(
        "organizations",
        sa.Column("content_storage", sa.Text(), server_default=sa.text("'none'"), nullable=False),
        schema="gateway",
    )
    op.add_column(
        "organizations",
        sa.Column("content_storage_since", sa.DateTime(timezone=True), nullable=True),
        schema="gateway",
    )
    op.add_column(
        "organizations",
        sa.Column("retention_days", sa.Integer(), server_default=sa.text("0"), nullable=False),
        schema="gateway",
    )
    op.add_column(
        "organizations",
        sa.Column("pii_masking", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        schema="gateway",
    )
    # Whoever is here already has a history, and nobody has asked for it to be erased.
    op.execute("UPDATE gateway.organizations SET content_storage = 'encrypted'")
    op.add_column(
        "media",
        sa.Column("passing", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        schema="gateway",
    )

    op.alter_column("messages", "content", nullable=True, schema="dispatcher")
    op.add_column(
        "messages", sa.Column("sealed", sa.LargeBinary(), nullable=True), schema="dispatcher"
    )
    op.add_column(
        "messages",
        sa.Column("words", postgresql.ARRAY(sa.BigInteger()), nullable=True),
        schema="dispatcher",
    )
    op.add_column("messages", sa.Column("media_id", sa.Uuid(), nullable=True), schema="dispatcher")
    op.create_table(
        "message_words",
        sa.Column("word", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("sequence", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("word", "sequence", name=op.f("pk_message_words")),
        schema="dispatcher",
    )
    op.create_table(
        "erasures",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("upto", sa.BigInteger(), nullable=False),
        sa.Column("erased", sa.BigInteger(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("tenant_id", name=op.f("pk_erasures")),
        schema="dispatcher",
    )

    op.alter_column("deliveries", "body", nullable=True, schema="webhooks")
    op.add_column(
        "attempts", sa.Column("sealed_response", sa.LargeBinary(), nullable=True), schema="webhooks"
    )
    op.add_column(
        "inbound_media",
        sa.Column("sealed_handle", sa.LargeBinary(), nullable=True),
        schema="sessions",
    )


def downgrade() -> None:
    """Back. What was sealed cannot be read any more: an earlier version has no keys."""
    op.drop_column("inbound_media", "sealed_handle", schema="sessions")
    op.drop_column("attempts", "sealed_response", schema="webhooks")
    op.execute("DELETE FROM webhooks.deliveries WHERE body IS NULL OR get_byte(body, 0) = 2")
    op.alter_column("deliveries", "body", nullable=False, schema="webhooks")
    op.execute("DELETE FROM gateway.events WHERE get_byte(body, 0) = 2")
    op.drop_table("erasures", schema="dispatcher")
    op.drop_table("message_words", schema="dispatcher")
    op.drop_column("messages", "media_id", schema="dispatcher")
    op.drop_column("messages", "words", schema="dispatcher")
    op.drop_column("messages", "sealed", schema="dispatcher")
    op.execute(
        "UPDATE dispatcher.messages SET content = jsonb_build_object('kind', type)"
        " WHERE content IS NULL"
    )
    op.alter_column("messages", "content", nullable=False, schema="dispatcher")
    op.drop_column("media", "passing", schema="gateway")
    op.drop_column("organizations", "pii_masking", schema="gateway")
    op.drop_column("organizations", "retention_days", schema="gateway")
    op.drop_column("organizations", "content_storage_since", schema="gateway")
    op.drop_column("organizations", "content_storage", schema="gateway")
