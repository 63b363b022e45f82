"""Twenty linked devices over two session processes, a contact who talks with all of them, and load.

What the fleet says and hears is numbered, so that afterwards each message can be asked for: was it
said once, and was it heard once?
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import aiohttp
import asyncpg

from tests.support import broker_node
from tests.support import system as systems
from tests.support.broker_node import BrokerNode
from tests.support.chaos_proxy import ChaosProxy
from tests.support.customer import Customer, together
from tests.support.eventually import eventually
from tests.support.keys import logged
from tests.support.system import Process, System, free_port
from tests.support.whatsapp import WhatsApp, waypost_environment
from tests.support.whatsapp_contact import Contact

INSTANCES = 20
CONTACT = "12025550190"
# Short enough for a test; the proportions are those of the defaults.
LEASES = {
    "WAYPOST_SESSIONS_RELEASE_EVERY": "0.1",
    "WAYPOST_SESSIONS_LEASE_TTL": "6",
    "WAYPOST_SESSIONS_CLAIM_EVERY": "0.3",
    "WAYPOST_SESSIONS_RECONCILE_EVERY": "2",
}
# What a loser of its lease may take to let go, once another has logged in with its device.
LETTING_GO = 1.0


@dataclass
class Talk:
    """What was said while something broke.

    ``accepted`` are texts by our id of the message, ``received`` WhatsApp's ids by text.
    """

    accepted: dict[str, str] = field(default_factory=dict)
    received: dict[str, str] = field(default_factory=dict)
    refused: Counter[int] = field(default_factory=Counter)


@dataclass
class Fleet:
    """All of it, running."""

    system: System
    whatsapp: WhatsApp
    customer: Customer
    contact: Contact
    instances: list[dict[str, Any]]
    sessions: list[Process]
    postgres: ChaosProxy
    broker: BrokerNode
    sql: asyncpg.Connection
    said: int = 0

    async def ready(self, *, within: timedelta = timedelta(seconds=60)) -> None:
        """Return once every instance is connected."""

        async def all_ready() -> bool:
            rows = await self.sql.fetch(
                "SELECT status, count(*) FROM sessions.session_states GROUP BY status"
            )
            found = {row[0]: row[1] for row in rows}
            assert found == {"ready": len(self.instances)}, found
            return True

        await eventually(all_ready, within=within, every=timedelta(milliseconds=250))

    async def greet(self) -> None:
        """Everybody has written to everybody before anything breaks."""
        for instance in self.instances:
            hello = f"hello {instance['phoneNumber']}"
            answer = await self.customer.with_key(instance["key"]).text(f"+{CONTACT}", hello)
            assert answer.status == 202, answer.body
            await self.contact.next("message", text=hello)
            await self.contact.text(instance["phoneNumber"].lstrip("+"), hello)

    @asynccontextmanager
    async def talking(self, *, pause: float = 0.05) -> AsyncIterator[Talk]:
        """Both sides talk, one message after another, for as long as the context is open."""
        talk = Talk()
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._send(talk, stop, pause))
            group.create_task(self._receive(talk, stop, pause))
            try:
                yield talk
            finally:
                stop.set()

    async def _send(self, talk: Talk, stop: asyncio.Event, pause: float) -> None:
        while not stop.is_set():
            for instance in self.instances:
                self.said += 1
                text = f"out {self.said}"
                try:
                    answer = await self.customer.with_key(instance["key"]).text(f"+{CONTACT}", text)
                except (aiohttp.ClientError, TimeoutError):
                    talk.refused[0] += 1
                else:
                    if answer.status == 202:
                        talk.accepted[answer.data["id"]] = text
                    else:
                        talk.refused[answer.status] += 1
                if await _ends(stop, pause):
                    return

    async def _receive(self, talk: Talk, stop: asyncio.Event, pause: float) -> None:
        while not stop.is_set():
            for instance in self.instances:
                self.said += 1
                text = f"in {self.said}"
                to = instance["phoneNumber"].lstrip("+")
                talk.received[text] = await self.contact.text(to, text)
                if await _ends(stop, pause):
                    return

    async def _addressed(self, talk: Talk) -> None:
        """Forget what the contact has not addressed to the device that it was for.

        Baileys 7.0.0-rc14 leaves a device out when a first message to it and one from it cross,
        and while it has no session with it; it ignores WhatsApp's hint that it did.
        """
        left_out = {
            sent["id"] for sent in await self.whatsapp.messages(CONTACT) if sent["incomplete"]
        }
        addressed = {text: id_ for text, id_ in talk.received.items() if id_ not in left_out}
        assert len(addressed) > len(talk.received) / 2, left_out
        talk.received = addressed

    async def settled(self, talk: Talk, *, within: timedelta = timedelta(seconds=120)) -> None:
        """Return once all that was said has ended, and everybody has been told."""
        ids = list(talk.accepted)
        await self._addressed(talk)

        async def ended() -> bool:
            rows = await self.sql.fetch(
                "SELECT id::text, status FROM dispatcher.messages WHERE id = ANY($1::uuid[])", ids
            )
            heard = {one["text"] for one in self.contact.all_heard("message")}
            under_way = [
                (talk.accepted[id_], status)
                for id_, status in rows
                if status != "failed" and talk.accepted[id_] not in heard
            ]
            told = set(await self.heard_texts())
            missing = {text: id_ for text, id_ in talk.received.items() if text not in told}
            assert (under_way, missing) == ([], {}), (under_way, missing)
            return True

        await eventually(ended, within=within, every=timedelta(milliseconds=500))

    async def heard_texts(self) -> list[str]:
        """The texts of all ``message.received`` events, with repeats."""
        rows = await self.sql.fetch(
            "SELECT id, tenant_id, body FROM gateway.events WHERE type = 'message.received'"
        )
        return [logged(row)["data"]["content"].get("text") for row in rows]

    async def wrongs(self, talk: Talk) -> list[str]:
        """What was lost, doubled, overtaken or owned twice; nothing, if all is well."""
        return [
            *await self._wrong_outbound(talk),
            *await self._overtaken(talk),
            *await self._wrong_inbound(talk),
            *await self._connected_twice(),
        ]

    async def _wrong_outbound(self, talk: Talk) -> list[str]:
        heard = Counter(one["text"] for one in self.contact.all_heard("message"))
        rows = await self.sql.fetch(
            "SELECT id::text, status, error_code FROM dispatcher.messages"
            " WHERE id = ANY($1::uuid[])",
            list(talk.accepted),
        )
        wrong = []
        for id_, status, code in rows:
            times = heard[talk.accepted[id_]]
            if times > 1 or (status != "failed" and times != 1):
                wrong.append(f"{talk.accepted[id_]} is {status} and was heard {times} times")
            if status == "failed" and code != "UNCONFIRMED":
                wrong.append(f"{talk.accepted[id_]} failed with {code}")
        for instance in self.instances:
            wrong += [
                f"{sent['id']} was put on the wire {sent['sends']} times"
                for sent in await self.whatsapp.messages(instance["phoneNumber"])
                if sent["sends"] != 1
            ]
        return wrong

    async def _overtaken(self, talk: Talk) -> list[str]:
        """What went to WhatsApp in another order than it was accepted in."""
        wrong = []
        for instance in self.instances:
            rows = await self.sql.fetch(
                "SELECT engine_message_id, sequence FROM dispatcher.messages"
                " WHERE instance_id = $1::uuid AND id = ANY($2::uuid[])",
                instance["id"],
                list(talk.accepted),
            )
            sequence = {row[0]: row[1] for row in rows}
            last = 0
            for sent in await self.whatsapp.messages(instance["phoneNumber"]):
                number = sequence.get(sent["id"], last)
                if number < last:
                    wrong.append(f"{sent['id']} ({number}) was overtaken by {last}")
                last = number
        return wrong

    async def _wrong_inbound(self, talk: Talk) -> list[str]:
        heard = Counter(await self.heard_texts())
        return [
            f"{text} was told {heard[text]} times"
            for text in sorted(talk.received)
            if heard[text] != 1
        ]

    async def _connected_twice(self) -> list[str]:
        visits = {one["connection"]: one for one in await self.whatsapp.connections()}
        wrong = []
        for visit in visits.values():
            if visit["replaced_by"] is None:
                continue
            ended = visit["disconnected_at"]
            since = visits[visit["replaced_by"]]["connected_at"]
            if ended is None or ended - since > LETTING_GO:
                wrong.append(f"{visit['phone']} was connected twice: {visit}")
        return wrong


@asynccontextmanager
async def running(folder: Path, database_url: str) -> AsyncIterator[Fleet]:
    """The fleet, paired and connected."""
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(broker_node.running(folder / "broker"))
        postgres = await stack.enter_async_context(_before(database_url))
        whatsapp = await stack.enter_async_context(WhatsApp.running(folder))
        environment = {**LEASES, **waypost_environment(whatsapp)}
        through = _through(database_url, postgres)
        system = await stack.enter_async_context(
            systems.distributed(folder, through, broker.url, **environment)
        )
        second = Process(
            "sessions-2",
            "services.sessions",
            {
                **system.processes["sessions"].environment,
                "WAYPOST_SESSIONS_PORT": str(free_port()),
            },
            folder / "sessions-2.log",
        )
        stack.push_async_callback(second.stop)
        await second.start()
        sql = await asyncpg.connect(database_url)
        stack.push_async_callback(sql.close)
        customer = await stack.enter_async_context(Customer.of(system.url))
        await sql.execute("UPDATE gateway.organizations SET plan = 'max'")
        contact = await stack.enter_async_context(whatsapp.contact("contact", CONTACT))
        # Before there are devices: an instance gets a shard, and so its owner, when it is made.
        await _shared(sql)
        instances = await together(
            *(paired(customer, whatsapp, f"1202556{number:04d}") for number in range(INSTANCES)),
            at_once=4,
        )
        sessions = [system.processes["sessions"], second]
        yield Fleet(system, whatsapp, customer, contact, instances, sessions, postgres, broker, sql)


async def paired(customer: Customer, whatsapp: WhatsApp, number: str) -> dict[str, Any]:
    """A linked device of that number, with its key and without limits."""
    # What nobody knows to have been sent is to end within the test.
    new = {"name": number, "engine": "whatsmeow", "settings": {"unconfirmedAfter": 15}}
    made = await customer.post("/api/instances", new)
    id_ = made.data["id"]
    unlimited = {"perMinute": 0, "perHour": 0, "perDay": 0}
    (await customer.call("PUT", f"/api/instances/{id_}/guard", json=unlimited)).data  # noqa: B018 - asserts success
    (await customer.post(f"/api/instances/{id_}/connect")).data  # noqa: B018 - asserts success
    key = await customer.post(f"/api/instances/{id_}/keys", {"name": "t", "rateLimit": 1_000_000})

    async def code() -> Any:
        answer = await customer.get(
            f"/api/instances/{id_}/qr", headers={"Accept": "application/json"}
        )
        return answer.data["code"] if answer.status == 200 else None

    await whatsapp.scan(number, await eventually(code, within=timedelta(seconds=60)))

    async def ready() -> Any:
        status = (await customer.get(f"/api/instances/{id_}/status")).data
        assert status["status"] == "ready", status
        return status

    status = await eventually(ready, within=timedelta(seconds=60))
    return {**made.data, "key": key.data["key"], "phoneNumber": status["phoneNumber"]}


async def _shared(sql: asyncpg.Connection) -> None:
    async def halves() -> bool:
        rows = await sql.fetch("SELECT count(*) FROM sessions.shards GROUP BY owner")
        assert [row[0] for row in rows] == [32, 32], rows
        return True

    await eventually(halves, within=timedelta(seconds=90), every=timedelta(milliseconds=250))


async def _ends(stop: asyncio.Event, pause: float) -> bool:
    """A steady pace: whether it was told to stop meanwhile."""
    try:
        async with asyncio.timeout(pause):
            return await stop.wait()
    except TimeoutError:
        return False


def _before(database_url: str) -> Any:
    parts = urlsplit(database_url)
    return ChaosProxy.before(parts.hostname or "127.0.0.1", parts.port or 5432)


def _through(database_url: str, proxy: ChaosProxy) -> str:
    parts = urlsplit(database_url)
    login = parts.netloc.rpartition("@")[0]
    host = f"127.0.0.1:{proxy.port}"
    return urlunsplit(parts._replace(netloc=f"{login}@{host}" if login else host))
