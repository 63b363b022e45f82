"""A service for tests of the runtime: run as a process, it does what its argument says.

Says what it does on standard output, one word a line, and takes one message from a broker in
memory, which it only answers once it is told to stop.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from shared import log
from shared.broker.memory import MemoryBroker
from shared.broker.port import Incoming, Outcome, Outgoing, Subscription
from shared.clock import SystemClock
from shared.health import Health
from shared.runtime.main import start
from shared.runtime.serve import serve
from shared.runtime.service import Loop, Service


def say(word: str) -> None:
    """Tell the test how far we are."""
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


async def main(stop: asyncio.Event, behaviour: str) -> None:
    """Serve."""
    received = asyncio.Event()

    @asynccontextmanager
    async def resource() -> AsyncIterator[None]:
        yield
        say("closing")
        if behaviour == "hang":
            await asyncio.Event().wait()
        say("closed")

    async def loop() -> None:
        await received.wait()
        if behaviour == "die":
            raise LookupError("the loop is broken")
        await asyncio.Event().wait()

    async def receive(messages: Sequence[Incoming]) -> list[Outcome]:
        say("received")
        received.set()
        if behaviour in {"drain", "hang"}:
            await stop.wait()
        say("answered")
        return [Outcome.DONE] * len(messages)

    broker = MemoryBroker()
    started = asyncio.Event()

    async def publish() -> None:
        await started.wait()
        message = Outgoing("waypost.commands", "dispatcher", b"{}", "1", "example")
        await broker.publish([message])

    service = Service(
        name="example",
        health=Health(SystemClock()),
        resources=[resource()],
        loops=[Loop(name="example", run=loop)],
        subscriptions=[Subscription(queue="dispatcher.commands", receive=receive)],
    )
    async with asyncio.TaskGroup() as group:
        group.create_task(publish())
        await serve([service], broker=broker, stop=stop, started=started)
    say("served")


if __name__ == "__main__":
    log.configure(style="json")
    start(lambda stop: main(stop, sys.argv[1]))
