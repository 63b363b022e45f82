"""People who operate the platform."""

import sys
from typing import Annotated

import typer
from pydantic import ValidationError

from services.command_line.console import acting_as, fail, run, show
from services.gateway.api.schemas.accounts import Registration
from services.gateway.domain.auditing import SYSTEM, Entry
from services.gateway.domain.passwords import weakness
from services.gateway.domain.permissions import Role
from services.gateway.domain.team import PLATFORM
from services.gateway.store import accounts, audit
from services.gateway.store.accounts import User
from shared.clock import SystemClock
from shared.ids import new_id
from shared.security.passwords import Passwords
from shared.web.problems import fields_of

app = typer.Typer(no_args_is_help=True, help=__doc__)


@app.command()
def create(
    email: Annotated[str, typer.Option(prompt=True, help="What they log in with.")],
    name: Annotated[str, typer.Option(prompt=True)],
    password_stdin: Annotated[
        bool, typer.Option(help="Read the password from standard input instead of asking for it.")
    ] = False,
) -> None:
    """Make an operator, who sees all organizations and changes their plans."""
    password = (
        sys.stdin.readline().rstrip("\n")
        if password_stdin
        else str(typer.prompt("Password", hide_input=True, confirmation_prompt=True))
    )
    try:
        wanted = Registration(email=email, password=password, name=name)
    except ValidationError as error:
        fail("\n".join(f"The {field} {wrong}." for field, wrong in fields_of(error).items()))
    wrong = weakness(wanted.password, email=wanted.email)
    if wrong is not None:
        fail(f"The password {wrong}.")
    run(_create(wanted))


async def _create(wanted: Registration) -> None:
    now = SystemClock().now()
    password_hash = await Passwords().hash(wanted.password)
    user = User(
        id=new_id(),
        tenant_id=PLATFORM,
        email=wanted.email,
        name=wanted.name,
        role=Role.OPERATOR,
        active=True,
        created_at=now,
        password_hash=password_hash,
        joined_at=now,
    )
    entry = Entry(
        id=new_id(),
        at=now,
        tenant_id=PLATFORM,
        actor=SYSTEM,
        action="operator.created",
        resource_type="user",
        resource_id=str(user.id),
        after={"email": user.email, "name": user.name},
    )
    async with acting_as("gateway") as database, database.tx() as tx:
        if not await accounts.add_operator(tx, user):
            fail("This e-mail address has an account already; use another one.")
        await audit.add(tx, entry)
    typer.echo(f"Made the operator {wanted.email}; log in at POST /api/auth/login.")


@app.command("list")
def list_(as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
    """Show who operates the platform."""
    show(run(_all()), ("id", "email", "name", "active"), as_json=as_json)


async def _all() -> list[dict[str, object]]:
    async with acting_as("gateway") as database, database.hot() as connection:
        rows = await connection.fetch(
            "SELECT id, email, name, active FROM gateway.users WHERE role = 'operator'"
            " ORDER BY created_at LIMIT 1000"
        )
    return [dict(row) for row in rows]
