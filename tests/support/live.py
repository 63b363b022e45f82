"""Live clients that are not ours: npm's socket.io-client in Node, and one that does not read."""

import asyncio
import base64
import itertools
import json
import os
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import urlsplit

from tests.support import node

EXAMPLES: Final = Path(__file__).parents[2] / "docs" / "examples" / "live"
HERE: Final = Path(__file__).parent
PATIENCE: Final = 20.0

Told = dict[str, Any]


class LiveClient:
    """A Node process that tells in JSON lines what happens to it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._told: deque[Told] = deque()
        self._news = asyncio.Event()
        self._numbers = itertools.count(1)

    @classmethod
    @asynccontextmanager
    async def running(cls, *command: str) -> AsyncIterator[Self]:
        """``node`` with these arguments, ended when the context is left."""
        process = await asyncio.create_subprocess_exec(
            "node",
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 22,
        )
        client = cls(process)
        listening = asyncio.create_task(client._listen(), name="live client")
        try:
            yield client
        finally:
            await client.end()
            await listening

    @classmethod
    @asynccontextmanager
    async def connecting(
        cls, url: str, auth: Told | None = None, **more: Any
    ) -> AsyncIterator[Self]:
        """A Socket.IO client; ``more`` are its options."""
        node.install(EXAMPLES)
        options = {"url": url, "transports": ["websocket"], "auth": auth, **more}
        async with cls.running(str(HERE / "live_client.mjs"), json.dumps(options)) as client:
            yield client

    @classmethod
    @asynccontextmanager
    async def connected(
        cls, url: str, auth: Told | None = None, **more: Any
    ) -> AsyncIterator[Self]:
        """One that is let in."""
        async with cls.connecting(url, auth, **more) as client:
            await client.next("connect")
            yield client

    async def end(self) -> None:
        """Let it close and exit."""
        assert self._process.stdin is not None
        with suppress(ConnectionError):
            self._process.stdin.close()
        try:
            async with asyncio.timeout(10):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    async def next(self, at: str, *, where: Callable[[Told], bool] | None = None) -> Told:
        """The first thing of a sort that it tells, now or soon; it is taken away."""
        try:
            async with asyncio.timeout(PATIENCE):
                while True:
                    self._news.clear()
                    for told in self._told:
                        if told["at"] == at and (where is None or where(told)):
                            self._told.remove(told)
                            return told
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"no {at}, but {list(self._told)[-5:]}") from None

    async def event(self, name: str | None = None) -> Told:
        """The next event that is one of ours."""

        def wanted(told: Told) -> bool:
            said = str(told["name"])
            return said != "cursor" if name is None else said == name

        event: Told = (await self.next("event", where=wanted))["event"]
        return event

    def heard(self) -> list[str]:
        """The ids of events that nobody has asked for yet."""
        return [told["event"]["id"] for told in self._told if "id" in told.get("event", {})]

    async def say(self, name: str, said: Any) -> Told:
        """Emit something; the answer."""
        number = next(self._numbers)
        assert self._process.stdin is not None
        line = json.dumps({"id": number, "emit": name, "said": said})
        self._process.stdin.write(line.encode() + b"\n")
        await self._process.stdin.drain()
        answer: Told = (await self.next("ack", where=lambda told: told["id"] == number))["answer"]
        return answer

    async def _listen(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            told = json.loads(line)
            self._told.append(told if "at" in told else {"at": "event", "name": "", "event": told})
            self._news.set()


@asynccontextmanager
async def deaf_client(url: str, auth: Told) -> AsyncIterator[socket.socket]:
    """A WebSocket that is let in, and whose owner does not read from then on."""
    where = urlsplit(url)
    loop = asyncio.get_running_loop()
    with socket.socket() as wire:
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        wire.setblocking(False)
        await loop.sock_connect(wire, (where.hostname, where.port))
        key = base64.b64encode(os.urandom(16)).decode()
        await loop.sock_sendall(
            wire,
            f"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: {where.netloc}\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: {key}\r\n\r\n".encode(),
        )
        await _until(wire, b"pingTimeout")
        await loop.sock_sendall(wire, _masked(f"40{json.dumps(auth)}".encode()))
        await _until(wire, b'40{"sid"')
        yield wire


async def _until(wire: socket.socket, sign: bytes) -> None:
    seen = b""
    async with asyncio.timeout(PATIENCE):
        while sign not in seen:
            part = await asyncio.get_running_loop().sock_recv(wire, 64)
            assert part, seen
            seen += part


def _masked(text: bytes) -> bytes:
    """A text frame of a client: https://datatracker.ietf.org/doc/html/rfc6455#section-5.2."""
    mask = os.urandom(4)
    length = (
        bytes([0x80 | len(text)]) if len(text) < 126 else b"\xfe" + struct.pack("!H", len(text))
    )
    body = bytes(byte ^ mask[place % 4] for place, byte in enumerate(text))
    return b"\x81" + length + mask + body
