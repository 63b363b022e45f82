"""Accepts a second: the full path of POST /api/messages/text against two bare handlers."""

import asyncio
import statistics
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import orjson

from shared.ids import new_id
from shared.security import tokens
from shared.security.tokens import KeyKind
from tests.load.client import closed_loop, request
from tests.load.report import Row
from tests.support.builders import NOON, an_instance, an_organization
from tests.support.keys import KEYS
from tests.support.system import SECRET, Process, free_port

ROUNDS = 5
SECONDS = 3.0


def texts(path: str, headers: dict[str, str]) -> Iterator[bytes]:
    """Requests to ever other contacts."""
    number = 0
    while True:
        number += 1
        body = orjson.dumps({"to": f"+1202556{number % 10_000:04d}", "message": "Hello there"})
        yield request(path, headers, body)


async def measure(folder: Path, database_url: str, amqp_url: str) -> list[Row]:
    """Medians of interleaved rounds."""
    key = await prepared(database_url)
    async with (
        ceiling(database_url, amqp_url) as bare,
        gateway(folder, database_url, amqp_url) as full,
    ):
        ways: dict[str, tuple[int, Callable[[], Iterator[bytes]]]] = {
            "bare": (bare, lambda: texts("/commit", {})),
            "publish": (bare, lambda: texts("/publish", {})),
            "full": (full, lambda: texts("/api/messages/text", {"X-API-Key": key})),
        }
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(ROUNDS + 1):
            for name, (port, requests) in ways.items():
                result = await closed_loop(port, requests(), seconds=SECONDS if turn else 1.0)
                assert result.refused == 0, f"{result.refused} requests to {name} were refused"
                if turn:
                    rates[name].append(result.rate)
    ratio = statistics.median(f / b for f, b in zip(rates["full"], rates["bare"], strict=True))
    over = statistics.median(f / b for f, b in zip(rates["full"], rates["publish"], strict=True))
    median = {name: statistics.median(found) for name, found in rates.items()}
    return [
        Row("(a) bare handler, one row group-committed", median["bare"], "accepts/s"),
        Row("(b) bare handler, one confirmed publish", median["publish"], "accepts/s"),
        Row("(a) POST /api/messages/text", median["full"], "accepts/s", 0.6 * median["bare"]),
        Row("(a) ratio to the group commit", ratio, "x", 0.6),
        Row("(b) ratio to the confirmed publish", over, "x"),
    ]


async def prepared(database_url: str) -> str:
    """A ready instance made by hand, since only the gateway runs; returns its key."""
    issued = tokens.issue_key(KeyKind.INSTANCE)
    sql = await asyncpg.connect(database_url)
    tenant = await an_organization(sql, plan="max")
    instance = await an_instance(sql, tenant, phone_number="+12025550000")
    permissions = {
        "messages": {"send": True, "receive": True},
        "contacts": {"check": True},
        "instance": {"info": True, "stats": True},
        "webhook": {"configure": False, "test": False},
    }
    await sql.execute(
        "INSERT INTO gateway.instance_keys (id, tenant_id, instance_id, name, key_hash, hint,"
        " permissions, rate_limit, created_at) VALUES ($1, $2, $3, 'bench', $4, $5, $6::jsonb,"
        " 1000000000, $7)",
        new_id(),
        tenant,
        instance,
        tokens.digest_of(issued.text),
        tokens.hint_of(issued.text),
        orjson.dumps(permissions).decode(),
        NOON,
    )
    await sql.close()
    return issued.text


@asynccontextmanager
async def ceiling(database_url: str, amqp_url: str) -> AsyncIterator[int]:
    """The bare handlers in a process of their own."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.load.ceiling", str(port), database_url, amqp_url
    )
    try:
        await listening(port)
        yield port
    finally:
        process.kill()
        await process.wait()


@asynccontextmanager
async def gateway(folder: Path, database_url: str, amqp_url: str) -> AsyncIterator[int]:
    """The real gateway, alone."""
    port = free_port()
    environment = {
        "DATABASE_URL": database_url,
        "AMQP_URL": amqp_url,
        "JWT_SECRET": SECRET,
        "ENCRYPTION_KEYS": KEYS,
        "WAYPOST_MEDIA_STORE": str(folder / "media"),
        "WAYPOST_PORT": str(port),
        "WAYPOST_LOG_STYLE": "json",
    }
    process = Process("gateway", "services.gateway", environment, folder / "accepting.log")
    await process.start()
    try:
        await listening(port)
        yield port
    finally:
        await process.stop()


async def listening(port: int) -> None:
    """Return once somebody listens on ``port``."""
    async with asyncio.timeout(30):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
                continue
            writer.close()
            return
