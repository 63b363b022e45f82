"""Proxies that tenants might name: they work, refuse, or say nothing; each on loopback."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"


@dataclass
class SilentProxy:
    """Takes every connection and never says a word; with ``agrees``, only that it is through."""

    agrees: bool
    port: int = 0
    asked: list[bytes] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.asked.append(await reader.readuntil(b"\r\n\r\n"))
            if self.agrees:
                writer.write(ESTABLISHED)
            while await reader.read(65536):
                # Only from here on is it known that somebody counts on the connection.
                self.asked.append(b"")
                self.changed.set()
        except (OSError, EOFError):
            pass
        finally:
            writer.close()

    async def counted_on(self, within: float) -> None:
        """Return when something was sent through it, which nothing will come of."""
        async with asyncio.timeout(within):
            await self.changed.wait()


@asynccontextmanager
async def silent(*, agrees: bool) -> AsyncIterator[SilentProxy]:
    """Such a proxy, for as long as the context is open."""
    proxy = SilentProxy(agrees=agrees)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()


@dataclass
class SocksProxy:
    """One for SOCKS5 that wants a user and a password, and echoes instead of connecting."""

    user: str
    password: str
    port: int = 0
    wanted: list[tuple[str, int]] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._agree(reader, writer)
            while portion := await reader.read(1024):
                writer.write(portion)
        except (OSError, EOFError):
            pass
        finally:
            writer.close()

    async def _agree(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, count = await reader.readexactly(2)
        assert 2 in await reader.readexactly(count)
        writer.write(b"\x05\x02")
        await reader.readexactly(1)
        given = [await self._counted(reader) for _ in range(2)]
        known = given == [self.user, self.password]
        writer.write(b"\x01\x00" if known else b"\x01\x01")
        if not known:
            raise EOFError
        assert await reader.readexactly(4) == b"\x05\x01\x00\x03"
        host = await self._counted(reader)
        self.wanted.append((host, int.from_bytes(await reader.readexactly(2), "big")))
        writer.write(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")

    async def _counted(self, reader: asyncio.StreamReader) -> str:
        return (await reader.readexactly((await reader.readexactly(1))[0])).decode()


@asynccontextmanager
async def socks(user: str, password: str) -> AsyncIterator[SocksProxy]:
    """Such a proxy, for as long as the context is open."""
    proxy = SocksProxy(user, password)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
