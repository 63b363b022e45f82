"""Identities: UUIDv7 for what happens once, UUIDv5 for what must come out the same every time."""

import os
import time
from uuid import UUID, uuid5

# The namespace of every id that is a function of its cause; changing it would double every event.
NAMESPACE = UUID("5f0c8e5e-6d0b-5b0e-9c53-3b1f6a2d7e41")


def new_id() -> UUID:
    """A UUIDv7 (RFC 9562, 5.7): 48 bits of milliseconds, then 74 random ones: it sorts by time."""
    milliseconds = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10), "big")
    high = random >> 68
    low = random & 0x3FFF_FFFF_FFFF_FFFF
    return UUID(int=milliseconds << 80 | 0x7 << 76 | high << 64 | 0b10 << 62 | low)


def id_of(*cause: object) -> UUID:
    """The same id for the same cause, whoever computes it and however often."""
    return uuid5(NAMESPACE, "\x1f".join(str(part) for part in cause))
