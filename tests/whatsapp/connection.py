"""One encrypted link to a client: frames on a websocket, the handshake, then stanzas.

A frame is three bytes of length and that many bytes; frames do not respect the websocket's
messages (whatsmeow ``socket/framesocket.go``). Everything that answers a stanza is done within one
turn of the event loop and never waits: ``send`` only queues, in order, and a task of the
connection's own writes.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from time import time
from typing import TYPE_CHECKING

from aiohttp import WSMsgType, web
from typing_extensions import override

from tests.whatsapp import codec
from tests.whatsapp.noise import PROLOGUE, Cipher, Handshake, Refused
from tests.whatsapp.stanza import Malformed, Stanza

if TYPE_CHECKING:
    from tests.whatsapp.devices import Device
    from tests.whatsapp.pairing import Registration

LENGTH = 3
BACKLOG_AT_MOST = 100_000  # Stanzas; a client that lets more wait is not reading any more.
# Between the last stanza and the end. whatsmeow throws away what it has received but not yet
# looked at when its socket closes, so a reason that is followed at once by the end goes unheard.
LINGER = 0.3
# How often a deaf connection looks whether the client is still there, in seconds: a websocket that
# is not read does not say.
GLANCE = 0.1


class Frames:
    """The frames that arrive on a websocket."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket
        self._buffer = bytearray()

    async def prologue(self) -> None:
        """Take off what the client sends before its first frame."""
        await self._fill(len(PROLOGUE))
        if self._take(len(PROLOGUE)) != PROLOGUE:
            raise Refused("a client of another version, or none at all")

    async def next(self) -> bytes:
        """The next frame; ``EOFError`` at the end."""
        await self._fill(LENGTH)
        length = int.from_bytes(self._take(LENGTH), "big")
        await self._fill(length)
        return self._take(length)

    def _take(self, length: int) -> bytes:
        taken = bytes(self._buffer[:length])
        del self._buffer[:length]
        return taken

    async def _fill(self, length: int) -> None:
        while len(self._buffer) < length:
            message = await self._socket.receive()
            if message.type is not WSMsgType.BINARY:
                raise EOFError
            self._buffer += message.data


class Connection:
    """A link whose handshake is done. ``device`` is set once it is known whose it is."""

    def __init__(
        self, number: int, request: web.Request, socket: web.WebSocketResponse, frames: Frames
    ) -> None:
        self.number = number
        self.host = request.host
        self.device: Device | None = None
        self.registration: Registration | None = None
        self.connected_at = time()
        self.end = ""
        self._transport = request.transport
        self._socket = socket
        self._frames = frames
        self._outgoing: asyncio.Queue[Stanza | None] = asyncio.Queue(BACKLOG_AT_MOST)
        self._hears = asyncio.Event()
        self._hears.set()
        self._afterwards: list[Callable[[], None]] = []
        self._reading: Cipher | None = None
        self._writing: Cipher | None = None

    @property
    def owner(self) -> "Device":
        """The device at the other end, where only a device has any business."""
        if self.device is None:
            raise Malformed("not logged in")
        return self.device

    @property
    def gone(self) -> bool:
        """Whether the client has closed, even if nobody has listened since."""
        return self._transport is None or self._transport.is_closing()

    async def shake_hands(self, handshake: Handshake) -> bytes:
        """What the client wants, in its own words."""
        await self._frames.prologue()
        await self._write(handshake.hello(await self._frames.next()))
        payload, self._reading, self._writing = handshake.finish(await self._frames.next())
        return payload

    async def serve(self, handle: Callable[[Stanza], None], *, traced: "Trace | None") -> None:
        """Hand over stanzas as they come, and write those that are sent, until one end closes."""
        assert self._reading is not None
        async with asyncio.TaskGroup() as both:
            writer = both.create_task(self._write_until_closed(traced), name="writer")
            try:
                while True:
                    frame = await self._frames.next()
                    await self._hearing()
                    stanza = codec.decode(self._reading.decrypt(frame))
                    if traced:
                        traced(self, "->", stanza)
                    handle(stanza)
            except (EOFError, ConnectionError):
                self.end = self.end or "closed by the client"
            finally:
                writer.cancel()

    def send(self, stanza: Stanza) -> None:
        """Queue a stanza, unless this is over."""
        try:
            self._outgoing.put_nowait(stanza)
        except asyncio.QueueFull:
            self.drop("did not read")

    def afterwards(self, step: Callable[[], None]) -> None:
        """Do something once the answer to the query at hand is on its way."""
        self._afterwards.append(step)

    def catch_up(self) -> None:
        """The answer is on its way: do what was left for afterwards."""
        steps, self._afterwards = self._afterwards, []
        for step in steps:
            step()

    def close(self, end: str, *last: Stanza) -> None:
        """Send what is to be sent, and then end it."""
        self.end = self.end or end
        for stanza in last:
            self.send(stanza)
        self._outgoing.put_nowait(None)

    def drop(self, end: str) -> None:
        """End it this instant, without a word."""
        self.end = self.end or end
        if self._transport is not None:
            self._transport.abort()
        self._hears.set()

    def deafen(self) -> None:
        """Stay connected, but neither read nor write any more."""
        self._hears.clear()

    def heal(self) -> None:
        """Read and write again; what was sent meanwhile arrives now."""
        self._hears.set()

    async def _hearing(self) -> None:
        """Return once this is not deaf; ``EOFError`` if the client leaves before that."""
        while not self._hears.is_set():
            if self.gone:
                raise EOFError
            with suppress(TimeoutError):
                async with asyncio.timeout(GLANCE):
                    await self._hears.wait()

    async def _write_until_closed(self, traced: "Trace | None") -> None:
        with suppress(EOFError, ConnectionError):  # The reader learns of it too, and says so.
            await self._write_outgoing(traced)

    async def _write_outgoing(self, traced: "Trace | None") -> None:
        assert self._writing is not None
        while (stanza := await self._outgoing.get()) is not None:
            await self._hearing()
            if traced:
                traced(self, "<-", stanza)
            await self._write(self._writing.encrypt(codec.encode(stanza)))
        await asyncio.sleep(LINGER)
        await self._socket.close()

    async def _write(self, frame: bytes) -> None:
        await self._socket.send_bytes(len(frame).to_bytes(LENGTH, "big") + frame)

    @override
    def __str__(self) -> str:
        return f"{self.number} ({self.device or 'unpaired'})"


Trace = Callable[[Connection, str, Stanza], None]
