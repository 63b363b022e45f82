"""What alembic runs: one connection, a transaction for each migration, one migrator at a time."""

import asyncio
from datetime import timedelta
from typing import Final

from alembic import context
from sqlalchemy import Connection, pool, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from shared.db.tables import Base
from shared.log import get_logger

log = get_logger()

# Any number will do, as long as every migrator uses the same.
MIGRATION_LOCK: Final = 5_120_261
# Whoever waits for a table holds up everybody who comes later, readers as well.
LOCK_TIMEOUT: Final = "3s"
ATTEMPTS: Final = 40
PAUSE: Final = timedelta(seconds=2)
# Another migrator may be building indexes of millions of rows.
TURN: Final = timedelta(hours=2)
LOOK: Final = timedelta(milliseconds=200)
# PostgreSQL's lock_not_available and deadlock_detected.
REFUSED: Final = frozenset({"55P03", "40P01"})


def migrate(connection: Connection) -> None:
    """Bring the schema up to date. What was done is done, should the next migration fail."""
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        include_schemas=True,
        include_name=lambda name, kind, _parents: kind != "schema" or name in SCHEMAS,
        compare_server_default=False,
        transaction_per_migration=True,
    )
    context.run_migrations()
    connection.commit()
    with connection.begin():
        for statement in context.config.attributes.get("afterwards", ()):
            connection.execute(text(statement))


SCHEMAS = {table.schema for table in Base.metadata.tables.values()}


async def take_turn(connection: AsyncConnection) -> None:
    """Return when no other migrator is at it; replicas that start together take turns.

    Asks again and again instead of waiting for the lock: who waits within a statement is waited for
    in turn, by whoever holds the lock and builds an index beside those that work.
    """
    async with asyncio.timeout(TURN.total_seconds()):
        while True:
            found = await connection.execute(
                text("SELECT pg_try_advisory_lock(:lock)"), {"lock": MIGRATION_LOCK}
            )
            mine = found.scalar_one()
            await connection.commit()
            if mine:
                return
            await asyncio.sleep(LOOK.total_seconds())


async def migrate_patiently(connection: AsyncConnection) -> None:
    """Migrate; where a table is in use for too long, let its users go first, and try again."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            await connection.run_sync(migrate)
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) not in REFUSED or attempt == ATTEMPTS:
                raise
            log.warning("migration_postponed", attempt=attempt, reason=str(error.orig))
            await connection.rollback()
            await asyncio.sleep(PAUSE.total_seconds())
        else:
            return


async def main() -> None:
    """Connect and migrate, with alembic's version table in the default schema."""
    engine = create_async_engine(
        context.config.attributes["url"],
        poolclass=pool.NullPool,
        connect_args={"server_settings": {"lock_timeout": LOCK_TIMEOUT}},
    )
    try:
        async with engine.connect() as connection:
            await take_turn(connection)
            await migrate_patiently(connection)
    finally:
        await engine.dispose()


asyncio.run(main())
