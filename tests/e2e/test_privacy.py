"""What customers say and to whom: nowhere that nobody meant it to be."""

import base64
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.support import samples
from tests.support import system as systems
from tests.support.customer import Answer, Customer, Sink
from tests.support.eventually import eventually
from tests.support.system import System

ECHO, NEVER, CONTACT = "+12025550108", "+12025550101", "+12025550142"
# Words that nothing else says, so that finding one of them anywhere means that it has leaked.
SAID = ("Quetzalcoatl", "Xylophonist", "Zugzwang", "Wunderkammer", "Kakorrhaphie", "Ytterbium")
PATIENCE = timedelta(seconds=30)
# It plays WhatsApp itself, where everything is known.
PLAYED = "sandbox_"


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[System]:
    """A Waypost in one process that nobody else uses."""
    async with systems.embedded(tmp_path) as made:
        yield made


async def dump(system: System) -> str:
    """Every row of every table, as whoever has a copy of the database reads it."""
    sql = await asyncpg.connect(system.database_url)
    try:
        tables = await sql.fetch(
            "SELECT schemaname, tablename FROM pg_tables WHERE schemaname <> ALL ($1)"
            " AND NOT starts_with(tablename, $2)",
            ["pg_catalog", "information_schema"],
            PLAYED,
        )
        rows: list[str] = []
        for schema, table in tables:
            found = await sql.fetch(f'SELECT t::text FROM "{schema}"."{table}" t')
            rows += [f"{schema}.{table} {row[0]}" for row in found]
        return "\n".join(rows)
    finally:
        await sql.close()


def leaked(words: tuple[str, ...], where: str) -> list[str]:
    """The lines that show one of these words, also where bytes are shown in hex."""
    shown = [form for word in words for form in (word.lower(), word.encode().hex())]
    return [line for line in where.lower().split("\n") if any(form in line for form in shown)]


async def journey(customer: Customer, sink: Sink, broken: Sink) -> list[str]:
    """All that can happen to what is said; the ids of messages."""
    good, bad = await customer.instance(), await customer.instance()
    await customer.webhook(good["id"], sink.url)
    broken.status = 500
    await customer.webhook(bad["id"], broken.url)
    sender, other = customer.with_key(good["key"]), customer.with_key(bad["key"])
    picture = base64.b64encode(samples.png()).decode()
    said: list[Answer] = [
        await sender.text(ECHO, SAID[0]),
        await sender.text(NEVER, SAID[1]),
        await other.text(ECHO, SAID[2]),
        await sender.post(
            "/api/messages/image", {"to": ECHO, "base64": picture, "caption": SAID[3]}
        ),
    ]
    assert [answer.status for answer in said] == [202] * 4
    wrong = await sender.post(
        "/api/messages/text", {"to": "+0" + ECHO[1:], "message": SAID[4], SAID[4]: SAID[4]}
    )
    assert wrong.status == 422
    inbound = await customer.post(
        f"/api/sandbox/instances/{good['id']}/inbound", {"from": CONTACT, "message": SAID[5]}
    )
    assert inbound.status == 202

    async def told() -> bool:
        texts = json.dumps([payload for _, payload in sink.got])
        ended = sink.events().count("message.read") >= 2 and "message.failed" in sink.events()
        return ended and SAID[0] in texts and SAID[5] in texts and bool(broken.got)

    await eventually(told, within=PATIENCE)
    return [*(answer.data["id"] for answer in said), inbound.data["messageId"]]


