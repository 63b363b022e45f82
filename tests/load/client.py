"""A load generator that costs little: keep-alive connections, each with one request under way."""

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import cast

from typing_extensions import override


def request(path: str, headers: dict[str, str], body: bytes) -> bytes:
    """A POST of JSON, as it goes over the wire."""
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: 127.0.0.1",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@dataclass
class Result:
    """What a run saw. ``seconds`` is from the first request to the last answer."""

    accepted: int = 0
    refused: int = 0
    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Accepted a second."""
        return self.accepted / self.seconds if self.seconds else 0.0


class _Connection(asyncio.Protocol):
    def __init__(self, requests: Iterator[bytes], result: Result, more: Callable[[], bool]) -> None:
        self._requests = requests
        self._result = result
        self._more = more
        self._buffer = b""
        self._sent_at = 0.0
        self._transport: asyncio.WriteTransport | None = None
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not registered with the classes that they follow.
        self._transport = cast("asyncio.WriteTransport", transport)
        self._next()

    @override
    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head = self._buffer.find(b"\r\n\r\n")
        if head < 0:
            return
        lowered = self._buffer[:head].lower()
        at = lowered.index(b"content-length:") + 15
        length = int(lowered[at:].split(b"\r\n", 1)[0])
        if len(self._buffer) < head + 4 + length:
            return
        if self._buffer[9:12] in {b"202", b"200"}:
            self._result.accepted += 1
        else:
            self._result.refused += 1
        self._result.latencies.append(time.perf_counter() - self._sent_at)
        self._buffer = self._buffer[head + 4 + length :]
        self._next()

    @override
    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(error or ConnectionResetError("closed by the server"))

    def _next(self) -> None:
        assert self._transport is not None
        following = next(self._requests, None) if self._more() else None
        if following is None:
            self.done.set_result(None)
            self._transport.close()
            return
        self._sent_at = time.perf_counter()
        self._transport.write(following)


async def closed_loop(
    port: int, requests: Iterator[bytes], *, connections: int = 64, seconds: float | None = None
) -> Result:
    """Keep every connection busy until the requests or the seconds are used up."""
    result = Result()
    loop = asyncio.get_running_loop()
    started = time.perf_counter()

    def more() -> bool:
        return seconds is None or time.perf_counter() - started < seconds

    made = [
        await loop.create_connection(lambda: _Connection(requests, result, more), "127.0.0.1", port)
        for _ in range(connections)
    ]
    await asyncio.gather(*(protocol.done for _, protocol in made))
    result.seconds = time.perf_counter() - started
    return result


class Sink(asyncio.Protocol):
    """A webhook receiver that answers 200 and calls back with each body."""

    ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

    def __init__(self, got: Callable[[bytes], None]) -> None:
        self._got = got
        self._buffer = b""
        self._transport: asyncio.WriteTransport | None = None

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not registered with the classes that they follow.
        self._transport = cast("asyncio.WriteTransport", transport)

    @override
    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (head := self._buffer.find(b"\r\n\r\n")) >= 0:
            lowered = self._buffer[:head].lower()
            at = lowered.index(b"content-length:") + 15
            end = head + 4 + int(lowered[at:].split(b"\r\n", 1)[0])
            if len(self._buffer) < end:
                return
            self._got(self._buffer[head + 4 : end])
            self._buffer = self._buffer[end:]
            assert self._transport is not None
            self._transport.write(self.ANSWER)


async def listen(got: Callable[[bytes], None]) -> tuple[asyncio.Server, str]:
    """A sink on loopback and its URL."""
    server = await asyncio.get_running_loop().create_server(lambda: Sink(got), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    return server, f"http://127.0.0.1:{port}/hooks"
