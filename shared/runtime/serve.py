"""Enter everything in order of dependency, wait, and leave in reverse."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta

from aiohttp import web

from shared.broker.port import Broker
from shared.errors import PlatformError
from shared.log import get_logger
from shared.runtime.service import Listener, Loop, Service
from shared.web.connections import Runner

log = get_logger()

# How long an open request may still take once we have stopped listening.
DRAIN = timedelta(seconds=20)


class LoopEnded(PlatformError):
    """A loop that should run for ever has returned."""


async def serve(
    services: Sequence[Service],
    *,
    broker: Broker,
    stop: asyncio.Event,
    started: asyncio.Event | None = None,
    grace: timedelta = timedelta(0),
) -> None:
    """Run services until ``stop`` is set, then drain.

    ``grace`` is how long to go on listening with readiness failing, for the load balancer to
    notice. A loop that dies unwinds everything and its error is raised.
    """
    async with AsyncExitStack() as stack:
        for service in services:
            for resource in service.resources:
                await stack.enter_async_context(resource)
        for service in services:
            await stack.enter_async_context(_background(service.loops))
        for service in services:
            for subscription in service.subscriptions:
                await stack.enter_async_context(broker.subscribe(subscription))
        for service in services:
            if service.listener is not None:
                await stack.enter_async_context(_listening(service.listener))
        log.info("services_started", services=",".join(service.name for service in services))
        if started is not None:
            started.set()
        await stop.wait()
        for service in services:
            service.health.stop()
        log.info("services_stopping", services=",".join(service.name for service in services))
        await asyncio.sleep(grace.total_seconds())
    log.info("services_stopped", services=",".join(service.name for service in services))


@asynccontextmanager
async def _background(loops: Sequence[Loop]) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_run(loop), name=f"loop:{loop.name}") for loop in loops]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()


async def _run(loop: Loop) -> None:
    await loop.run()
    raise LoopEnded(f"The loop {loop.name} has ended.")


def runner_of(listener: Listener) -> Runner:
    """What serves a listener, wherever it listens."""
    return Runner(
        listener.app,
        listener.limits,
        shutdown_timeout=DRAIN.total_seconds(),
        express=listener.express,
    )


@asynccontextmanager
async def _listening(listener: Listener) -> AsyncIterator[None]:
    runner = runner_of(listener)
    await runner.setup()
    try:
        site = web.TCPSite(runner, listener.host, listener.port, backlog=1024)
        await site.start()
        yield
    finally:
        await runner.cleanup()
