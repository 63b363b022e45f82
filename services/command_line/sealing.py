"""The keys that seal content: which are in use, and changing to a new one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final
from uuid import UUID

import orjson
import typer

from services.command_line.console import acting_as, fail, run, show
from services.command_line.settings import CommandLineSettings
from services.gateway.domain.engines import VERIFY_DIGEST, VERIFY_TOKEN
from services.gateway.domain.proxies import masked
from shared import settings
from shared.db.database import HotConnection
from shared.security.sealing import (
    NOBODY,
    Key,
    KeyRing,
    Place,
    Unsealable,
    is_current_text,
    is_sealed,
    lookup_digests,
    open_text,
    proxy_place,
    seal_text,
    setting_place,
)
from shared.security.signatures import SECRETS

app = typer.Typer(no_args_is_help=True, help=__doc__)

BATCH: Final = 500


@dataclass(frozen=True, slots=True)
class Column:
    """Where something is sealed: whose service's, and what names the row in its ``Place``.

    ``keys`` is the table's primary key, the column that names the row first. ``plain`` is where the
    same stands that an earlier version did not seal, ``tenant`` whose it is. ``place`` is what the
    place calls the table, if not by its name. ``before`` is done for the ids of rows that are about
    to change, and ``also`` is what else changes with them.
    """

    service: str
    table: str
    column: str
    keys: tuple[str, ...] = ("id",)
    plain: str | None = None
    tenant: str = "tenant_id"
    place: str = ""
    before: str = ""
    also: str = ""


# The index of words is made with the key that seals as well: the dispatcher makes it anew.
_FORGET_WORDS: Final = """
    DELETE FROM dispatcher.message_words w
    USING dispatcher.messages m, unnest(m.words) AS gone (word)
    WHERE m.id = ANY ($1::uuid[]) AND w.word = gone.word AND w.sequence = m.sequence
"""
_UNINDEXED: Final = "SELECT count(*) FROM dispatcher.messages WHERE words = '{}'::bigint[]"


def _outbox(service: str) -> Column:
    # A row belongs to nobody, wherever it waits for the broker.
    return Column(
        service,
        f"{service}.outbox",
        "body",
        keys=("id", "seq"),
        tenant="NULL::uuid",
        place="outbox",
    )


# Answers that are kept for an Idempotency-Key are not here: nobody but who knows that key can open
# them, and they are gone after a day.
COLUMNS: Final = (
    Column(
        "dispatcher",
        "dispatcher.messages",
        "sealed",
        before=_FORGET_WORDS,
        also=", words = CASE WHEN words IS NOT NULL THEN '{}'::bigint[] END",
    ),
    Column("gateway", "gateway.events", "body"),
    Column("gateway", SECRETS, "secret_sealed", plain="secret"),
    Column("gateway", "gateway.dead_letters", "sealed"),
    Column("sessions", "sessions.inbound_media", "sealed_handle"),
    Column("sessions", "sessions.callbacks", "sealed", keys=("id", "sequence")),
    Column("webhooks", "webhooks.deliveries", "body"),
    Column(
        "webhooks",
        "webhooks.attempts",
        "sealed_response",
        keys=("delivery_id", "number"),
        tenant="(SELECT d.tenant_id FROM webhooks.deliveries d WHERE d.id = delivery_id)",
    ),
    *map(_outbox, ("gateway", "dispatcher", "sessions", "webhooks")),
)


@dataclass(slots=True)
class Rotated:
    """What became of a column's rows."""

    anew: int = 0
    lost: int = 0


@app.command()
def new(
    id_: Annotated[str, typer.Option("--id", help="What to call it; not used before.")],
) -> None:
    """Print a new key for ENCRYPTION_KEYS; docs/command-line.md says how it is brought in."""
    typer.echo(Key.parse(Key.new(id_).written()).written())


