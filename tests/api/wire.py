"""HTTP/1.1 by hand: what a fuzzer sends no client library would, and every answer is looked at."""

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

LONGEST_ANSWER = 64 * 1024 * 1024


@dataclass(frozen=True)
class Reply:
    """One answer. ``body`` is whole; ``closes`` says that the connection ends with it."""

    status: int
    headers: dict[str, str]
    body: bytes
    closes: bool

    @property
    def json(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)


class NoReplyError(Exception):
    """The connection ended, or nothing came in time, before an answer was whole."""


@dataclass
class Wire:
    """One connection to the server."""

    port: int
    deadline: float = 45.0
    reader: asyncio.StreamReader | None = None
    writer: asyncio.StreamWriter | None = None
    interim: list[int] = field(default_factory=list)

    async def opened(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """The streams; of a new connection if there is none."""
        if self.reader is None or self.writer is None:
            self.reader, self.writer = await asyncio.open_connection(
                "127.0.0.1", self.port, limit=LONGEST_ANSWER
            )
        return self.reader, self.writer

    async def send(self, raw: bytes) -> None:
        """Send bytes; what the server no longer takes is no error: it may have answered already."""
        _, writer = await self.opened()
        try:
            async with asyncio.timeout(self.deadline):
                writer.write(raw)
                await writer.drain()
        except ConnectionError:
            pass
        except TimeoutError:
            raise NoReplyError("the server takes nothing more") from None

    async def reply(self, *, head: bool = False) -> Reply:
        """The next answer."""
        reader, _ = await self.opened()
        try:
            async with asyncio.timeout(self.deadline):
                answer = await self._read(reader, head=head)
                while answer.status < 200:
                    self.interim.append(answer.status)
                    answer = await self._read(reader, head=head)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            await self.close()
            raise NoReplyError(type(error).__name__) from error
        except TimeoutError as error:
            await self.close()
            raise NoReplyError("nothing came in time") from error
        if answer.closes:
            await self.close()
        return answer

    async def close(self, *, abort: bool = False) -> None:
        """End the connection; with ``abort`` as a crash of the caller would."""
        writer, self.reader, self.writer = self.writer, None, None
        if writer is None:
            return
        if abort:
            writer.transport.abort()
        writer.close()
        try:
            async with asyncio.timeout(self.deadline):
                await writer.wait_closed()
        except (ConnectionError, TimeoutError):
            writer.transport.abort()

    async def _read(self, reader: asyncio.StreamReader, *, head: bool) -> Reply:
        first = (await reader.readuntil(b"\r\n")).decode("latin-1").split(" ", 2)
        assert first[0].startswith("HTTP/"), first
        status = int(first[1])
        headers: dict[str, str] = {}
        while line := (await reader.readuntil(b"\r\n")).strip():
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        closes = first[0] != "HTTP/1.1" or headers.get("connection", "").lower() == "close"
        body = b"" if head or status < 200 or status in {204, 304} else await _body(reader, headers)
        return Reply(status, headers, body, closes)


async def _body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    if headers.get("transfer-encoding") == "chunked":
        parts = []
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            parts.append(await reader.readexactly(size))
            await reader.readexactly(2)
        await reader.readuntil(b"\r\n")
        return b"".join(parts)
    if "content-length" in headers:
        return await reader.readexactly(int(headers["content-length"]))
    return await reader.read(LONGEST_ANSWER)
