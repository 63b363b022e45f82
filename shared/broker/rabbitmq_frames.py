"""Messages as the bytes of AMQP 0-9-1, a whole batch at a time.

pamqp can do this too and does it generically: 37 µs a message where this takes 3. Publishing is
the busiest thing every service does, and the few properties that we set never change.
"""

import struct
from collections.abc import Mapping, Sequence
from functools import lru_cache

from shared.broker.port import Outgoing

METHOD, HEADER, BODY = 1, 2, 3
LONGEST_SHORT_STRING = 255
FRAME_END = b"\xce"
FRAME_OVERHEAD = 8  # Type, channel and length before the payload; the end mark after it.
BASIC, PUBLISH = 60, 40
MANDATORY = 1
PERSISTENT = b"\x02"
# content-type, headers, delivery-mode, message-id and type; the order below is the protocol's.
PROPERTIES = 0x8000 | 0x2000 | 0x1000 | 0x0080 | 0x0020

_frame = struct.Struct(">BHI")
_method = struct.Struct(">HHH")
_content = struct.Struct(">HHQH")
_length = struct.Struct(">I")


def encode(messages: Sequence[Outgoing], *, channel: int, frame_max: int) -> bytes:
    """The frames of all messages, in order: method, header and as many bodies as it takes.

    Raises ``ValueError`` for a name, key or id that the protocol has no room for: 255 bytes.
    """
    room = frame_max - FRAME_OVERHEAD
    parts: list[bytes] = []
    for message in messages:
        size = len(message.body)
        header = _content.pack(BASIC, 0, size, PROPERTIES) + _properties(message)
        parts += (
            _publish(message.exchange, message.routing_key, message.mandatory, channel),
            _frame.pack(HEADER, channel, len(header)),
            header,
            FRAME_END,
        )
        for start in range(0, size, room):
            body = message.body[start : start + room]
            parts += (_frame.pack(BODY, channel, len(body)), body, FRAME_END)
    return b"".join(parts)


@lru_cache(maxsize=4096)
def _publish(exchange: str, routing_key: str, mandatory: bool, channel: int) -> bytes:
    method = b"".join(
        (
            _method.pack(BASIC, PUBLISH, 0),
            _short(exchange),
            _short(routing_key),
            bytes((MANDATORY if mandatory else 0,)),
        )
    )
    return _frame.pack(METHOD, channel, len(method)) + method + FRAME_END


def _properties(message: Outgoing) -> bytes:
    return b"".join(
        (
            _short(message.content_type),
            _table(message.headers),
            PERSISTENT,
            _short(message.message_id),
            _short(message.type),
        )
    )


def _short(text: str) -> bytes:
    data = text.encode()
    if len(data) > LONGEST_SHORT_STRING:
        raise ValueError(f"longer than 255 bytes: {text[:40]!r}...")
    return bytes((len(data),)) + data


def _table(headers: Mapping[str, str]) -> bytes:
    pairs = b"".join(
        _short(name) + b"S" + _length.pack(len(data)) + data
        for name, data in ((name, value.encode()) for name, value in headers.items())
    )
    return _length.pack(len(pairs)) + pairs
