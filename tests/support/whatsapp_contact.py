"""A WhatsApp contact that is not ours: Baileys in a Node process, spoken with in JSON lines.

What it can be told is in ``tests/whatsapp/contact/saying.mjs``, what it tells in ``hearing.mjs``.
"""

import asyncio
import itertools
import json
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

HOME: Final = Path(__file__).parents[1] / "whatsapp" / "contact"
# Of a line: a message carries no media, only where it is.
LINE_AT_MOST: Final = 1 << 24
# Seconds for anything that should take a fraction of one; a loaded machine is slow.
PATIENCE: Final = 30.0

Heard = dict[str, Any]


@dataclass(frozen=True)
class Reach:
    """Where the server is and how to know that it is the right one."""

    websocket: str
    media_host: str
    noise_root: str
    authority: Path


class Contact:
    """Somebody on WhatsApp. Every wait is bounded and says what it has heard instead."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self.phone = ""
        self.lid = ""
        self.heard: deque[Heard] = deque()
        self._process = process
        self._log = log
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._numbers = itertools.count(1)
        self._news = asyncio.Event()

    @classmethod
    @asynccontextmanager
    async def running(
        cls, name: str, reach: Reach, folder: Path, *, code_for: str | None = None
    ) -> AsyncIterator[Self]:
        """A process of its own; the same ``folder`` is the same device again.

        It shows QR codes, or, with the number ``code_for``, asks for one pairing code.
        """
        own = folder / name
        own.mkdir(parents=True, exist_ok=True)
        settings = {
            "url": reach.websocket,
            "rootKey": reach.noise_root,
            "mediaHost": reach.media_host,
            "folder": str(own),
            "code": code_for,
        }
        log = own / "contact.log"
        with log.open("ab") as errors:
            process = await asyncio.create_subprocess_exec(
                "node",
                str(HOME / "contact.mjs"),
                json.dumps(settings),
                cwd=own,
                env={**os.environ, "NODE_EXTRA_CA_CERTS": str(reach.authority)},
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                limit=LINE_AT_MOST,
            )
        contact = cls(name, process, log)
        listening = asyncio.create_task(contact._listen(), name=f"contact {name}")
        try:
            yield contact
        finally:
            await contact._end()
            await listening

    async def _end(self) -> None:
        assert self._process.stdin is not None
        with suppress(ConnectionError):
            self._process.stdin.close()
        try:
            async with asyncio.timeout(10):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    async def _listen(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            if not line.startswith(b"{"):
                continue  # libsignal prints when it closes a session.
            told = json.loads(line)
            if "answer" in told:
                self._answered(told)
                continue
            if told["event"] in {"paired", "connection"} and told.get("phone"):
                self.phone, self.lid = told["phone"], told.get("lid") or self.lid
            self.heard.append(told)
            self._news.set()
        for waiting in self._asked.values():
            if not waiting.done():
                waiting.set_exception(AssertionError(f"{self.name} has ended; see {self._log}"))
        self._news.set()

    def _answered(self, told: Heard) -> None:
        waiting = self._asked.pop(told["answer"])
        if waiting.done():
            return
        if "error" in told:
            waiting.set_exception(AssertionError(f"{self.name}: {told['error']}"))
        else:
            waiting.set_result(told["result"])

    async def do(self, command: str, *, within: float = PATIENCE, **given: Any) -> Any:
        """One command of ``saying.mjs``, and its result."""
        number = next(self._numbers)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        assert self._process.stdin is not None
        line = json.dumps({"ask": number, "do": command, **given})
        self._process.stdin.write(line.encode() + b"\n")
        await self._process.stdin.drain()
        try:
            async with asyncio.timeout(within):
                return await answer
        except TimeoutError:
            raise AssertionError(f"{self.name} did not {command} within {within:g} s") from None

    async def send(self, kind: str, to: str, **given: Any) -> str:
        """Say something of a kind; returns WhatsApp's id once the server has taken it."""
        return str((await self.do(kind, to=to, **given))["id"])

    async def text(self, to: str, text: str, **given: Any) -> str:
        """Write; returns WhatsApp's id once the server has taken it."""
        return await self.send("text", to, text=text, **given)

    async def next(
        self,
        event: str,
        matching: Callable[[Heard], bool] = lambda heard: True,
        *,
        within: float = PATIENCE,
        **facts: Any,
    ) -> Heard:
        """Take out the first event of this name with these facts, heard already or still to come.

        Others stay for whoever asks for them.
        """
        try:
            async with asyncio.timeout(within):
                while True:
                    for heard in self.heard:
                        if heard["event"] == event and _fits(heard, facts) and matching(heard):
                            self.heard.remove(heard)
                            return heard
                    self._news.clear()
                    assert self._process.returncode is None, f"{self.name} ended; see {self._log}"
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(
                f"{self.name} heard no {event} {facts or ''} within {within:g} s, "
                f"but: {list(self.heard)}"
            ) from None

    async def hears(
        self,
        matching: Callable[[Heard], bool],
        count: int = 1,
        *,
        within: float = PATIENCE,
    ) -> Sequence[Heard]:
        """The first ``count`` that match, heard already or still to come; they stay for others."""
        try:
            async with asyncio.timeout(within):
                while len(found := [heard for heard in self.heard if matching(heard)]) < count:
                    self._news.clear()
                    assert self._process.returncode is None, f"{self.name} ended; see {self._log}"
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(
                f"{self.name} did not hear {count} of that within {within:g} s, "
                f"but: {list(self.heard)}"
            ) from None
        return found[:count]

    async def receipt(self, kind: str, message: str, *, within: float = PATIENCE) -> Heard:
        """Take out the first receipt of a kind for a message that it sent."""
        return await self.next(
            "receipt", lambda heard: message in heard["ids"], within=within, type=kind
        )

    async def connected(self) -> Self:
        """Return once it can send and receive; how it came to that is forgotten."""
        await self.next("connection", state="open")
        arriving = {"qr", "code", "paired", "connection"}
        self.heard = deque(heard for heard in self.heard if heard["event"] not in arriving)
        return self

    def all_heard(self, event: str) -> Sequence[Heard]:
        """What of this name nobody has taken out yet."""
        return [heard for heard in self.heard if heard["event"] == event]


def _fits(heard: Mapping[str, Any], facts: Mapping[str, Any]) -> bool:
    return all(heard.get(name) == value for name, value in facts.items())
