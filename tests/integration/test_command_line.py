"""What operators do from a shell, each command as a process of its own."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from prometheus_client import CollectorRegistry

from services.dispatcher.loops import History
from services.dispatcher.metrics import DispatcherMetrics
from shared.contracts import events
from shared.contracts.envelope import Emitted
from shared.db.database import Database
from shared.ids import new_id
from shared.messaging import outbox, words
from shared.security.sealing import NOBODY, Key, KeyRing, Place
from shared.security.signatures import SECRETS
from tests.support.builders import NOON, an_instance, an_organization
from tests.support.clock import HandClock
from tests.support.customer import Customer
from tests.support.gateway import Gateway, Sender, running
from tests.support.keys import KEYS, RING
from tests.support.meta import VERIFY_TOKEN, Meta, a_callback, a_text, a_value, signed

PASSWORD = "an example passphrase"


@dataclass(frozen=True)
class Said:
    """How a command ended, and what it wrote."""

    status: int
    out: str
    problems: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        """What it listed as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]


Waypost = Callable[..., Any]


@pytest.fixture
async def sql(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection to look and prepare with."""
    connection = await asyncpg.connect(database_url)
    try:
        yield connection
    finally:
        await connection.close()


@pytest.fixture
def waypost(database_url: str) -> Waypost:
    """The command line, on this test's database."""

    async def run(*arguments: object, given: str = "", **environment: str) -> Said:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "services.command_line",
            *map(str, arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={
                **os.environ,
                "DATABASE_URL": database_url,
                "ENCRYPTION_KEYS": KEYS,
                "NO_COLOR": "1",
                **environment,
            },
        )
        async with asyncio.timeout(60):
            out, problems = await process.communicate(given.encode())
        return Said(process.returncode or 0, out.decode(), problems.decode())

    return run


async def test_the_first_operator_is_made_here_and_logs_in(
    gateway: Gateway, waypost: Waypost
) -> None:
    wanted = ("operator", "create", "--email", "Ops@example.com", "--name", "Ops")
    made = await waypost(*wanted, "--password-stdin", given=f"{PASSWORD}\n")
    assert made.status == 0, made.problems
    assert PASSWORD not in made.out + made.problems
    login = await gateway.stranger().post(
        "/api/auth/login", {"email": "ops@example.com", "password": PASSWORD}
    )
    assert login.status == 200
    operator = gateway.with_token(login.data["token"])
    assert (await operator.get("/api/admin/organizations")).status == 200
    again = await waypost(*wanted, "--password-stdin", given=f"{PASSWORD}\n")
    assert again.status == 1
    assert "account already" in again.problems
    [listed] = (await waypost("operator", "list", "--json")).rows
    assert (listed["email"], listed["active"]) == ("ops@example.com", True)
    entry = await gateway.row("SELECT * FROM gateway.audit_logs WHERE action = 'operator.created'")
    assert (entry["actor_type"], entry["resource_id"]) == ("system", listed["id"])


async def test_an_operator_with_a_bad_address_or_password_is_not_made(
    gateway: Gateway, waypost: Waypost
) -> None:
    for email, password, field in (
        ("ops", PASSWORD, "email"),
        ("o@example.com", "x", "password"),
        ("o@example.com", "password123", "password"),
        ("o@example.com", "O@Example.com", "password"),
    ):
        refused = await waypost(
            "operator", "create", "--email", email, "--name", "O", "--password-stdin",
            given=f"{password}\n",
        )  # fmt: skip
        assert refused.status == 1
        assert f"The {field} " in refused.problems
    assert await gateway.count("gateway.users") == 0


async def test_organizations_and_instances_are_listed(
    sql: asyncpg.Connection, waypost: Waypost
) -> None:
    one, other = await an_organization(sql, name="One"), await an_organization(sql, name="Other")
    ready = await an_instance(sql, one)
    created = await an_instance(sql, other, status=None)
    await an_instance(sql, other, deleted_at=(await sql.fetchval("SELECT now()")))
    rows = (await waypost("organizations", "--json")).rows
    assert {row["name"]: row["instances"] for row in rows} == {"One": 1, "Other": 1}
    rows = (await waypost("instances", "--json")).rows
    assert {row["id"]: row["status"] for row in rows} == {
        str(ready): "ready",
        str(created): "created",
    }
    [row] = (await waypost("instances", "--organization", one, "--status", "ready", "--json")).rows
    assert row["id"] == str(ready)
    table = await waypost("organizations")
    assert "One" in table.out
    assert "plan" in table.out


BACKUP = [
    {"name": "Shop", "phone": "+49 151 1234 5678", "sessionPath": "/old/place"},
    {"name": "Support", "phoneNumber": "12025550199"},
    {"name": "Shop again", "number": "4915112345678"},
]


def backup_of(folder: Path, content: object) -> Path:
    path = folder / "clients-backup.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


async def test_a_backup_of_version_1_becomes_instances_to_be_paired_once(
    sql: asyncpg.Connection, waypost: Waypost, tmp_path: Path
) -> None:
    tenant = await an_organization(sql)
    backup = backup_of(tmp_path, {"clients": BACKUP})
    tried = await waypost("import-v1", backup, "--organization", tenant, "--dry-run")
    assert tried.status == 0, tried.problems
    assert tried.out.startswith("Would make 2 instances; 1 were there already.")
    assert await sql.fetchval("SELECT count(*) FROM gateway.instances") == 0
    for expected in ("Made 2 instances; 1 were", "Made 0 instances; 3 were"):
        done = await waypost("import-v1", backup, "--organization", tenant)
        assert done.out.startswith(expected), done.problems
    rows = await sql.fetch("SELECT * FROM gateway.instances ORDER BY name")
    assert [(row["name"], row["phone_number"], row["engine"]) for row in rows] == [
        ("Shop", "+4915112345678", "whatsmeow"),
        ("Support", "+12025550199", "whatsmeow"),
    ]
    assert {row["connected"] for row in rows} == {False}
    assert len({row["shard"] for row in rows}) == 2


async def test_a_backup_that_is_wrong_imports_nothing_and_says_where(
    sql: asyncpg.Connection, waypost: Waypost, tmp_path: Path
) -> None:
    tenant = await an_organization(sql)
    many = [{"name": f"n{number}", "phone": f"+1202555{number:04}"} for number in range(6)]
    wrong: list[tuple[object, UUID, str]] = [
        ("{", tenant, "is not JSON"),
        ({"customers": []}, tenant, "array of clients"),
        ([*BACKUP, {"name": "", "phone": "none"}], tenant, "client 4: name"),
        (many, tenant, "The plan basic has 5 instances, 0 are used, and 6 would come"),
        (BACKUP, new_id(), "There is no such organization"),
    ]
    for content, organization, problem in wrong:
        backup = backup_of(tmp_path, content)
        said = await waypost("import-v1", backup, "--organization", organization)
        assert said.status == 1
        assert problem in said.problems
    missing = await waypost("import-v1", tmp_path / "none.json", "--organization", tenant)
    assert "cannot be read: No such file" in missing.problems
    good = backup_of(tmp_path, BACKUP)
    known = await waypost("import-v1", good, "--organization", tenant, "--engine", "telegram")
    assert "There is no engine 'telegram'; there are: sandbox, whatsmeow." in known.problems
    assert await sql.fetchval("SELECT count(*) FROM gateway.instances") == 0


async def test_a_key_is_changed_without_anything_being_lost(
    gateway: Gateway, sender: Sender, waypost: Waypost, database_url: str
) -> None:
    webhook = {"url": "https://example.com/hook", "events": ["*"]}
    made = await sender.customer.post("/api/webhook", webhook)
    sent = await sender.text(message="Said under the old key")
    await gateway.sql.execute(
        "INSERT INTO gateway.webhooks (id, tenant_id, is_primary, url, events, secret, active,"
        " created_at, updated_at) VALUES ($1, $2, false, 'https://example.com', '{*}', 'whsec_old',"
        " true, now(), now())",
        new_id(),
        sender.tenant,
    )
    await gateway.sql.execute(
        "UPDATE gateway.instances SET guard = guard || $2::jsonb WHERE id = $1",
        sender.instance,
        json.dumps({"proxy": "http://ada:secret@example.com:3128"}),
    )
    admin, _ = await gateway.register()
    settings = Meta().settings("12345")
    cloud = await admin.post(
        "/api/instances", {"name": "Cloud", "engine": "cloud_api", "settings": settings}
    )
    printed = await waypost("keys", "new", "--id", "next")
    both = f"{printed.out.strip()},{KEYS}"
    for anew in (2, 0):
        rotated = await waypost("keys", "rotate", ENCRYPTION_KEYS=both)
        assert rotated.status == 0, rotated.problems
        assert f"gateway.webhooks: {anew} sealed anew" in rotated.out
        assert f"gateway.instances (proxies): {anew // 2} sealed anew" in rotated.out
        assert f"gateway.instances (secrets): {anew * 3 // 2} sealed anew" in rotated.out
    guard = await gateway.sql.fetchval(
        "SELECT guard FROM gateway.instances WHERE id = $1", sender.instance
    )
    assert "secret" not in guard
    assert "http://***@example.com:3128" in guard
    counted = (await waypost("keys", "status", "--json")).rows
    assert {row["key"] for row in counted} == {"next", "(to be indexed)"}
    assert {"dispatcher.messages", "gateway.webhooks"} <= {row["table"] for row in counted}
    assert {"table": "dispatcher.message_words", "key": "(to be indexed)", "rows": 1} in counted
    rows = await gateway.sql.fetch("SELECT id, secret, secret_sealed FROM gateway.webhooks")
    ring = KeyRing([Key.parse(printed.out)])
    assert {row["secret"] for row in rows} == {None}
    assert {
        ring.open(row["secret_sealed"], Place(sender.tenant, SECRETS, str(row["id"]))).decode()
        for row in rows
    } == {made.data["secret"], "whsec_old"}
    async with running(database_url, encryption_keys=printed.out.strip()) as after:
        elsewhere = Customer(after.http, after.url, sender.customer.headers)
        shown = await elsewhere.get(f"/api/messages/{sent.data['id']}")
        assert shown.data["content"]["text"] == "Said under the old key"
        raw, headers = signed(a_callback(a_value("12345", messages=[a_text()])))
        async with after.http.post(
            f"{after.url}/api/webhooks/whatsapp", data=raw, headers=headers
        ) as answer:
            assert (await answer.json())["data"] == {"stored": 1}, cloud.data
        token = {"hub.mode": "subscribe", "hub.verify_token": VERIFY_TOKEN, "hub.challenge": "42"}
        async with after.http.get(f"{after.url}/api/webhooks/whatsapp", params=token) as answer:
            assert await answer.text() == "42"


async def test_what_was_indexed_is_found_when_the_old_key_is_gone(
    gateway: Gateway, sender: Sender, waypost: Waypost, database_url: str
) -> None:
    await gateway.sql.execute("UPDATE gateway.organizations SET content_storage = 'encrypted'")
    await sender.text(message="Said under the old key")
    clock, metrics = HandClock(), DispatcherMetrics(CollectorRegistry())
    new, said = Key.new("next"), ("said", "under", "the", "old", "key")
    async with Database.open(database_url, role="waypost_dispatcher") as database:
        for ring, keys in ((RING, None), (KeyRing([new]), f"{new.written()},{KEYS}")):
            if keys is not None:
                assert (await waypost("keys", "rotate", ENCRYPTION_KEYS=keys)).status == 0
            await History(database=database, ring=ring, clock=clock, metrics=metrics).step()
            indexed = await gateway.sql.fetch("SELECT word FROM dispatcher.message_words")
            hashed = words.hashes(ring.index_keys(sender.tenant)[0], said)
            assert {row[0] for row in indexed} == set(hashed)
    counted = (await waypost("keys", "status", "--json")).rows
    assert "(to be indexed)" not in {row["key"] for row in counted}


async def test_what_waits_for_the_broker_is_sealed_anew(
    gateway: Gateway, waypost: Waypost, database_url: str
) -> None:
    new = Key.new("next")
    event = outbox.event(
        Emitted(
            id=new_id(),
            event=events.Test(message="Hello"),
            tenant_id=new_id(),
            instance_id=None,
            time=NOON,
            subject="test",
            partition_key="test",
        )
    )
    async with Database.open(database_url, role="waypost_sessions") as database:
        async with database.hot_tx() as connection:
            await outbox.add_hot(connection, "sessions", [event], now=NOON, ring=RING)
        assert {"table": "sessions.outbox", "key": "test", "rows": 1} in (
            await waypost("keys", "status", "--json")
        ).rows
        rotated = await waypost("keys", "rotate", ENCRYPTION_KEYS=f"{new.written()},{KEYS}")
        assert "sessions.outbox: 1 sealed anew" in rotated.out
        assert "gateway.outbox: 0 sealed anew" in rotated.out
    body = await gateway.sql.fetchval("SELECT body FROM sessions.outbox")
    place = Place(NOBODY, "outbox", str(event.id))
    assert KeyRing([new]).open(body, place) == event.body


async def test_what_no_key_opens_is_told_and_left_as_it_is(
    gateway: Gateway, sender: Sender, waypost: Waypost
) -> None:
    await sender.text()
    before = await gateway.row("SELECT sealed FROM dispatcher.messages")
    said = await waypost("keys", "rotate", ENCRYPTION_KEYS=Key.new("another").written())
    assert said.status == 1
    assert "dispatcher.messages: 0 sealed anew, 1 could not be opened" in said.out
    assert "put the key that has sealed them into ENCRYPTION_KEYS" in said.problems
    assert await gateway.row("SELECT sealed FROM dispatcher.messages") == before
    wrong = await waypost("keys", "rotate", ENCRYPTION_KEYS="1:short")
    assert wrong.status == 1
    assert "short" not in wrong.problems


async def test_without_a_database_it_says_how_to_name_one(waypost: Waypost, tmp_path: Path) -> None:
    said = await waypost("organizations", DATABASE_URL="", WAYPOST_DATA=str(tmp_path))
    assert said.status == 1
    assert "Set DATABASE_URL" in said.problems


@pytest.mark.parametrize("command", ["organizations", "operator list", "migrate"])
async def test_a_database_that_is_away_or_wrong_is_told_in_a_sentence(
    waypost: Waypost, database_url: str, command: str
) -> None:
    away = await waypost(*command.split(), DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")
    assert away.status == 1
    assert away.problems.startswith("The database is not available")
    assert "Traceback" not in away.problems
    wrong = await waypost(*command.split(), DATABASE_URL=f"{database_url}_that_is_not_there")
    assert wrong.status == 1
    assert wrong.problems.startswith("PostgreSQL refuses DATABASE_URL")
    assert "Traceback" not in wrong.problems
