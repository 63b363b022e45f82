"""A whole process that an operator restarts: it drains and ends well, for others to start again."""

import asyncio
import os
import sys
from pathlib import Path

import asyncpg

from tests.support.system import free_port

ROOT = Path(__file__).parents[2]


async def test_a_restart_that_was_ordered_ends_the_process_well(
    database_url: str, own_amqp_url: str
) -> None:
    sql = await asyncpg.connect(database_url)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.stats",
        cwd=ROOT,
        env={
            **os.environ,
            "DATABASE_URL": database_url,
            "AMQP_URL": own_amqp_url,
            "WAYPOST_STATS_PORT": str(free_port()),
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    said: list[str] = []
    try:
        async with asyncio.timeout(30):
            while not any("services_started" in line for line in said):
                said.append((await process.stdout.readline()).decode())
                assert said[-1], said
            [worker] = await sql.fetch("SELECT * FROM stats.workers")
            assert (worker["state"], worker["restartable"]) == ("running", True)
            await sql.execute(
                "INSERT INTO gateway.worker_orders (service, worker, restart_at)"
                " VALUES ('stats', $1, clock_timestamp())",
                worker["name"],
            )
            rest, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    assert process.returncode == 0, rest
    assert b"services_stopped" in rest
    assert await sql.fetchval("SELECT count(*) FROM stats.workers") == 0
    await sql.close()
