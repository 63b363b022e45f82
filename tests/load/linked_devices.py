"""``make bench-whatsapp``: what linked devices cost, with real clients and a local WhatsApp.

Everything shares the machine's cores: the clients, the server that they take for WhatsApp, all of
Waypost, PostgreSQL and RabbitMQ. Writes ``.waypost/bench-whatsapp.json``.
"""

import json
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import uvloop

from shared.db.migrate import upgrade
from tests.load.report import Row, table
from tests.support import postgres as postgres_support
from tests.support import rabbitmq as rabbitmq_support
from tests.support import system as systems
from tests.support.customer import Customer, together
from tests.support.eventually import eventually
from tests.support.fleet import paired
from tests.support.system import Process, System, free_port
from tests.support.whatsapp import WhatsApp, waypost_environment

OUTPUT = Path(".waypost/bench-whatsapp.json")
SIZES = (1, 20, 100)
CONTACTS = tuple(f"12025557{number:03d}" for number in range(20))
SENT = 600
# Instances that the largest plan allows.
PLAN = 40
AT_ONCE = 16
SETTINGS = {
    "WAYPOST_SESSIONS_WHATSMEOW_PER_WORKER": str(SIZES[-1]),
    "WAYPOST_SESSIONS_LOGINS_PER_SECOND": "50",
}
MIB = 1024 * 1024


@dataclass
class Bench:
    """What the measurements share."""

    system: System
    whatsapp: WhatsApp
    customer: Customer
    sql: asyncpg.Connection
    instances: list[dict[str, Any]]
    stack: AsyncExitStack

    def workers(self) -> list[psutil.Process]:
        """The processes that hold linked devices."""
        sessions = psutil.Process(self.system.processes["sessions"].pid)
        return [
            child
            for child in sessions.children(recursive=True)
            # One that has ended has no command line any more.
            if child.status() != psutil.STATUS_ZOMBIE
            and any("whatsmeow.worker" in part for part in child.cmdline())
        ]

    def memory(self) -> float:
        """Of all workers, in MiB: their own pages, and their share of those that they share."""
        return sum(worker.memory_full_info().pss for worker in self.workers()) / MIB

    def seconds_used(self) -> float:
        """Processor seconds that the workers of now have used."""
        used = [worker.cpu_times() for worker in self.workers()]
        return sum(times.user + times.system for times in used)

    async def grow(self, size: int) -> None:
        """Pair until there are so many; no plan has room for all, so several customers do."""
        while (begun := len(self.instances)) < size:
            if begun % PLAN == 0 and begun:
                self.customer = await self.stack.enter_async_context(Customer.of(self.system.url))
                await self.sql.execute("UPDATE gateway.organizations SET plan = 'max'")
            made = range(begun, min(size, begun - begun % PLAN + PLAN))
            self.instances += await together(
                *(paired(self.customer, self.whatsapp, f"1202558{number:04d}") for number in made),
                at_once=8,
            )

    async def sent(self, instances: Sequence[dict[str, Any]]) -> float:
        """Messages a second, from the first POST until the last is on WhatsApp's wire."""
        started = time.time()
        answers = await together(
            *(
                self.customer.with_key(instances[number % len(instances)]["key"]).text(
                    f"+{CONTACTS[number // len(instances) % len(CONTACTS)]}", "Hello there"
                )
                for number in range(SENT)
            ),
            at_once=AT_ONCE,
        )
        ids = [answer.data["id"] for answer in answers]

        async def done() -> bool:
            count = await self.sql.fetchval(
                "SELECT count(*) FROM dispatcher.messages"
                " WHERE id = ANY($1::uuid[]) AND sent_at IS NOT NULL",
                ids,
            )
            assert count == SENT, f"{count} of {SENT} sent"
            return True

        await eventually(done, within=timedelta(seconds=120))
        last = await self.sql.fetchval(
            "SELECT extract(epoch FROM max(sent_at))::float8 FROM dispatcher.messages"
            " WHERE id = ANY($1::uuid[])",
            ids,
        )
        return SENT / (float(last) - started)

    async def failover(self, second: Process) -> float:
        """Seconds from kill -9 of the owner to the next message of one of its devices."""
        await second.start()
        owner = self.system.processes["sessions"]
        instance = await self._owned_by_first()
        await owner.kill()
        killed = time.time()
        answer = await self.customer.with_key(instance["key"]).text(f"+{CONTACTS[0]}", "Still here")
        id_ = answer.data["id"]

        async def sent() -> Any:
            return await self.sql.fetchval(
                "SELECT extract(epoch FROM sent_at)::float8 FROM dispatcher.messages"
                " WHERE id = $1::uuid",
                id_,
            )

        return float(await eventually(sent, within=timedelta(seconds=90))) - killed

    async def _owned_by_first(self) -> dict[str, Any]:
        """A device that has not moved to the second process, once that has taken some."""

        async def shared() -> bool:
            counts = await self.sql.fetch("SELECT count(*) FROM sessions.shards GROUP BY owner")
            assert len(counts) == 2, counts
            assert min(row[0] for row in counts) >= 8, counts
            return True

        await eventually(shared, within=timedelta(seconds=60))
        first = await self.sql.fetchval(
            "SELECT id FROM sessions.replicas ORDER BY started_at LIMIT 1"
        )
        owned = {
            row[0]
            for row in await self.sql.fetch(
                "SELECT i.id::text FROM gateway.instances i JOIN sessions.shards s"
                " ON s.id = i.shard WHERE s.owner = $1",
                first,
            )
        }
        return next(one for one in self.instances if one["id"] in owned)


