"""What callers do with their sockets: too slowly, too early, half, never, or all at once."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Final

from tests.api.wire import NoReplyError, Reply, Wire

Headers = Mapping[str, str]
_PATH: Final = "/api/instances"


@dataclass
class Seen:
    """What came of a scene; ``wrong`` says what should have."""

    replies: list[tuple[bytes, Reply]] = field(default_factory=list)
    wrong: str | None = None


Scene = Callable[[Wire, Random, Headers], Awaitable[Seen]]


def _head(method: str, path: str, headers: Headers, **more: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in more.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _post(headers: Headers, length: int) -> bytes:
    return _head(
        "POST", _PATH, headers, Content_Type="application/json", Content_Length=str(length)
    )


async def _ended(wire: Wire, raw: bytes) -> Seen:
    """An answer, or the end of the connection: one of them has to come in time."""
    try:
        return Seen([(raw, await wire.reply())])
    except NoReplyError as error:
        wrong = str(error) if "in time" in str(error) else None
        return Seen(wrong=wrong)
    finally:
        await wire.close()


async def _slow_head(wire: Wire, random: Random, headers: Headers) -> Seen:
    """A byte at a time, for ever: the server has to end it."""
    reader, writer = await wire.opened()
    raw = _head("GET", _PATH, headers, X_Slow="y" * 8000)
    answer = asyncio.ensure_future(reader.read(1))
    try:
        for byte in raw:
            if answer.done():
                break
            writer.write(bytes([byte]))
            await asyncio.wait({answer}, timeout=0.05)
        return Seen(wrong=None if answer.done() else "a head may take for ever")
    finally:
        answer.cancel()
        await asyncio.gather(answer, return_exceptions=True)
        await wire.close()


async def _slow_body(wire: Wire, random: Random, headers: Headers) -> Seen:
    """A body that never is there whole is answered 408."""
    raw = _post(headers, 1000)
    await wire.send(raw + b'{"name":')
    seen = await _ended(wire, raw)
    if seen.wrong is None and [reply.status for _, reply in seen.replies] != [408]:
        seen.wrong = f"is not told that its body took too long: {seen.replies}"
    return seen


async def _half_closed(wire: Wire, random: Random, headers: Headers) -> Seen:
    """Nothing more will be sent: in the middle of a body, or after a whole request."""
    raw = _post(headers, 100) + b"{" if random.random() < 0.5 else _head("GET", _PATH, headers)
    await wire.send(raw)
    _, writer = await wire.opened()
    writer.write_eof()
    return await _ended(wire, raw)


async def _pipelined(wire: Wire, random: Random, headers: Headers) -> Seen:
    """Many requests at once are answered each, and in order."""
    names = [f"p{number}" for number in range(random.randint(2, 60))]
    await wire.send(
        b"".join(_head("GET", "/api/version", headers, X_Request_Id=name) for name in names)
    )
    replies = [(name.encode(), await wire.reply()) for name in names]
    await wire.close()
    got = [reply.headers["x-request-id"] for _, reply in replies]
    return Seen(replies, None if got == names else f"answered {got[:5]} in the place of {names}")


async def _endless(wire: Wire, random: Random, headers: Headers) -> Seen:
    """Chunks without end: too much or too long, whichever is first."""
    raw = _head(
        "POST", _PATH, headers, Content_Type="application/json", Transfer_Encoding="chunked"
    )
    await wire.send(raw)
    _, writer = await wire.opened()
    answer = asyncio.ensure_future(wire.reply())
    try:
        while not answer.done() and not writer.is_closing():
            writer.write(b"400\r\n" + b" " * 1024 + b"\r\n")
            await asyncio.wait({answer}, timeout=0.001)
        reply = await answer
    except NoReplyError:
        return Seen(wrong="chunks without end are not answered")
    finally:
        await wire.close(abort=True)
    told = reply.status in {408, 413}
    return Seen([(raw, reply)], None if told else f"answered {reply.status}")


async def _gone_uploading(wire: Wire, random: Random, headers: Headers) -> Seen:
    """The caller is gone in the middle of a file."""
    raw = _head(
        "POST", "/api/media", headers,
        Content_Type="multipart/form-data; boundary=b", Content_Length="9000000",
    )  # fmt: skip
    part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
    await wire.send(raw + part + b"\x89PNG" * random.choice((1, 20_000)))
    await wire.close(abort=random.random() < 0.5)
    return Seen()


async def _gone_downloading(wire: Wire, random: Random, headers: Headers) -> Seen:
    """The caller is gone in the middle of an answer, or never takes it."""
    await wire.send(_head("GET", "/docs/swagger-ui-bundle.js", headers) * random.randint(1, 20))
    reader, _ = await wire.opened()
    try:
        async with asyncio.timeout(10):
            await reader.read(random.choice((1, 1000, 100_000)))
    except (ConnectionError, TimeoutError):
        return Seen(wrong="nothing came of a file")
    finally:
        await wire.close(abort=random.random() < 0.7)
    return Seen()


async def _continued(wire: Wire, random: Random, headers: Headers) -> Seen:
    """Who asks first whether a body is wanted is told so."""
    body = b'{"name": "x", "engine": "nothing"}'
    raw = _head(
        "POST", _PATH, headers,
        Content_Type="application/json", Content_Length=str(len(body)), Expect="100-continue",
    )  # fmt: skip
    await wire.send(raw)
    reader, _ = await wire.opened()
    try:
        async with asyncio.timeout(10):
            interim = await reader.readuntil(b"\r\n\r\n")
    except (TimeoutError, asyncio.IncompleteReadError):
        await wire.close()
        return Seen(wrong="100-continue is not answered")
    await wire.send(body)
    seen = await _ended(wire, raw)
    if not interim.startswith(b"HTTP/1.1 100"):
        seen.wrong = f"answered {interim!r} to 100-continue"
    return seen


async def _silent(wire: Wire, random: Random, headers: Headers) -> Seen:
    """A connection on which nothing ever comes is ended."""
    await wire.opened()
    return await _ended(wire, b"")


SCENES: Final[Mapping[str, Scene]] = {
    "slow head": _slow_head,
    "slow body": _slow_body,
    "half closed": _half_closed,
    "pipelining": _pipelined,
    "endless chunks": _endless,
    "gone uploading": _gone_uploading,
    "gone downloading": _gone_downloading,
    "100-continue": _continued,
    "silence": _silent,
}
"""Each by its name. They take as long as the server's deadlines, so they are played together."""
