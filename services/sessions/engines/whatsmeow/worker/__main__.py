"""A worker: holds some sessions for the process that has started it, and dies with it.

It is told everything over a socket that it inherits, whose number is its only argument. It ends
when that socket does, and when its supervisor is silent for too long: it may have been frozen, and
somebody else may own its sessions by now. It always ends at once, without tidying up: threads that
are inside neonize cannot be ended otherwise.
"""

import asyncio
import os
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from time import monotonic, sleep
from typing import Final

from services.sessions.engines.whatsmeow.wire import Link
from services.sessions.engines.whatsmeow.worker import native
from services.sessions.engines.whatsmeow.worker.sessions import Sessions
from shared import log
from shared.clock import SystemClock

LOOK_EVERY: Final = 0.25
# Until it is told otherwise; loading neonize takes a second or two of that.
AT_FIRST: Final = 30.0


class Pulse:
    """When the supervisor was last heard of; ends the process if that is too long ago."""

    def __init__(self) -> None:
        self.silence = AT_FIRST
        self._felt_at = monotonic()

    def feel(self) -> None:
        """The supervisor lives."""
        self._felt_at = monotonic()

    def watch(self) -> None:
        """Look, in a thread of its own: not even a loop that hangs may keep us from it."""
        while monotonic() - self._felt_at < self.silence:
            sleep(LOOK_EVERY)
        os._exit(3)


async def serve(end: socket.socket, pulse: Pulse) -> None:
    """Do what the supervisor says, until it is gone."""
    link = await Link.over(end)
    hello = await link.next()
    pulse.feel()
    pulse.silence = hello["silence"]
    loop = asyncio.get_running_loop()
    # Every call into neonize takes a thread until it returns.
    loop.set_default_executor(ThreadPoolExecutor(hello["threads"], thread_name_prefix="call"))
    sessions = Sessions(link=link, clock=SystemClock(), store=hello["store"])
    await asyncio.to_thread(native.binder)
    link.say("ready", pid=os.getpid())
    while True:
        frame = await link.next()
        pulse.feel()
        if frame["do"] == "beat":
            link.say("beat", **sessions.report())
        else:
            sessions.handle(frame)


async def live(end: socket.socket, pulse: Pulse) -> None:
    """Serve, and end the process whatever comes of it: nothing here returns to ``asyncio.run``.

    That would wait for threads that are inside neonize, which may be for ever.
    """
    try:
        await serve(end, pulse)
    except EOFError:
        os._exit(0)
    except BaseException:  # noqa: BLE001 - whatever it is, this process is over
        log.get_logger().exception("worker_failed")
        sys.stdout.flush()
        os._exit(1)


def main() -> None:
    """Serve over the socket with the number that was given."""
    log.configure(level="WARNING", style="json")
    pulse = Pulse()
    threading.Thread(target=pulse.watch, daemon=True, name="pulse").start()
    asyncio.run(live(socket.socket(fileno=int(sys.argv[1])), pulse))


if __name__ == "__main__":
    main()
