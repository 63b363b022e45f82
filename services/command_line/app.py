"""The commands, put together."""

import typer

from services.command_line import operators, sealing
from services.command_line.console import database_url, run
from services.command_line.listing import instances, organizations
from services.command_line.version1 import import_v1
from shared.db import migrate

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Look after a Waypost from a shell. It needs DATABASE_URL, or a running 'make run'.",
)
app.add_typer(operators.app, name="operator")
app.add_typer(sealing.app, name="keys")
app.command()(organizations)
app.command()(instances)
app.command("import-v1")(import_v1)


@app.command("migrate")
def migrate_() -> None:
    """Bring the database to the current schema. May be run any time, by several at once."""
    run(migrate.upgrade(database_url()))
    typer.echo("The database has the current schema.")
