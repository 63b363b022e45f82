"""kill -9 of each service while hundreds of messages are in flight: nothing is lost or doubled."""

import asyncio
import base64
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import aiohttp
import asyncpg
from prometheus_client import CollectorRegistry

from services.gateway.loops.erasing import EraseMedia
from services.gateway.metrics import GatewayMetrics
from shared.db.database import Database
from shared.db.tables.grants import role
from shared.media.store import MediaStore
from tests.support import samples
from tests.support.customer import Customer, Sink
from tests.support.eventually import eventually
from tests.support.gateway import MovableClock
from tests.support.media import media_settings
from tests.support.quiet import all_guarantees_hold, quiet
from tests.support.system import SERVICES, System

MESSAGES = 500
# Connections of the gateway that wait to insert a message.
ACCEPTING = """
    FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
    AND application_name LIKE '%gateway%'
"""


async def send_until_accepted(sender: Customer, to: str, text: str, key: str) -> str:
    """A careful client: repeats with the same Idempotency-Key until it has a 202."""
    headers = {"Idempotency-Key": key}

    async def accepted() -> Any:
        try:
            answer = await sender.text(to, text, headers=headers)
        except (aiohttp.ClientError, TimeoutError):
            return None
        return answer.data["id"] if answer.status == 202 else None

    return str(await eventually(accepted, within=timedelta(seconds=60)))


async def test_killing_each_service_in_turn_loses_and_doubles_nothing(system: System) -> None:
    async with Customer.of(system.url) as customer, Sink.listening() as sink:
        settings = {"unconfirmedAfter": 5}
        instances = [await customer.instance(settings=settings) for _ in range(4)]
        for instance in instances:
            await customer.webhook(instance["id"], sink.url, "message.*")
        sql = await asyncpg.connect(system.database_url)
        accepted: set[str] = set()
        for victim in SERVICES:
            gate = asyncio.Semaphore(40)

            async def send(number: int, victim: str = victim) -> str:
                async with gate:  # noqa: B023 - awaited within this turn of the loop
                    instance = instances[number % len(instances)]
                    other = instances[(number + 1) % len(instances)]
                    to = other["phoneNumber"] if number % 5 == 0 else f"+1202556{number % 97:04d}"
                    return await send_until_accepted(
                        customer.with_key(instance["key"]), to, "x", f"{victim}-{number}"
                    )

            before = len(accepted)
            sending = asyncio.gather(*(send(number) for number in range(MESSAGES)))

            async def under_way(before: int = before) -> bool:
                sent = await sql.fetchval("SELECT count(*) FROM sessions.sandbox_wire")
                return bool(sent > before + MESSAGES // 10)

            await eventually(under_way, within=timedelta(seconds=60))
            await system.processes[victim].kill()
            await system.processes[victim].start()
            accepted |= set(await sending)
            assert len(accepted) == before + MESSAGES
            await quiet(system.database_url, within=timedelta(seconds=90))
        kept = await sql.fetch("SELECT id FROM dispatcher.messages WHERE direction = 'outbound'")
        assert {str(row[0]) for row in kept} == accepted
        failed = await sql.fetchval(
            "SELECT count(*) FROM dispatcher.messages WHERE status = 'failed'"
            " AND error_code <> 'UNCONFIRMED'"
        )
        assert failed == 0
        await sql.close()
        await all_guarantees_hold(system.database_url)
        names = {payload["event"] for _, payload in sink.got}
        assert {"message.sent", "message.delivered", "message.read", "message.received"} <= names


async def test_a_file_whose_request_died_before_its_message_was_accepted_does_not_stay(
    system: System,
) -> None:
    async with Customer.of(system.url) as customer:
        sender = customer.with_key((await customer.instance())["key"])
        sql, blocking = [await asyncpg.connect(system.database_url) for _ in range(2)]
        body = {"to": "+12025550142", "base64": base64.b64encode(samples.png("one")).decode()}
        assert (await sender.post("/api/messages/image", body)).status == 202
        lock = blocking.transaction()
        await lock.start()
        await blocking.execute("LOCK TABLE dispatcher.messages IN EXCLUSIVE MODE")
        body["base64"] = base64.b64encode(samples.png("two")).decode()
        dying = asyncio.gather(sender.post("/api/messages/image", body), return_exceptions=True)

        async def stored() -> bool:
            rows = await sql.fetchval("SELECT count(*) FROM gateway.media")
            waiting = await sql.fetchval(f"SELECT count(*) {ACCEPTING}")
            return bool(rows == 2 and waiting)

        await eventually(stored)
        await system.processes["gateway"].kill()
        # PostgreSQL would go on for whoever is not there any more.
        await sql.execute(f"SELECT pg_terminate_backend(pid) {ACCEPTING}")
        await lock.rollback()
        await dying
        await system.processes["gateway"].start()
        await system.ready()
        listed = (await customer.get("/api/media")).data
        assert len(listed) == 2
        await erase_as_a_day_later(system)
        left = await sql.fetch(
            "SELECT f.id, m.id FROM gateway.media f LEFT JOIN dispatcher.messages m"
            " ON m.media_id = f.id WHERE f.deleted_at IS NULL"
        )
        assert [row[1] is not None for row in left] == [True]
        [kept] = (await customer.get("/api/media")).data
        assert UUID(kept["id"]) == left[0][0]
        assert (await customer.get(f"/api/media/{kept['id']}/download")).status == 200
        folder = system.processes["gateway"].environment["WAYPOST_MEDIA_STORE"]
        pages = [page async for page in MediaStore.of(media_settings(Path(folder))).objects()]
        assert [one.sha256 for page in pages for one in page] == [kept["sha256"]]
        await sql.close()
        await blocking.close()


async def erase_as_a_day_later(system: System) -> None:
    """What the gateway does about files by itself, then."""
    clock = MovableClock()
    clock.move(timedelta(days=1, minutes=1))
    folder = system.processes["gateway"].environment["WAYPOST_MEDIA_STORE"]
    async with Database.open(system.database_url, role=role("gateway"), name="test") as database:
        erase = EraseMedia(
            database=database,
            store=MediaStore.of(media_settings(Path(folder))),
            clock=clock,
            metrics=GatewayMetrics(CollectorRegistry()),
            received_kept=timedelta(days=7),
        )
        await erase.outlive()
        await erase.forsaken()
        while await erase.step():
            pass
