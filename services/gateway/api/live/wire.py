"""Engine.IO on aiohttp, with an end to everything that a client could make endless.

python-engineio keeps what is to be sent in a queue without a bound, waits without a deadline for a
client to take it, and believes what a client announces about attachments. Here a queue knows what
waits in it, every write has a deadline, and a frame has to be one that we have a use for.
"""

import asyncio
import re
from asyncio import QueueEmpty
from typing import Any, Final

import orjson
from aiohttp import WSMsgType, web
from engineio.async_drivers import aiohttp as driver
from engineio.packet import MESSAGE, Packet
from typing_extensions import override

# Bytes that are taken from a queue to be written at a time.
_AT_ONCE: Final = 64 * 1024
# What a packet costs besides its text, more or less.
_OVERHEAD: Final = 100

# What clients say on the level of Engine.IO: close, probe, pong, upgrade.
_PLAIN: Final = frozenset({"1", "2probe", "3", "5"})
# And on that of Socket.IO: connect with a greeting, disconnect, an event with or without an ack.
_SOCKET_IO: Final = re.compile(
    r"4(?:0(?:/[^,]{0,100},?)?(\{.*)?|1(?:/[^,]{0,100},?)?|2\d{0,9}(\[.*))", re.DOTALL
)
_BETWEEN_PACKETS: Final = "\x1e"
_MOST_PACKETS: Final = 16

BODY: Final = web.RequestKey("live_body", bytes)
"""What a polling client has posted, read and found good."""


class Backlog(asyncio.Queue[Packet | None]):
    """What a client has not taken yet, counted: what is in the queue and what is being written."""

    def __init__(self) -> None:
        self.bytes = 0
        self.writing = 0
        self._calm = asyncio.Event()
        super().__init__()

    @property
    def used(self) -> int:
        """Bytes that wait or are being written."""
        return self.bytes + self.writing

    @override
    async def get(self) -> Packet | None:
        # Asked for only when what was taken before has been written.
        self.writing = 0
        self._calm.set()
        return await super().get()

    @override
    def get_nowait(self) -> Packet | None:
        # The writer takes all there is, which would empty the queue into a list that nobody counts.
        if self.writing >= _AT_ONCE:
            raise QueueEmpty
        return super().get_nowait()

    async def moved(self) -> None:
        """Return once the client has taken something."""
        self._calm.clear()
        await self._calm.wait()

    def drop(self) -> None:
        """Forget everything that nobody has begun to write."""
        while self._queue:  # type: ignore[attr-defined]  # asyncio.Queue's own, for subclasses
            self._get()
            self.task_done()

    @override
    def _put(self, item: Packet | None) -> None:
        self.bytes += _size(item)
        super()._put(item)

    @override
    def _get(self) -> Packet | None:
        item = super()._get()
        size = _size(item)
        self.bytes -= size
        self.writing += size
        return item


class WebSocket(driver.WebSocket):  # type: ignore[misc]  # has no types
    """A WebSocket whose client has to take what it is sent, and may send text alone.

    Not compressed: what a context for each client takes in memory is more than is saved.
    """

    # Seconds in which a client has to take what is written.
    DEADLINE: Final = 10.0

    @override
    async def __call__(self, environ: dict[str, Any]) -> web.WebSocketResponse:
        request: web.Request = environ["aiohttp.request"]
        self._request = request
        self._sock = web.WebSocketResponse(
            max_msg_size=self.server.max_http_buffer_size, compress=False, timeout=2.0
        )
        await self._sock.prepare(request)
        self.environ = environ
        try:
            await self.handler(self)
        finally:
            await self._left()
        return self._sock

    async def _left(self) -> None:
        """Forget the connection, however its handler has ended: also by a cancellation."""
        socket = self.handler.__self__
        if not socket.closed:
            socket.queue.put_nowait(None)
            await socket.close(wait=False, abort=True, reason=self.server.reason.TRANSPORT_CLOSE)
        self.server.sockets.pop(socket.sid, None)

    @override
    async def send(self, message: str) -> None:
        try:
            async with asyncio.timeout(self.DEADLINE):
                await self._sock.send_str(message)
        except TimeoutError:
            self._abort()
            raise

    @override
    async def close(self) -> None:
        try:
            async with asyncio.timeout(self.DEADLINE):
                await self._sock.close()
        except TimeoutError:
            self._abort()

    @override
    async def wait(self) -> str:
        message = await self._sock.receive()
        if message.type is not WSMsgType.TEXT or not acceptable(message.data):
            raise OSError("this is nothing that a client has to say")
        text: str = message.data
        return text

    def _abort(self) -> None:
        if self._request.transport is not None:
            self._request.transport.abort()


class _Body:
    """A body that was read already, as the driver reads one."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def read(self, length: int) -> bytes:
        return self._body[:length]


def translate(request: web.Request) -> dict[str, Any]:
    """A request for Engine.IO, with the body that was read before."""
    environ: dict[str, Any] = driver.translate_request(request)
    body = request.get(BODY, b"")
    environ["wsgi.input"] = _Body(body)
    environ["CONTENT_LENGTH"] = str(len(body))
    return environ


DRIVER: Final = {**driver._async, "websocket": WebSocket, "translate_request": translate}
"""What Engine.IO is given instead of its own driver."""


def event_packet(name: str, *data: bytes) -> Packet:
    """An event of Socket.IO with arguments that are JSON already; made once for all clients."""
    arguments = b",".join((orjson.dumps(name), *data)).decode()
    return Packet(MESSAGE, f"2[{arguments}]")


def payload_acceptable(body: bytes) -> bool:
    """Whether what a polling client has posted are frames that we have a use for."""
    try:
        frames = body.decode().split(_BETWEEN_PACKETS)
    except UnicodeDecodeError:
        return False
    return len(frames) <= _MOST_PACKETS and all(acceptable(frame) for frame in frames)


def acceptable(frame: str) -> bool:
    """Whether a frame is one that we have a use for; nothing binary, nothing to be continued."""
    if frame in _PLAIN:
        return True
    said = _SOCKET_IO.fullmatch(frame)
    if said is None:
        return False
    greeting, event = said.groups()
    try:
        if greeting is not None:
            return isinstance(orjson.loads(greeting), dict)
        if event is not None:
            arguments = orjson.loads(event)
            return bool(arguments) and isinstance(arguments[0], str)
    except orjson.JSONDecodeError:
        return False
    return True


def _size(packet: Packet | None) -> int:
    return _OVERHEAD if packet is None else _OVERHEAD + len(packet.data or "")
