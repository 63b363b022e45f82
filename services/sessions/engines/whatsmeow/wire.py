"""The socket between a worker and its supervisor: frames, and what our types look like in them.

A frame is a length of four bytes and a JSON object. ``do`` names what it is about; what else stands
in it is said where it is sent. Files never cross the socket: both sides see the same disk.

| from the supervisor | |
| --- | --- |
| ``hello`` | once, first: the store's address, and after how much silence to stop |
| ``beat`` | the supervisor is alive and may go on |
| ``call`` | a request, answered by ``answer`` or ``failure`` with the same ``call`` |
| ``cancel`` | nobody waits for a call any more |
| ``go`` | whether a message may be written to WhatsApp's socket now |
| ``committed`` | events that WhatsApp may be told of |
| ``known`` | a message that could not be read was recorded earlier after all |
| ``connect`` | a session may connect again now |

| from the worker | |
| --- | --- |
| ``ready`` | neonize is loaded |
| ``beat`` | how the worker and its sessions are |
| ``answer``, ``failure`` | what became of a call |
| ``about`` | a message is about to be written under this id: may it? |
| ``event`` | something that WhatsApp has delivered, to be committed |
| ``told`` | what has happened to a session |
| ``unreadable`` | a message was decrypted before and lost, or is a repeat: which? |
| ``reconnecting`` | a session has lost its connection and is about to connect again: may it? |
"""

import asyncio
import socket
import struct
from collections.abc import Mapping
from datetime import timedelta
from functools import cache
from typing import Any, Final, TypeAlias, cast

import orjson
from pydantic import TypeAdapter

from services.sessions.engines import port
from services.sessions.engines.port import EngineEvent
from shared import errors
from shared.contracts.content import Sendable
from shared.contracts.questions import Answer, Question
from shared.errors import PlatformError, Rejected, Transient, Unconfirmed

Frame: TypeAlias = dict[str, Any]

# Nothing that is said comes near it; it bounds what a broken peer can make us hold.
MOST: Final = 64 * 1024 * 1024
_LENGTH: Final = struct.Struct(">I")

SENDABLE: Final[TypeAdapter[Sendable]] = TypeAdapter(Sendable)
QUESTION: Final[TypeAdapter[Question]] = TypeAdapter(Question)
ANSWER: Final[TypeAdapter[Answer]] = TypeAdapter(Answer)

_EVENTS: Final[Mapping[str, type[EngineEvent]]] = {
    kind.__name__: kind
    for kind in (
        port.MessageReceived,
        port.MessageEdited,
        port.MessageRevoked,
        port.Reaction,
        port.StatusChanged,
    )
}
_ERRORS: Final[Mapping[str, type[PlatformError]]] = {
    kind.__name__: kind
    for kind in (
        Rejected,
        Transient,
        Unconfirmed,
        errors.Conflict,
        errors.Forbidden,
        errors.NotFound,
        errors.Throttled,
        port.NotOnWhatsApp,
        port.Refused,
        port.Retryable,
        port.SessionDown,
        port.Unsupported,
    )
}


class Link:
    """One end of the socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, end: socket.socket) -> "Link":
        """A link over one end of a socket pair."""
        return cls(*await asyncio.open_unix_connection(sock=end))

    async def next(self) -> Frame:
        """The next frame. Raises ``EOFError`` when the other side has gone."""
        try:
            (length,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
            if length > MOST:
                raise EOFError
            return cast("Frame", orjson.loads(await self._reader.readexactly(length)))
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            raise EOFError from error

    def say(self, do: str, **fields: object) -> None:
        """Send a frame, after all that were sent before; nothing happens if nobody is there."""
        if self._writer.is_closing():
            return
        body = orjson.dumps({"do": do, **fields})
        self._writer.write(_LENGTH.pack(len(body)) + body)

    async def written(self) -> None:
        """Return when there is room for more."""
        try:
            await self._writer.drain()
        except ConnectionError as error:
            raise EOFError from error

    def close(self) -> None:
        """Hang up."""
        self._writer.close()


def event_to_frame(event: EngineEvent) -> Frame:
    """Something that WhatsApp has delivered."""
    name = type(event).__name__
    return {"name": name, "fields": _adapter(name).dump_python(event, mode="json", by_alias=True)}


def event_from_frame(frame: Frame) -> EngineEvent:
    """The same, on the other side."""
    event: EngineEvent = _adapter(frame["name"]).validate_python(frame["fields"])
    return event


def error_to_frame(error: PlatformError) -> Frame:
    """An error of ours, or the nearest of its families that the other side knows."""
    name = next(kind.__name__ for kind in type(error).__mro__ if kind.__name__ in _ERRORS)
    wait = error.retry_after if isinstance(error, Transient) else None
    return {
        "name": name,
        "code": error.code,
        "message": error.message,
        "data": error.data,
        "retry_after": None if wait is None else wait.total_seconds(),
    }


def error_from_frame(frame: Frame) -> PlatformError:
    """The same, on the other side."""
    kind = _ERRORS[frame["name"]]
    message, code, data = frame["message"], frame["code"], frame["data"]
    wait = frame["retry_after"]
    if wait is not None and issubclass(kind, Transient):
        return kind(message, code=code, data=data, retry_after=timedelta(seconds=wait))
    return kind(message, code=code, data=data)


@cache
def _adapter(name: str) -> TypeAdapter[Any]:
    return TypeAdapter(_EVENTS[name])
