"""The whatsmeow engine against a local WhatsApp, with everything around it that a test needs."""

import itertools
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from services.sessions.domain.lease import Lease
from services.sessions.engines.port import (
    Connected,
    EngineEvent,
    Opening,
    Outgoing,
    Qr,
    Sink,
)
from services.sessions.engines.whatsmeow.credentials import store_url
from services.sessions.engines.whatsmeow.engine import WhatsmeowEngine
from services.sessions.engines.whatsmeow.workers import Terms
from services.sessions.store.fence import Fence
from shared.clock import SystemClock
from shared.contracts.content import Text
from shared.db.database import Database
from shared.db.tables.grants import role
from shared.ids import new_id
from tests.support.leases import take_shard
from tests.support.sessions import engine_id
from tests.support.sink import Sink as Taking
from tests.support.whatsapp import TooLate, WhatsApp
from tests.whatsapp import trust
from tests.whatsapp_suite.driving_neonize import Clients, clients

CONTACT = "491510000777"
_numbers = itertools.count(4915100001001)


def a_number() -> str:
    """A telephone number that no other device has, in digits."""
    return str(next(_numbers))


def words(to: str, text: str = "Hello") -> Outgoing:
    """A message to hand over; ``to`` is a number or an address."""
    address = to if "@" in to else f"{to}@s.whatsapp.net"
    return Outgoing(engine_message_id=engine_id(new_id()), to=address, content=Text(text=text))


def environment(whatsapp: WhatsApp) -> dict[str, str]:
    """What a worker inherits, so that its neonize finds the local WhatsApp and trusts it."""
    return trust.environment(
        noise_root_hex=whatsapp.ready.noise_root,
        authority=whatsapp.ready.ca,
        inherited={
            "PATH": os.environ["PATH"],
            "HTTPS_PROXY": f"http://127.0.0.1:{whatsapp.ready.proxy}",
        },
    )


async def at_once() -> None:
    """A turn to log in, for whoever asks."""


def an_engine(
    database_url: str,
    database: Database,
    whatsapp: WhatsApp,
    *,
    silence: float = 10.0,
    sessions: int = 20,
    **given: Any,
) -> WhatsmeowEngine:
    """The engine, as the session service makes it."""
    return WhatsmeowEngine(
        database=database,
        fence=Fence(database),
        clock=SystemClock(),
        terms=Terms(
            store=store_url(database_url, role=role("sessions")),
            silence=timedelta(seconds=silence),
            sessions=sessions,
            environment=given.pop("environment", environment(whatsapp)),
        ),
        **{"permits": lambda _: True, "login": at_once, **given},
    )


@dataclass
class Scanning:
    """A sink in front of another, that has a phone scan each code that is shown.

    None while ``scan`` is false, and never those of the instances that are ``unscanned``.
    """

    whatsapp: WhatsApp
    inner: Sink
    numbers: dict[UUID, str] = field(default_factory=dict)
    scan: bool = True
    unscanned: set[UUID] = field(default_factory=set)

    async def __call__(self, events: Sequence[EngineEvent]) -> Sequence[bool]:
        taken = await self.inner(events)
        for event, was in zip(events, taken, strict=True):
            if not (self.scan and was and isinstance(event, Qr)):
                continue
            if event.instance_id not in self.unscanned:
                number = self.numbers.setdefault(event.instance_id, a_number())
                with suppress(TooLate):  # the session was closed meanwhile
                    await self.whatsapp.scan(number, event.code)
        return taken


class Town:
    """An engine, a WhatsApp, and somebody there to talk to."""

    def __init__(self, *, whatsapp: WhatsApp, database: Database, url: str, folder: Path) -> None:
        self.whatsapp = whatsapp
        self.database = database
        self.url = url
        self.sink = Taking()
        self.scanning = Scanning(whatsapp, self.sink)
        self._folder = folder
        self._contact: Clients | None = None
        self._stack = AsyncExitStack()

    @classmethod
    @asynccontextmanager
    async def running(cls, url: str, folder: Path) -> AsyncIterator["Town"]:
        """A server, and connections to a database."""
        async with (
            WhatsApp.running(folder, "--trace") as whatsapp,
            Database.open(url, role=role("sessions")) as database,
        ):
            town = cls(whatsapp=whatsapp, database=database, url=url, folder=folder)
            async with town._stack:
                yield town
                assert [one for one in await whatsapp.unknown() if "presence" not in one] == []

    @asynccontextmanager
    async def engine(self, **given: Any) -> AsyncIterator[WhatsmeowEngine]:
        """An engine at work, whose sink is this town's."""
        engine = an_engine(self.url, self.database, self.whatsapp, **given)
        async with engine.events(self.scanning):
            yield engine

    async def opening(self, lease: Lease | None = None, **given: Any) -> Opening:
        """A session that is to be opened."""
        return Opening(
            instance_id=new_id(),
            tenant_id=new_id(),
            lease=lease or await take_shard(self.database),
            phone_number=None,
            settings={},
            **given,
        )

    async def opened(self, engine: WhatsmeowEngine, **given: Any) -> Opening:
        """A session that is connected; its phone was linked just now."""
        opening = await self.opening(**given)
        await engine.open(opening)
        await self.sink.first(Connected, opening.instance_id)
        return opening

    def number(self, opening: Opening) -> str:
        """The number of a session's phone."""
        return self.scanning.numbers[opening.instance_id]

    async def contact(self) -> Clients:
        """Somebody with a client: ``contact``, at ``CONTACT``."""
        if self._contact is None:
            process = await self._stack.enter_async_context(clients(self.whatsapp))
            await self.whatsapp.add_phone(CONTACT)
            await process.do(
                "contact",
                "open",
                store=str(self._folder / "contact.db"),
                proxy=f"http://127.0.0.1:{self.whatsapp.ready.proxy}",
            )
            await self.whatsapp.scan(CONTACT, (await process.heard("contact", "qr"))["qr"])
            await process.heard("contact", "connected")
            self._contact = process
        return self._contact

    async def write(self, opening: Opening, text: str) -> str:
        """Have the contact write to a session; WhatsApp's id of it."""
        contact = await self.contact()
        return str(await contact.do("contact", "text", to=self.number(opening), text=text))
