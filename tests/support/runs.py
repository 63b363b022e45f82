"""Names for what a run makes in a shared server, so that a later one can tell what was left."""

import os
import socket
from zlib import crc32

import psutil

_HOST = f"{crc32(socket.gethostname().encode()):08x}"
PREFIX = f"waypost_test_{_HOST}_"
RUN = f"{PREFIX}{os.getpid()}_"


def abandoned(name: str) -> bool:
    """Whether ``name`` is of a run on this machine whose process is gone."""
    if not name.startswith(PREFIX):
        return False
    process = name.removeprefix(PREFIX).split("_", maxsplit=1)[0]
    return not (process.isdecimal() and psutil.pid_exists(int(process)))
