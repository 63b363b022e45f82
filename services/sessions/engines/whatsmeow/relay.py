"""The only proxy that a worker ever speaks with: ours, on loopback, one for each run of a session.

whatsmeow dials without a deadline that we could set, keeps a session locked while it does, and
neonize cannot stop a session that is locked; so whoever owned the proxy could hold a worker with
all the sessions in it. Here every step towards the proxy has its deadline, and what stalls later
can be cut from this side. The worker does not even learn the proxy's address or password.
"""

import asyncio
import secrets
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from hmac import compare_digest
from typing import Final

from services.sessions.engines.whatsmeow.tunnels import PORTION, NoWay, Tunnel, Way

# Of one session at a time: its socket, and files on their way.
MOST: Final = 64
# For a worker to say what it wants, in seconds.
ASKING: Final = 5.0
USER: Final = "session"

_HEAD_END: Final = b"\r\n\r\n"
_ESTABLISHED: Final = b"HTTP/1.1 200 Connection established\r\n\r\n"
_REFUSED: Final = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Relay:
    """Carries the connections of one run. ``url`` is what the worker is to use as its proxy."""

    def __init__(self, way: Way) -> None:
        self._way = way
        self._word = secrets.token_urlsafe(16)
        self._port = 0
        self._server: asyncio.Server | None = None
        self._over = False
        self._carrying: set[asyncio.Task[None]] = set()

    @classmethod
    @asynccontextmanager
    async def along(cls, way: Way) -> AsyncIterator["Relay"]:
        """A relay that is there for as long as the context is open."""
        relay = cls(way)
        server = await asyncio.start_server(relay._accept, "127.0.0.1", 0, limit=PORTION)
        relay._server, relay._port = server, server.sockets[0].getsockname()[1]
        try:
            yield relay
        finally:
            relay.cut()
            await asyncio.gather(*relay._carrying, return_exceptions=True)

    @property
    def url(self) -> str:
        """Its address, with a word that nobody else on this machine knows."""
        return f"http://{USER}:{self._word}@127.0.0.1:{self._port}"

    def cut(self) -> None:
        """Break all connections this instant, and take no more."""
        self._over = True
        if self._server is not None:
            self._server.close()
        for task in self._carrying:
            task.cancel()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or self._over or len(self._carrying) >= MOST:
            writer.transport.abort()
            return
        self._carrying.add(task)
        try:
            await self._carry(reader, writer)
        except (OSError, EOFError, asyncio.LimitOverrunError):
            pass  # One of the two has gone, or does not speak as it should.
        except asyncio.CancelledError:
            # By ``cut`` alone; the stream's own callback would report it as a failure.
            pass
        finally:
            self._carrying.discard(task)
            writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(ASKING):
            head = await reader.readuntil(_HEAD_END)
        far = await self._far_end(head)
        if far is None:
            writer.write(_REFUSED)
            await writer.drain()
            writer.close()
            await writer.wait_closed()
            return
        far_reader, far_writer = far
        try:
            writer.write(_ESTABLISHED)
            async with asyncio.TaskGroup() as group:
                group.create_task(_pump(reader, far_writer))
                group.create_task(_pump(far_reader, writer))
        finally:
            far_writer.transport.abort()

    async def _far_end(self, head: bytes) -> Tunnel | None:
        target = self._target(head)
        if target is None:
            return None
        try:
            return await self._way.through(*target)
        except NoWay:
            return None

    def _target(self, head: bytes) -> tuple[str, int] | None:
        """Where a worker wants to be connected to; ``None`` if it is none of ours."""
        first, *lines = head.decode("latin-1").split("\r\n")
        told = b64encode(f"{USER}:{self._word}".encode()).decode()
        wanted = f"Basic {told}"
        headers = {name.lower(): value.strip() for name, _, value in map(_parted, lines)}
        given = headers.get("proxy-authorization", "")
        method, _, rest = first.partition(" ")
        host, _, port = rest.partition(" ")[0].rpartition(":")
        knows = compare_digest(given.encode("latin-1"), wanted.encode())
        if method != "CONNECT" or not knows or not host.isascii() or not port.isdecimal():
            return None
        return host.strip("[]"), int(port)


def _parted(line: str) -> tuple[str, str, str]:
    return line.partition(":")


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry until one end has said all; the other is told so."""
    with suppress(OSError):
        while portion := await reader.read(PORTION):
            writer.write(portion)
            await writer.drain()
    writer.close()
