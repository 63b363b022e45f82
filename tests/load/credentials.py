"""Who is calling: told from what is remembered, with one key in use and with ten thousand."""

import asyncio
import gc
import random
import statistics
import time
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import asyncpg
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from prometheus_client import CollectorRegistry

from services.gateway.api.auditing import Auditing
from services.gateway.api.callers import REMEMBERED, X_API_KEY, Callers
from services.gateway.loops.freshness import KeepFresh
from services.gateway.metrics import GatewayMetrics
from services.gateway.store.keys import KeyUses
from services.gateway.store.sightings import Sightings
from shared.clock import SystemClock
from shared.db.database import Database
from shared.db.tables.grants import role
from shared.ids import new_id
from shared.security.tokens import AccessTokens, IssuedKey, KeyKind, issue_key
from tests.load.report import Row
from tests.support.builders import NOON, an_instance, an_organization
from tests.support.system import SECRET

KEYS = 10_000
ASKED = 20_000
# To be copied: making one takes milliseconds.
_REQUEST = make_mocked_request("POST", "/api/messages/text")
# Long enough for every key to become too old twice.
SECONDS = 2 * REMEMBERED.total_seconds()


async def measure(_folder: Path, database_url: str, _amqp_url: str) -> list[Row]:
    """Medians, what the keys take, and how many requests did not have to ask the database."""
    keys = await prepared(database_url)
    clock = SystemClock()
    async with Database.open(database_url, role=role("gateway"), name="credentials") as database:
        sightings = Sightings(database=database, clock=clock, told=lambda: None)
        callers = Callers(
            database=database,
            tokens=AccessTokens(secrets=[SECRET]),
            uses=KeyUses(database, clock=clock),
            auditing=Auditing(
                database=database,
                sightings=sightings,
                trusted_proxies=0,
                clock=clock,
            ),
            clock=clock,
        )
        keeping = KeepFresh(
            [callers.refresh], clock=clock, metrics=GatewayMetrics(CollectorRegistry())
        )
        one = await _median(callers, [showing(keys[0])] * ASKED)
        kept = await _memory(callers, keys)
        async with asyncio.TaskGroup() as group:
            refreshing = group.create_task(keeping.run(), name="keep fresh")
            remembered, many = await _in_use(callers, keys)
            refreshing.cancel()
    return [
        Row("(e) authentication from the cache, one key", one, "µs", 1000, "lower"),
        Row("(e) authentication from the cache, 10,000 keys", many, "µs", 1000, "lower"),
        Row("(e) 10,000 keys in use, found in the cache", 100 * remembered, "%", 99.9),
        Row("(e) 10,000 keys in use, memory", kept / 1e6, "MB", 50, "lower"),
    ]


async def _all_once(callers: Callers, keys: Sequence[IssuedKey]) -> None:
    for part in range(0, KEYS, 100):
        await asyncio.gather(*(callers.caller(showing(key)) for key in keys[part : part + 100]))


async def _memory(callers: Callers, keys: Sequence[IssuedKey]) -> int:
    """The bytes that it takes to remember them all."""
    tracemalloc.start()
    await _all_once(callers, keys)
    gc.collect()
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return kept


async def _median(callers: Callers, requests: Sequence[web.Request]) -> float:
    """How long one takes, in microseconds; the first is left out, for it reads."""
    times = []
    for request in requests:
        started = time.perf_counter()
        await callers.caller(request)
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:]) * 1e6


async def _in_use(callers: Callers, keys: Sequence[IssuedKey]) -> tuple[float, float]:
    """Ask for keys at random: the part that was remembered, and the median in microseconds."""
    requests = [(key.text, showing(key)) for key in keys]
    await _all_once(callers, keys)
    remembered, times = 0, []
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        for text, request in random.choices(requests, k=500):  # noqa: S311 - only a load
            remembered += callers.known(text) is not None
            started = time.perf_counter()
            await callers.caller(request)
            times.append(time.perf_counter() - started)
        await asyncio.sleep(0.005)
    return remembered / len(times), statistics.median(times) * 1e6


def showing(key: IssuedKey) -> web.Request:
    """A request with a key."""
    return _REQUEST.clone(headers={X_API_KEY: key.text})


async def prepared(database_url: str) -> list[IssuedKey]:
    """An instance with that many keys."""
    keys = [issue_key(KeyKind.INSTANCE) for _ in range(KEYS)]
    sql = await asyncpg.connect(database_url)
    tenant = await an_organization(sql, plan="max")
    instance = await an_instance(sql, tenant)
    await sql.execute(
        "INSERT INTO gateway.instance_keys (id, tenant_id, instance_id, name, key_hash, hint,"
        " permissions, rate_limit, created_at)"
        " SELECT id, $1, $2, 'bench', digest, hint, '{\"messages\": {\"send\": true}}', 1000, $3"
        " FROM unnest($4::uuid[], $5::bytea[], $6::text[]) AS k (id, digest, hint)",
        tenant,
        instance,
        NOON,
        [new_id() for _ in keys],
        [key.digest for key in keys],
        [key.hint for key in keys],
    )
    await sql.close()
    return keys
