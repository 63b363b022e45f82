"""What alembic runs: one connection, one transaction, one migrator at a time."""

import asyncio

from alembic import context
from sqlalchemy import Connection, pool, text
from sqlalchemy.ext.asyncio import create_async_engine

from shared.db.tables import Base

# Any number will do, as long as every migrator uses the same.
MIGRATION_LOCK = 5_120_261


def migrate(connection: Connection) -> None:
    """Bring the schema up to date, under a lock: replicas that start together take turns."""
    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK})
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        include_schemas=True,
        include_name=lambda name, kind, _parents: kind != "schema" or name in SCHEMAS,
        compare_server_default=False,
    )
    context.run_migrations()
    for statement in context.config.attributes.get("afterwards", ()):
        connection.execute(text(statement))


SCHEMAS = {table.schema for table in Base.metadata.tables.values()}


async def main() -> None:
    """Connect and migrate, with alembic's version table in the default schema."""
    url = context.config.attributes["url"]
    engine = create_async_engine(url, poolclass=pool.NullPool)
    async with engine.begin() as connection:
        await connection.run_sync(migrate)
    await engine.dispose()


asyncio.run(main())
