"""A process of neonize clients, as tests see it."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

from tests.support.whatsapp import WhatsApp
from tests.whatsapp import trust

ROOT = Path(__file__).parents[2]
PATIENCE = 30.0  # Seconds; for what takes less than two, on a machine that is busy.
LINE_AT_MOST = 1 << 24

Facts = dict[str, Any]


class Clients:
    """A process of neonize clients."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._numbers = count(1)
        self._answers: dict[int, Facts] = {}
        self._heard: list[Facts] = []
        self._news = asyncio.Condition()

    async def do(self, client: str, order: str, /, **details: Any) -> Any:
        """Have a client do something; its answer, or ``Refusal``."""
        number = next(self._numbers)
        assert self._process.stdin is not None
        line = json.dumps({"n": number, "client": client, "do": order, **details})
        self._process.stdin.write(line.encode() + b"\n")
        answer = await self._until(lambda: self._answers.pop(number, None), f"{client} {order}")
        if "error" in answer:
            raise Refusal(answer["error"])
        return answer["value"]

    async def heard(self, client: str, what: str, /, **facts: Any) -> Facts:
        """What a client hears next of a kind, taken out of what it has heard."""

        def found() -> Facts | None:
            for at, event in enumerate(self._heard):
                wanted = {"client": client, "heard": what, **facts}
                if wanted.items() <= event.items():
                    return self._heard.pop(at)
            return None

        return await self._until(found, f"{client} to hear {what} {facts}")

    def overheard(self, client: str, what: str, /, **facts: Any) -> list[Facts]:
        """What a client has heard of a kind and nobody has asked for."""
        wanted = {"client": client, "heard": what, **facts}
        return [event for event in self._heard if wanted.items() <= event.items()]

    async def listen(self) -> None:
        """Take in what the process says, until it ends."""
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            said = json.loads(line)
            async with self._news:
                if "n" in said:
                    self._answers[said["n"]] = said
                else:
                    self._heard.append(said)
                self._news.notify_all()

    async def _until(self, found: Callable[[], Facts | None], wanted: str) -> Facts:
        try:
            async with asyncio.timeout(PATIENCE), self._news:
                while (answer := found()) is None:
                    await self._news.wait()
                return answer
        except TimeoutError:
            heard = [{k: v for k, v in event.items() if k != "raw"} for event in self._heard]
            raise AssertionError(f"waited for {wanted}; heard {heard}") from None


class Refusal(Exception):
    """What neonize raised."""


@asynccontextmanager
async def clients(
    whatsapp: WhatsApp, *, without: str = "", program: str = "tests.whatsapp_suite.neonize_clients"
) -> AsyncIterator[Clients]:
    """A process of clients that trust a server, unless ``without`` what makes them."""
    environment = trust.environment(
        noise_root_hex=whatsapp.ready.noise_root,
        authority=whatsapp.ready.ca,
        inherited={**os.environ, "NEONIZE_BOT_TAG": "off"},
    )
    environment.pop(without, None)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        program,
        stdin=PIPE,
        stdout=PIPE,
        cwd=ROOT,
        env=environment,
        limit=LINE_AT_MOST,
    )
    made = Clients(process)
    listening = asyncio.create_task(made.listen())
    try:
        yield made
    finally:
        process.kill()
        await process.wait()
        await listening
