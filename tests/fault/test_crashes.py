"""kill -9 of each service while hundreds of messages are in flight: nothing is lost or doubled."""

import asyncio
from datetime import timedelta
from typing import Any

import aiohttp
import asyncpg

from tests.support.customer import Customer, Sink
from tests.support.eventually import eventually
from tests.support.quiet import all_guarantees_hold, quiet
from tests.support.system import SERVICES, System

MESSAGES = 500


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
