"""Coming from version 1: its clients become instances that wait to be paired."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated
from uuid import UUID

import orjson
import typer
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from services.command_line.console import acting_as, fail, run
from services.gateway.api.schemas.fields import PhoneNumber
from services.gateway.domain.auditing import SYSTEM, Entry
from services.gateway.domain.engines import ENGINES
from services.gateway.domain.plans import PLANS
from services.gateway.domain.principal import Scope
from services.gateway.store import accounts, audit, instances
from services.gateway.store.instances import Instance
from shared.clock import SystemClock
from shared.contracts.capabilities import Capability
from shared.db.tables.gateway import InstanceRow
from shared.ids import new_id
from shared.web.problems import fields_of

LARGEST = 10 * 1024 * 1024


class Client(BaseModel):
    """A client as version 1 backed it up; what else it says has no meaning here."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True, populate_by_name=True)

    name: str = Field(min_length=1, max_length=100)
    phone: PhoneNumber = Field(validation_alias=AliasChoices("phone", "phoneNumber", "number"))


def import_v1(
    backup: Annotated[Path, typer.Argument(help="clients-backup.json of version 1.")],
    organization: Annotated[UUID, typer.Option(help="Whose they become, by id.")],
    engine: Annotated[str, typer.Option(help="How they will reach WhatsApp.")] = "whatsmeow",
    dry_run: Annotated[bool, typer.Option(help="Only say what would be done.")] = False,
) -> None:
    """Make an instance, to be paired, of every client in a backup of version 1.

    A client whose number an instance of the organization has already is left out, so that it may
    be run again. Either all of the file is imported or nothing.
    """
    # The clients of version 1 were paired with phones, and so must these be.
    known = sorted(name for name, one in ENGINES.items() if Capability.QR in one.capabilities)
    if engine not in known:
        fail(f"There is no engine {engine!r}; there are: {', '.join(known)}.")
    clients = _read(backup)
    run(_import(clients, organization, engine, dry_run=dry_run))


def _read(backup: Path) -> list[Client]:
    try:
        if backup.stat().st_size > LARGEST:
            fail(f"{backup} is larger than {LARGEST} bytes; split it.")
        found = orjson.loads(backup.read_bytes())
    except OSError as error:
        fail(f"{backup} cannot be read: {error.strerror}.")
    except orjson.JSONDecodeError as error:
        fail(f"{backup} is not JSON: {error}.")
    listed = found.get("clients") if isinstance(found, dict) else found
    if not isinstance(listed, list):
        fail(f'{backup} must hold an array of clients, or {{"clients": […]}}.')
    clients, problems = [], []
    for number, item in enumerate(listed, 1):
        try:
            clients.append(Client.model_validate(item))
        except ValidationError as error:
            wrong = "; ".join(f"{field} {what}" for field, what in fields_of(error).items())
            problems.append(f"client {number}: {wrong}")
    if problems:
        fail("Nothing was imported:\n  " + "\n  ".join(problems))
    return clients


async def _import(
    clients: Sequence[Client], organization: UUID, engine: str, *, dry_run: bool
) -> None:
    now = SystemClock().now()
    async with acting_as("gateway") as database, database.tx() as tx:
        known = await _numbers(tx, organization)
        new: dict[str, Client] = {}
        for client in clients:
            if client.phone not in known:
                new.setdefault(client.phone, client)
        await _require_room(tx, organization, len(new))
        for client in [] if dry_run else new.values():
            await instances.add(
                tx,
                Instance(
                    id=new_id(),
                    tenant_id=organization,
                    name=client.name,
                    engine=engine,
                    phone_number=client.phone,
                    settings={},
                    guard=ENGINES[engine].guard.stored,
                    shard=await instances.least_loaded_shard(tx),
                    connected=False,
                    created_at=now,
                    updated_at=now,
                ),
            )
        if new and not dry_run:
            await audit.add(tx, _entry(organization, list(new.values()), now))
    verb = "Would make" if dry_run else "Made"
    typer.echo(
        f"{verb} {len(new)} instances; {len(clients) - len(new)} were there already."
        + ("" if dry_run else " Pair each: POST /api/instances/{id}/connect, then its QR code.")
    )


def _entry(organization: UUID, clients: Sequence[Client], now: datetime) -> Entry:
    return Entry(
        id=new_id(),
        at=now,
        tenant_id=organization,
        actor=SYSTEM,
        action="instances.imported",
        resource_type="organization",
        resource_id=str(organization),
        after={"instances": [client.name for client in clients]},
    )


async def _numbers(tx: AsyncConnection, organization: UUID) -> set[str]:
    rows = await tx.execute(
        select(InstanceRow.phone_number).where(*instances.visible(Scope(organization)))
    )
    return {number for (number,) in rows if number is not None}


async def _require_room(tx: AsyncConnection, organization: UUID, wanted: int) -> None:
    found = await accounts.organization(tx, organization, lock=True)
    if found is None:
        fail("There is no such organization; 'waypost organizations' lists them.")
    plan = PLANS[found.plan]
    used = await instances.count(tx, organization)
    if used + wanted > plan.instances:
        fail(
            f"The plan {plan.name} has {plan.instances} instances, {used} are used, and {wanted}"
            " would come: give the organization a larger plan first. Nothing was imported."
        )
