"""``make run``, and beside it a socket that tells how the process is: for those who hunt leaks."""

import asyncio
import gc
import json
import os
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from services import embedded
from services.embedded import EmbeddedSettings
from shared import log, settings
from shared.runtime.main import start
from tests.api import heap

SOCKET: Final = "vitals"


@dataclass(frozen=True, slots=True)
class Vitals:
    """What a process holds: ``rss`` and ``heap`` in bytes, connections of its API, tasks, files.

    ``objects`` are the blocks that Python has given out, ``heap`` what C has. Both leave out what
    an allocator keeps for later, and ``rss`` what it can give back.
    """

    rss: int
    heap: int
    objects: int
    connections: int
    tasks: int
    files: int
    task_names: dict[str, int]


async def vitals(folder: Path) -> Vitals:
    """How the process whose data is in ``folder`` is right now."""
    async with asyncio.timeout(30):
        reader, writer = await asyncio.open_unix_connection(folder / SOCKET)
        try:
            return Vitals(**json.loads(await reader.read()))
        finally:
            writer.close()


def main() -> None:
    """Run until a signal."""
    chosen = settings.read(EmbeddedSettings)
    log.configure(level=chosen.log_level)
    start(lambda stop: _run(chosen, stop))


async def _run(chosen: EmbeddedSettings, stop: asyncio.Event) -> None:
    chosen.data.mkdir(parents=True, exist_ok=True)
    process = psutil.Process(os.getpid())

    async def tell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        gc.collect()
        heap.give_back()
        names = Counter(_kind(task) for task in asyncio.all_tasks())
        told = Vitals(
            rss=process.memory_info().rss,
            heap=heap.held(),
            objects=sys.getallocatedblocks(),
            connections=sum(
                connection.status != psutil.CONN_LISTEN and connection.laddr[1:2] == (chosen.port,)
                for connection in process.net_connections("tcp")
            ),
            tasks=sum(names.values()),
            files=process.num_fds(),
            task_names=dict(names),
        )
        writer.write(
            json.dumps({name: getattr(told, name) for name in Vitals.__dataclass_fields__}).encode()
        )
        writer.close()

    async with await asyncio.start_unix_server(tell, chosen.data / SOCKET):
        await embedded.run(chosen, stop)


def _kind(task: "asyncio.Task[object]") -> str:
    """Which code a task runs; names of many end in a number or an id."""
    coroutine = task.get_coro()
    return str(getattr(coroutine, "__qualname__", coroutine))


if __name__ == "__main__":
    main()