@app.command()
def status(as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
    """Count what is sealed under each key, and messages whose words wait to be indexed.

    A key that seals nothing any more may be taken away a day later, when none of these wait.
    """
    show(run(_status()), ("table", "key", "rows"), as_json=as_json)


@app.command()
def rotate() -> None:
    """Seal everything anew that the newest key has not sealed; while Waypost runs.

    All services must have the new key first in ENCRYPTION_KEYS. Messages are found by their words
    again when the dispatcher has indexed them anew. It may be stopped at any time and started
    again.
    """
    if run(_rotate(_ring())):
        fail("Some rows were not opened: put the key that has sealed them into ENCRYPTION_KEYS.")


def _ring() -> KeyRing:
    keys = settings.read(CommandLineSettings).keys()
    if keys is None:
        fail("Set ENCRYPTION_KEYS as the services have it.")
    try:
        return KeyRing([Key.parse(part) for part in keys.split(",") if part.strip()])
    except ValueError as error:
        fail(f"ENCRYPTION_KEYS: a key {error}.")


async def _status() -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for column in COLUMNS:
        async with acting_as(column.service) as database, database.hot() as connection:
            rows = await connection.fetch(
                f"""
                SELECT CASE WHEN get_byte({column.column}, 0) = 2
                            THEN convert_from(substring({column.column} FROM 3
                                              FOR get_byte({column.column}, 1)), 'UTF8')
                       ELSE '(not sealed)' END AS key, count(*) AS rows
                FROM {column.table} WHERE length({column.column}) > 2 GROUP BY 1 ORDER BY 1
                """,  # noqa: S608 - names of ours
                timeout=600,
            )
        found += [{"table": column.table, "key": row[0], "rows": row[1]} for row in rows]
    async with acting_as("dispatcher") as database, database.hot() as connection:
        if unindexed := await connection.fetchval(_UNINDEXED, timeout=600):
            found.append(
                {"table": "dispatcher.message_words", "key": "(to be indexed)", "rows": unindexed}
            )
    return found


async def _rotate(ring: KeyRing) -> int:
    lost = 0
    for column in COLUMNS:
        rotated = Rotated()
        async with acting_as(column.service) as database:
            after: Sequence[object] | None = None
            while True:
                async with database.hot_tx() as connection:
                    after = await _batch(connection, ring, column, after, rotated)
                if after is None:
                    break
        lost += _told(column.table, rotated)
    async with acting_as("gateway") as database, database.hot_tx() as connection:
        lost += _told("gateway.instances (proxies)", await _proxies(connection, ring))
    async with acting_as("gateway") as database, database.hot_tx() as connection:
        lost += _told("gateway.instances (secrets)", await _settings(connection, ring))
    return lost


def _told(what: str, rotated: Rotated) -> int:
    unopened = f", {rotated.lost} could not be opened" if rotated.lost else ""
    typer.echo(f"{what}: {rotated.anew} sealed anew{unopened}")
    return rotated.lost


async def _proxies(connection: HotConnection, ring: KeyRing) -> Rotated:
    """Seal the proxies of guards anew, which stand in JSON; few instances have one of their own."""
    rotated = Rotated()
    rows = await connection.fetch(
        "SELECT id, tenant_id, guard ->> 'proxy' FROM gateway.instances"
        " WHERE guard ? 'proxy' ORDER BY id FOR UPDATE"
    )
    anew = []
    for id_, tenant_id, stored in rows:
        place = proxy_place(tenant_id, id_)
        try:
            plain = open_text(ring, stored, place)
        except Unsealable:
            rotated.lost += 1
            continue
        if not is_current_text(ring, stored):
            anew.append((id_, seal_text(ring, plain, place), masked(plain)))
    await connection.executemany(
        "UPDATE gateway.instances SET guard = guard ||"
        " jsonb_build_object('proxy', $2::text, 'proxyShown', $3::text) WHERE id = $1",
        anew,
    )
    rotated.anew = len(anew)
    return rotated


async def _settings(connection: HotConnection, ring: KeyRing) -> Rotated:
    """Seal the secrets among instances' settings anew, likewise."""
    rotated = Rotated()
    rows = await connection.fetch(
        "SELECT i.id, i.tenant_id, s.key, s.value FROM gateway.instances i,"
        " LATERAL jsonb_each_text(i.settings) s WHERE s.value LIKE 'sealed:%' ORDER BY i.id"
        " FOR UPDATE OF i"
    )
    anew: list[tuple[UUID, str]] = []
    for id_, tenant_id, name, stored in rows:
        place = setting_place(tenant_id, id_, name)
        try:
            plain = open_text(ring, stored, place)
        except Unsealable:
            rotated.lost += 1
            continue
        if is_current_text(ring, stored):
            continue
        changed = {name: seal_text(ring, plain, place)}
        if name == VERIFY_TOKEN:
            changed[VERIFY_DIGEST] = lookup_digests(ring, plain)[0]
        anew.append((id_, orjson.dumps(changed).decode()))
    await connection.executemany(
        "UPDATE gateway.instances SET settings = settings || $2::jsonb WHERE id = $1", anew
    )
    rotated.anew = len(anew)
    return rotated


async def _batch(
    connection: HotConnection,
    ring: KeyRing,
    column: Column,
    after: Sequence[object] | None,
    rotated: Rotated,
) -> Sequence[object] | None:
    """Seal the next rows anew; where to go on, or nothing at the end."""
    keys = ", ".join(column.keys)
    value = column.column
    if column.plain is not None:
        value = f"coalesce({column.column}, convert_to({column.plain}, 'UTF8'))"
    start = "" if after is None else f"AND ({keys}) > ({_numbered(3, column.keys)})"
    rows = await connection.fetch(
        f"""
        SELECT {keys}, {column.tenant}, {value} FROM {column.table}
        WHERE {value} IS NOT NULL AND substring({value} FOR $1) <> $2 {start}
        ORDER BY {keys} LIMIT {BATCH} FOR UPDATE
        """,  # noqa: S608 - names of ours
        len(ring.current),
        ring.current,
        *(after or ()),
    )
    anew: list[tuple[object, ...]] = []
    for row in rows:
        *key, tenant, stored = row
        place = Place(tenant or NOBODY, column.place or column.table, str(key[0]))
        try:
            plain = ring.open(stored, place) if is_sealed(stored) else stored
        except Unsealable:
            rotated.lost += 1
            continue
        anew.append((ring.seal(plain, place), *key))
    if column.before:
        await connection.execute(column.before, [key for _, key, *_ in anew])
    clear = "" if column.plain is None else f", {column.plain} = NULL"
    await connection.executemany(
        f"UPDATE {column.table} SET {column.column} = $1{clear}{column.also}"  # noqa: S608 - ours
        f" WHERE ({keys}) = ({_numbered(2, column.keys)})",
        anew,
    )
    rotated.anew += len(anew)
    return tuple(rows[-1])[: len(column.keys)] if len(rows) == BATCH else None


def _numbered(first: int, keys: Sequence[str]) -> str:
    return ", ".join(f"${number}" for number in range(first, first + len(keys)))