async def measure(folder: Path, database_url: str, amqp_url: str) -> list[Row]:
    """All of it, in one run."""
    async with AsyncExitStack() as stack:
        whatsapp = await stack.enter_async_context(WhatsApp.running(folder))
        environment = {**SETTINGS, **waypost_environment(whatsapp)}
        system = await stack.enter_async_context(
            systems.distributed(folder, database_url, amqp_url, **environment)
        )
        sessions = system.processes["sessions"]
        second = Process(
            "sessions-2",
            "services.sessions",
            {**sessions.environment, "WAYPOST_SESSIONS_PORT": str(free_port())},
            folder / "sessions-2.log",
        )
        stack.push_async_callback(second.stop)
        sql = await asyncpg.connect(database_url)
        stack.push_async_callback(sql.close)
        customer = await stack.enter_async_context(Customer.of(system.url))
        await sql.execute("UPDATE gateway.organizations SET plan = 'max'")
        for number in CONTACTS:
            await whatsapp.add_phone(number)
        bench = Bench(system, whatsapp, customer, sql, [], stack)
        rows: list[Row] = []
        for size in SIZES:
            before, had = bench.seconds_used() if bench.instances else 0.0, len(bench.instances)
            await bench.grow(size)
            memory = bench.memory() / size
            goal = 6.0 if size == 20 else None
            rows.append(
                Row(f"memory per session, {size} in a worker", memory, "MiB", goal, "lower")
            )
            if size == 20:
                used = (bench.seconds_used() - before) / (size - had)
                rows.append(Row("processor time of pairing and first login", used, "s"))
                one = await bench.sent(bench.instances[:1])
                rows.append(Row("POST to WhatsApp, one session", one, "msg/s", 60))
                twenty = await bench.sent(bench.instances)
                rows.append(Row("POST to WhatsApp, 20 sessions", twenty, "msg/s"))
        seconds = await bench.failover(second)
        rows.append(Row("kill -9 to the next message, elsewhere", seconds, "s", 20, "lower"))
        return rows


def main() -> None:
    """Measure, print, and write it down."""
    with (
        postgres_support.running() as postgres,
        postgres.template(upgrade) as migrated,
        rabbitmq_support.running() as rabbit,
        rabbit.vhost() as amqp_url,
        tempfile.TemporaryDirectory() as folder,
    ):

        async def alone() -> list[Row]:
            async with postgres.database(template=migrated) as database_url:
                return await measure(Path(folder), database_url, amqp_url)

        rows = uvloop.run(alone())
    print(table(rows))
    OUTPUT.parent.mkdir(exist_ok=True)
    OUTPUT.write_text(json.dumps([row.as_json() for row in rows], indent=2) + "\n")
    print(f"\nwritten to {OUTPUT}")


if __name__ == "__main__":
    main()