@pytest.mark.parametrize("storage", ["none", "encrypted"])
async def test_nothing_that_was_said_can_be_read_where_nobody_meant_it_to_be(
    running: System, storage: str
) -> None:
    async with (
        Customer.of(running.url, content_storage=storage) as customer,
        Sink.listening() as sink,
        Sink.listening() as broken,
    ):
        ids = await journey(customer, sink, broken)

        async def settled() -> bool:
            shown = [(await customer.get(f"/api/messages/{id_}")).data for id_ in ids]
            return all(one["contentErased"] is (storage == "none") for one in shown)

        await eventually(settled, within=PATIENCE)
        timelines = [(await customer.get(f"/api/messages/{id_}/timeline")).body for id_ in ids]
        if storage == "encrypted":

            async def indexed() -> Any:
                return (await customer.get(f"/api/messages?search={SAID[5]}")).data

            [one] = await eventually(indexed, within=PATIENCE)
            assert one["content"]["text"] == SAID[5]
        events = json.dumps((await customer.get("/api/events?limit=1000")).body)
        assert SAID[0] in events
        rows = await dump(running)
        audit = json.dumps((await customer.get("/api/audit-logs")).body)
    log = running.processes["embedded"].output()
    assert "request_handled" in log
    assert "webhook_attempt_failed" in log
    assert rows.count("\n") > 50
    numbers = tuple(number[1:] for number in (ECHO, NEVER, CONTACT))
    # To route takes numbers. That they are found shows that the dump can be read.
    assert leaked(numbers, rows)
    assert leaked(SAID, rows) == []
    assert leaked((*SAID, *numbers), log) == []
    assert leaked((*SAID, *numbers), json.dumps(timelines)) == []
    assert leaked((*SAID, *numbers), audit) == []


# A database that does not take some of it, and says of what: with the row, or in its own words.
BROKEN = (
    f"""
    ALTER TABLE dispatcher.messages ADD CONSTRAINT broken
    CHECK (metadata IS NULL AND sender <> '{CONTACT}') NOT VALID
    """,
    "ALTER TABLE gateway.phone_mappings ADD CONSTRAINT broken CHECK (false) NOT VALID",
    """
    CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'not this: %', NEW; END $$
    """,
    """
    CREATE TRIGGER broken BEFORE UPDATE ON gateway.instances
    FOR EACH ROW EXECUTE FUNCTION broken()
    """,
)


def server_log(folder: Path) -> str:
    """What PostgreSQL has said by itself, not what the trigger above has it say."""
    said = (folder / "postgres" / "postgres.log").read_text(errors="replace")
    return "\n".join(line for line in said.splitlines() if "not this:" not in line)


@pytest.mark.timeout(300)
async def test_what_breaks_tells_how_but_not_over_what(running: System) -> None:
    """Handlers and consumers crash over rows whose values the database repeats in its errors."""
    process = running.processes["embedded"]
    async with Customer.of(running.url) as customer:
        made = await customer.instance()
        sender = customer.with_key(made["key"])
        me = (await customer.get("/api/auth/me")).data["user"]["id"]
        about = {"message": SAID[0], "metadata": {"about": SAID[1]}}
        accepted = await sender.text(ECHO, SAID[0])
        assert accepted.status == 202
        sql = await asyncpg.connect(running.database_url)
        for statement in BROKEN:
            await sql.execute(statement)
        await sql.close()
        crashed = [
            await sender.post("/api/messages/text", {"to": CONTACT, **about}),
            await customer.call("PUT", f"/api/instances/{made['id']}", json={"name": SAID[2]}),
            await customer.post(
                f"/api/instances/{made['id']}/phone-mappings",
                {"phoneNumber": CONTACT, "userId": me},
            ),
        ]
        assert [answer.status for answer in crashed] == [500] * 3
        shown = json.dumps([answer.body for answer in crashed])
        inbound = await customer.post(
            f"/api/sandbox/instances/{made['id']}/inbound", {"from": CONTACT, "message": SAID[3]}
        )
        assert inbound.status == 202

        async def dead() -> Any:
            return (await customer.get("/api/dead-letters")).data

        letters = json.dumps(await eventually(dead, within=PATIENCE * 4))
        audit = json.dumps((await customer.get("/api/audit-logs")).body)
        timeline = json.dumps(
            (await customer.get(f"/api/messages/{accepted.data['id']}/timeline")).body
        )
        rows = await dump(running)
    log = process.output()
    for event in ("request_crashed", "message_handler_failed"):
        assert event in log
    assert "CheckViolationError" in log
    server = server_log(Path(process.environment["WAYPOST_DATA"]))
    assert "violates check constraint" in server
    private = (*SAID, ECHO[1:], CONTACT[1:])
    for name, text in (
        ("log", log),
        ("answers", shown),
        ("letters", letters),
        ("audit", audit),
        ("timeline", timeline),
        ("server's log", server),
    ):
        assert leaked(private, text) == [], name
    assert leaked((*SAID[:1], *SAID[3:]), rows) == []
