"""The HTTP proxy that brings clients here: whatever host they ask for, they get this server.

A client has WhatsApp's address built in. Given a proxy (``HTTPS_PROXY``, or its own setting) it
asks that for ``CONNECT web.whatsapp.com:443``, and once told 200 speaks TLS with whoever is at the
other end. Credentials in the request are noted, not checked.
"""

import asyncio
import base64
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from typing import Self

CHUNK = 64 * 1024
HEAD_AT_MOST = 16 * 1024
ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
REFUSED = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Proxy:
    """Listens on loopback for as long as the context is open."""

    def __init__(
        self,
        *,
        port: int,
        upstream: int,
        refusing: Callable[[], bool],
        asked: Callable[[str, str], None],
    ) -> None:
        self.port = port
        self._upstream = upstream
        self._refusing = refusing
        self._asked = asked
        self._serving: set[asyncio.Task[None]] = set()
        self._exit = AsyncExitStack()

    async def __aenter__(self) -> Self:
        server = await asyncio.start_server(
            self._accept, "127.0.0.1", self.port, limit=HEAD_AT_MOST
        )
        self._exit.push_async_callback(self._drop_all)
        self._exit.callback(server.close)
        self.port = server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self._exit.aclose()

    async def _drop_all(self) -> None:
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # The client has gone, or is none.
        except asyncio.CancelledError:
            # Only ever by ``_drop_all``; a stream's own callback would report it as a failure.
            pass
        finally:
            self._serving.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        target = head.split(" ", 2)[1]
        if self._refusing():
            writer.write(REFUSED)
            await writer.drain()
            return
        self._asked(target, _user(head))
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self._upstream)
        writer.write(ESTABLISHED)
        try:
            await asyncio.gather(_pump(reader, inner_writer), _pump(inner_reader, writer))
        finally:
            inner_writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
    writer.close()


def _user(head: str) -> str:
    """The user that the request names as ``Proxy-Authorization: Basic``, if any."""
    for line in head.splitlines():
        name, _, value = line.partition(":")
        if name.lower() == "proxy-authorization":
            return base64.b64decode(value.strip().removeprefix("Basic ")).decode().split(":")[0]
    return ""
