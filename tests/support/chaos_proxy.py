"""A TCP proxy that can be told to misbehave, to stand between a service and what it depends on."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Self

CHUNK = 64 * 1024
# Closing with a linger of zero seconds sends a reset instead of a goodbye.
RESET = struct.pack("ii", 1, 0)


class ChaosProxy:
    """Passes bytes on, until told otherwise; each misbehaviour lasts until ``heal``.

    ``reset`` breaks the connections there are, and lets new ones through. ``refuse`` breaks them
    too, and nothing listens any more. ``blackhole`` keeps every connection, accepts new ones, and
    lets nothing through in either direction; what was sent meanwhile arrives after ``heal``.
    ``stall`` does that to the connections there are, for ever, and lets new ones through.
    """

    def __init__(self, host: str, port: int) -> None:
        self.port = 0
        self.accepted = 0
        self._upstream = host, port
        self._passing = asyncio.Event()
        self._passing.set()
        self._server: asyncio.Server | None = None
        self._sockets: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()

    @classmethod
    @asynccontextmanager
    async def before(cls, host: str, port: int) -> AsyncIterator[Self]:
        """A proxy on a port of its own (``port``) for as long as the context is open."""
        proxy = cls(host, port)
        await proxy._listen()
        try:
            yield proxy
        finally:
            await proxy.refuse()
            for task in proxy._serving:
                task.cancel()
            await asyncio.gather(*proxy._serving, return_exceptions=True)

    async def heal(self) -> None:
        self._passing.set()
        if self._server is None:
            await self._listen()

    def blackhole(self) -> None:
        self._passing.clear()

    def stall(self) -> None:
        self._passing.clear()
        self._passing = asyncio.Event()
        self._passing.set()

    def reset(self) -> None:
        for writer in list(self._sockets):
            end = writer.get_extra_info("socket")
            with suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            writer.transport.abort()

    async def refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None
        self.reset()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.accepted += 1
        passing = self._passing
        self._serving.add(task)
        self._sockets.add(writer)
        try:
            await passing.wait()
            upstream = await asyncio.open_connection(*self._upstream)
            self._sockets.add(upstream[1])
            try:
                async with asyncio.TaskGroup() as both:
                    both.create_task(self._pump(reader, upstream[1], passing))
                    both.create_task(self._pump(upstream[0], writer, passing))
            finally:
                await self._drop(upstream[1])
        except* OSError:
            pass
        finally:
            await self._drop(writer)
            self._serving.discard(task)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, passing: asyncio.Event
    ) -> None:
        while data := await reader.read(CHUNK):
            await passing.wait()
            writer.write(data)
            await writer.drain()
        # One side has said goodbye, which ends the other.
        raise ConnectionResetError

    async def _drop(self, writer: asyncio.StreamWriter) -> None:
        self._sockets.discard(writer)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
