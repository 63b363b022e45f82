"""Protocol buffers by hand: the six small messages that the server itself must read or write.

What clients say to one another is encrypted and passes through unread. Field numbers stand where
they are used and come from whatsmeow's ``proto/{waWa6,waCert,waAdv,waCompanionReg}``. Not taken
from neonize, so that the server shares no code with what it tests and need not load it.
"""

from collections.abc import Mapping

VARINT, FIXED_64, BYTES, FIXED_32 = 0, 1, 2, 5
FIXED = {FIXED_64: 8, FIXED_32: 4}

Message = dict[int, int | bytes]


def write(fields: Mapping[int, int | bytes]) -> bytes:
    """The bytes of a message; numbers are varints, the rest is bytes."""
    out = bytearray()
    for number, value in fields.items():
        if isinstance(value, int):
            out += _varint(number << 3 | VARINT) + _varint(value)
        else:
            out += _varint(number << 3 | BYTES) + _varint(len(value)) + value
    return bytes(out)


def read(data: bytes) -> Message:
    """The fields of a message by number; of a repeated one the last."""
    message: Message = {}
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            message[number], at = _read_varint(data, at)
            continue
        if kind == BYTES:
            length, at = _read_varint(data, at)
        elif kind in FIXED:
            length = FIXED[kind]
        else:
            raise ValueError(f"wire type {kind} is not used by anybody")
        message[number] = data[at : at + length]
        at += length
    return message


def inner(message: Message, number: int) -> bytes:
    """A field of bytes, empty if it is not there."""
    value = message.get(number, b"")
    return value if isinstance(value, bytes) else b""


def number(message: Message, field: int) -> int:
    """A field that is a number, 0 if it is not there."""
    value = message.get(field, 0)
    return value if isinstance(value, int) else 0


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
