"""What all commands share: a database to act on, and an honest way to end."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, NoReturn, TypeVar

import orjson
import typer
from asyncpg import InvalidAuthorizationSpecificationError, InvalidCatalogNameError
from rich.console import Console
from rich.table import Table
from sqlalchemy.exc import DBAPIError

from services.command_line.settings import CommandLineSettings
from shared import settings
from shared.db.database import Database
from shared.db.tables.grants import role
from shared.errors import PlatformError

T = TypeVar("T")

# What PostgreSQL says about a user, a password or a database that it does not know.
_REFUSED: Final = (InvalidAuthorizationSpecificationError, InvalidCatalogNameError)


def fail(sentence: str) -> NoReturn:
    """Say what is wrong and what to do about it, and end with status 1."""
    typer.echo(sentence, err=True)
    raise typer.Exit(1)


def database_url() -> str:
    """The URL of the database that is meant."""
    url = settings.read(CommandLineSettings).database()
    if url is None:
        fail("Set DATABASE_URL, or start Waypost with 'make run' in this folder first.")
    return url


@asynccontextmanager
async def acting_as(service: str) -> AsyncIterator[Database]:
    """The database, with what this service may do there and nothing more."""
    async with Database.open(
        database_url(), role=role(service), name="waypost-command-line", pool=2, hot=2
    ) as database:
        yield database


def run(work: Coroutine[Any, Any, T]) -> T:
    """Do it; what Waypost refuses or cannot do is told in its own words."""
    try:
        return asyncio.run(work)
    except PlatformError as error:
        fail(str(error))
    except (DBAPIError, *_REFUSED) as error:
        # SQLAlchemy wraps what asyncpg says.
        cause = getattr(getattr(error, "orig", error), "__cause__", None) or error
        if not isinstance(cause, _REFUSED):
            raise
        fail(f"PostgreSQL refuses DATABASE_URL: {cause}.")


def show(rows: Sequence[dict[str, object]], columns: Sequence[str], *, as_json: bool) -> None:
    """Rows as a table for people, or as JSON lines for programs."""
    if as_json:
        for row in rows:
            typer.echo(orjson.dumps(row, default=str).decode())
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*("" if row[column] is None else str(row[column]) for column in columns))
    Console(soft_wrap=True).print(table)
