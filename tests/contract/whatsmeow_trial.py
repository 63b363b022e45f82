"""The whatsmeow engine on trial, with power over a WhatsApp of its own."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID

import aiohttp

from services.sessions.domain.lease import Lease
from services.sessions.engines.port import Engine, NotOnWhatsApp, Sink
from tests.support.leases import take_shard
from tests.support.linked_devices import Scanning, Town, an_engine

# Somebody without a client: the admin API says what became of what they were sent.
ORDINARY = "491510000888"


class WhatsmeowTrial:
    """Linked devices, against a local server."""

    ordinary = f"{ORDINARY}@s.whatsapp.net"
    refusing: Mapping[str, type[Exception]] = {"491510000999@s.whatsapp.net": NotOnWhatsApp}

    def __init__(self, town: Town) -> None:
        self._town = town
        self.engine: Engine = an_engine(town.url, town.database, town.whatsapp)

    def settings(self, instance_id: UUID) -> Mapping[str, object]:
        return {}

    def watched(self, sink: Sink) -> Sink:
        """The sink, with a phone that scans each code."""
        self._town.scanning = Scanning(self._town.whatsapp, sink)
        return self._town.scanning

    async def owned(self) -> Lease:
        return await take_shard(self._town.database)

    async def taken_over(self, lease: Lease) -> Lease:
        return await take_shard(self._town.database, owner="them", shard=lease.shard)

    async def write(self, instance_id: UUID, text: str) -> None:
        number = self._town.scanning.numbers[instance_id]
        contact = await self._town.contact()
        await contact.do("contact", "text", to=number, text=text)

    async def silenced(self, instance_id: UUID) -> str:
        number = self._town.scanning.numbers[instance_id]
        await self._town.whatsapp.fault("no_ack", phone=number)
        return self.ordinary

    async def read_what_comes(self) -> None:
        """Receive and read, for whoever has no client, until cancelled."""
        whatsapp, seen = self._town.whatsapp, 0
        at = f"http://127.0.0.1:{whatsapp.ready.admin}/phones/{ORDINARY}/receipts"
        async with aiohttp.ClientSession(raise_for_status=True) as http:
            while True:
                said = await whatsapp.happening("message", after=seen, within=3600, to=ORDINARY)
                seen = said["n"]
                for kind in ("delivered", "read"):
                    told = {"to": said["phone"], "ids": [said["id"]], "type": kind}
                    async with http.post(at, json=told):
                        pass


@asynccontextmanager
async def whatsmeow(database_url: str) -> AsyncIterator[WhatsmeowTrial]:
    """A trial, with a server that is there for one test."""
    with TemporaryDirectory(prefix="waypost-tests-") as folder:
        async with Town.running(database_url, Path(folder)) as town:
            await town.whatsapp.add_phone(ORDINARY)
            trial = WhatsmeowTrial(town)
            reading = asyncio.create_task(trial.read_what_comes())
            try:
                yield trial
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
