"""Brings a database to the current schema: ``python -m shared.db.migrate``."""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from alembic import command
from alembic.config import Config
from pydantic import AliasChoices, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy.exc import DBAPIError

from shared import settings
from shared.db.database import AWAY, sqlalchemy_url
from shared.db.tables import grants
from shared.errors import Transient

MIGRATIONS = Path(__file__).parent / "migrations"


class MigrateSettings(BaseSettings):
    """Where the database is. The user must be able to create schemas and roles."""

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", populate_by_name=True, env_ignore_empty=True
    )

    database_url: SecretStr = Field(validation_alias=AliasChoices("database_url", "DATABASE_URL"))


def config(url: str) -> Config:
    """Alembic's configuration, without a file of its own."""
    made = Config()
    made.set_main_option("script_location", str(MIGRATIONS))
    made.attributes["url"] = sqlalchemy_url(url)
    return made


async def upgrade(url: str) -> None:
    """Apply what is missing, then the grants. Several may do so at once: they take turns.

    Raises ``Transient`` if the database is away; what was done by then is done.
    """
    made = config(url)
    made.attributes["afterwards"] = grants.statements()
    try:
        await asyncio.to_thread(command.upgrade, made, "head")
    except AWAY as error:
        raise _away(error) from error
    except DBAPIError as error:
        if not isinstance(getattr(error.orig, "__cause__", None), AWAY):
            raise
        raise _away(error) from error


def _away(error: Exception) -> Transient:
    return Transient(f"The database is not available ({type(error).__name__}); try again shortly.")


def main(arguments: Sequence[str]) -> None:
    """Migrate; or draft a migration (``revision "what it does"``), or look for one (``check``)."""
    url = settings.read(MigrateSettings).database_url.get_secret_value()
    match list(arguments):
        case []:
            asyncio.run(upgrade(url))
        case ["revision", message]:
            command.revision(config(url), message=message, autogenerate=True)
        case ["check"]:
            command.check(config(url))
        case _:
            raise SystemExit('usage: python -m shared.db.migrate [check | revision "message"]')


if __name__ == "__main__":
    main(sys.argv[1:])
