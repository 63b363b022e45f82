"""The runtime: in by dependency, out in reverse, and out at once if something has died."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry, Counter
from typing_extensions import override

from shared.broker.memory import MemoryBroker
from shared.broker.port import Incoming, Outcome, Outgoing, Subscription
from shared.errors import Transient
from shared.health import Health
from shared.runtime import ops
from shared.runtime.serve import LoopEnded, serve
from shared.runtime.service import Listener, Loop, Service
from tests.support.broker import PATIENCE, Inbox
from tests.support.clock import HandClock
from tests.support.system import free_port

ROOT = Path(__file__).parents[2]


class Diary:
    """What happened, in order, and parts of services that write it down."""

    def __init__(self) -> None:
        self.entries: list[str] = []

    @asynccontextmanager
    async def resource(self, name: str) -> AsyncIterator[None]:
        """Something to open and close."""
        self.entries.append(f"{name} opened")
        yield
        self.entries.append(f"{name} closed")

    def loop(self, name: str) -> Loop:
        """A loop that runs until it is cancelled."""

        async def run() -> None:
            self.entries.append(f"{name} runs")
            try:
                await asyncio.Event().wait()
            finally:
                self.entries.append(f"{name} ended")

        return Loop(name=name, run=run)


class DiaryBroker(MemoryBroker):
    """Notes who subscribes."""

    def __init__(self, diary: Diary) -> None:
        super().__init__()
        self._diary = diary

    @asynccontextmanager
    @override
    async def subscribe(self, subscription: Subscription) -> AsyncIterator[None]:
        async with super().subscribe(subscription):
            self._diary.entries.append(f"{subscription.queue} subscribed")
            yield
        self._diary.entries.append(f"{subscription.queue} unsubscribed")


def a_service(name: str = "example", **parts: Any) -> Service:
    """A service with these parts, or none."""
    return Service(**{"name": name, "health": Health(HandClock()), **parts})


@asynccontextmanager
async def served(
    *services: Service, broker: MemoryBroker | None = None, grace: timedelta = timedelta(0)
) -> AsyncIterator[asyncio.Event]:
    """The services while they run; yields what stops them, and stops them at the end."""
    stop, started = asyncio.Event(), asyncio.Event()
    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
        broker = broker or MemoryBroker()
        group.create_task(serve(services, broker=broker, stop=stop, started=started, grace=grace))
        await started.wait()
        yield stop
        stop.set()


async def run_to_its_end(*services: Service) -> None:
    """Serve without ever saying stop."""
    async with asyncio.timeout(PATIENCE):
        await serve(services, broker=MemoryBroker(), stop=asyncio.Event())


async def test_everything_is_entered_in_order_of_dependency_and_left_in_reverse() -> None:
    diary = Diary()

    def service(name: str, queue: str) -> Service:
        return a_service(
            name,
            resources=[diary.resource(f"{name} pool"), diary.resource(f"{name} cache")],
            loops=[diary.loop(f"{name} loop")],
            subscriptions=[Subscription(queue=queue, receive=Inbox())],
        )

    services = service("one", "dispatcher.commands"), service("two", "webhooks.commands")
    async with served(*services, broker=DiaryBroker(diary)):
        await asyncio.sleep(0)
        entered = list(diary.entries)
    assert [entry for entry in entered if "runs" not in entry] == [
        "one pool opened",
        "one cache opened",
        "two pool opened",
        "two cache opened",
        "dispatcher.commands subscribed",
        "webhooks.commands subscribed",
    ]
    assert entered.index("one loop runs") > entered.index("two cache opened")
    assert diary.entries[len(entered) :] == [
        "webhooks.commands unsubscribed",
        "dispatcher.commands unsubscribed",
        "two loop ended",
        "one loop ended",
        "two cache closed",
        "two pool closed",
        "one cache closed",
        "one pool closed",
    ]


async def test_what_was_opened_is_closed_when_the_next_cannot_be() -> None:
    diary = Diary()

    async def refuse() -> None:
        raise Transient("it cannot be opened")

    @asynccontextmanager
    async def broken() -> AsyncIterator[None]:
        await refuse()
        yield

    with pytest.raises(Transient, match="cannot be opened"):
        await run_to_its_end(
            a_service(resources=[closing(diary, "pool"), broken(), diary.resource("never")])
        )
    assert diary.entries == ["pool closed"]


@asynccontextmanager
async def closing(diary: Diary, name: str) -> AsyncIterator[None]:
    """A resource that is closed whatever comes."""
    try:
        yield
    finally:
        diary.entries.append(f"{name} closed")


async def test_a_loop_that_dies_takes_everything_down_and_its_error_is_told() -> None:
    diary = Diary()

    async def die() -> None:
        raise LookupError("the loop is broken")

    with pytest.raises(ExceptionGroup) as error:
        await run_to_its_end(
            a_service("one", resources=[closing(diary, "pool")], loops=[diary.loop("other")]),
            a_service("two", loops=[Loop(name="dying", run=die)]),
        )
    assert error.group_contains(LookupError, match="the loop is broken")
    assert diary.entries == ["other runs", "other ended", "pool closed"]


async def test_a_loop_that_returns_has_died() -> None:
    async def end() -> None:
        """Return, as no loop should."""

    with pytest.raises(ExceptionGroup) as error:
        await run_to_its_end(a_service(loops=[Loop(name="short", run=end)]))
    assert error.group_contains(LoopEnded, match="The loop short has ended")


async def test_a_receiver_that_is_running_is_waited_for() -> None:
    inbox = Inbox(open_=False)
    broker = MemoryBroker()
    subscription = Subscription(queue="dispatcher.commands", receive=inbox)
    message = Outgoing("waypost.commands", "dispatcher", b"{}", "1", "example")
    async with asyncio.TaskGroup() as group:
        async with served(a_service(subscriptions=[subscription]), broker=broker) as stop:
            publishing = group.create_task(broker.publish([message]))
            await inbox.received(1)
            stop.set()
            await asyncio.sleep(0)
            assert not publishing.done()
            inbox.gate.set()
        await publishing
    assert inbox.bodies == ["{}"]


async def test_a_loop_still_runs_while_receivers_are_drained() -> None:
    # A receiver may need it to come to its end: an outbox's relay, say.
    ticks = asyncio.Event()
    asked = asyncio.Event()

    async def tick() -> None:
        await asked.wait()
        ticks.set()
        await asyncio.Event().wait()

    async def receive(messages: Sequence[Incoming]) -> list[Outcome]:
        await stop.wait()
        asked.set()
        await ticks.wait()
        return [Outcome.DONE] * len(messages)

    broker = MemoryBroker()
    service = a_service(
        loops=[Loop(name="ticking", run=tick)],
        subscriptions=[Subscription(queue="dispatcher.commands", receive=receive)],
    )
    message = Outgoing("waypost.commands", "dispatcher", b"{}", "1", "example")
    async with asyncio.TaskGroup() as group, served(service, broker=broker) as stop:
        group.create_task(broker.publish([message]))
        await asyncio.sleep(0)


class Site:
    """A listener with health, metrics and one slow route."""

    def __init__(self) -> None:
        self.health = Health(HandClock())
        self.registry = CollectorRegistry()
        self.asked = asyncio.Event()
        self.answer = asyncio.Event()
        self.port = free_port()
        app = ops.application(health=self.health, registry=self.registry)
        app.router.add_get("/slow", self._slow)
        listener = Listener(app=app, host="127.0.0.1", port=self.port)
        self.service = a_service(health=self.health, listener=listener)

    async def _slow(self, _request: web.Request) -> web.Response:
        self.asked.set()
        await self.answer.wait()
        return web.Response(text="at last")

    async def get(self, path: str) -> tuple[int, str]:
        """Ask it; status and body."""
        async with (
            aiohttp.ClientSession() as http,
            http.get(f"http://127.0.0.1:{self.port}{path}") as response,
        ):
            return response.status, await response.text()


async def test_health_and_metrics_are_served() -> None:
    site = Site()
    Counter("example_things", "Things.", registry=site.registry).inc()
    async with served(site.service):
        for path in ("/health", "/health/live", "/health/ready"):
            status, body = await site.get(path)
            assert (status, json.loads(body)["status"]) == (200, "up")
        status, body = await site.get("/metrics")
        assert status == 200
        assert "example_things_total 1.0" in body


async def test_a_service_that_is_not_ready_is_alive_all_the_same() -> None:
    site = Site()

    async def away() -> None:
        raise Transient("not connected")

    site.health.add("broker", away)
    async with served(site.service):
        status, body = await site.get("/health/ready")
        assert status == 503
        assert json.loads(body)["checks"] == {"broker": "not connected"}
        assert (await site.get("/health/live"))[0] == 200


async def test_readiness_fails_while_stopping_and_requests_are_still_answered() -> None:
    site = Site()
    async with served(site.service, grace=timedelta(milliseconds=300)) as stop:
        stop.set()
        await asyncio.sleep(0)
        status, body = await site.get("/health/ready")
        assert status == 503
        assert json.loads(body)["checks"] == {"process": "stopping"}
        assert (await site.get("/health/live"))[0] == 200


async def test_an_open_request_is_answered_before_the_listener_is_left() -> None:
    site = Site()
    async with asyncio.TaskGroup() as group:
        async with served(site.service) as stop:
            asking = group.create_task(site.get("/slow"))
            await site.asked.wait()
            stop.set()
            await asyncio.sleep(0)
            site.answer.set()
        assert await asking == (200, "at last")


# Whole processes: what signals do, and with which status they end.


class Child:
    """A process and what it says."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.said: list[str] = []

    async def until(self, word: str) -> None:
        """Read on until it has said this."""
        while word not in self.said:
            line = await self._line()
            assert line, f"it ended without saying {word}: {self.said}"

    async def ended(self) -> int:
        """Read on until it has ended; its status."""
        while await self._line():
            pass
        return await self._process.wait()

    async def _line(self) -> bool:
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if line:
            self.said.append(line.decode().strip())
        return bool(line)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    @property
    def words(self) -> list[str]:
        """What it said but for its log."""
        return [line for line in self.said if not line.startswith("{")]

    @property
    def logged(self) -> list[Any]:
        """Its log."""
        return [json.loads(line) for line in self.said if line.startswith("{")]


@asynccontextmanager
async def child(*arguments: str, **environment: str) -> AsyncIterator[Child]:
    """A Python process, ended if it does not end by itself."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(PATIENCE):
            yield Child(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def test_a_signal_drains_and_ends_the_process_well() -> None:
    async with child("-m", "tests.integration.a_service", "drain") as service:
        await service.until("received")
        service.signal(signal.SIGTERM)
        assert await service.ended() == 0
    assert service.words == ["received", "answered", "closing", "closed", "served"]


async def test_a_second_signal_ends_the_process_at_once() -> None:
    async with child("-m", "tests.integration.a_service", "hang") as service:
        await service.until("received")
        service.signal(signal.SIGINT)
        await service.until("closing")
        service.signal(signal.SIGINT)
        assert await service.ended() == 1
    assert "closed" not in service.words


async def test_a_loop_that_dies_ends_the_process_with_an_error() -> None:
    async with child("-m", "tests.integration.a_service", "die") as service:
        assert await service.ended() == 1
    assert service.words[0] == "received"
    (line,) = (line for line in service.logged if line["event"] == "process_failed")
    # The line that raised it is shown; of what it said, nothing.
    assert 'raise LookupError("the loop is broken")' in line["exception"]
    assert line["exception"].endswith("\nLookupError")


async def test_all_problems_of_the_settings_are_told_at_once_with_status_two() -> None:
    async with child("-m", "services.dispatcher", WAYPOST_DISPATCHER_PORT="-1") as service:
        assert await service.ended() == 2
    assert service.said == [
        "Waypost cannot start:",
        "DATABASE_URL: Field required",
        "AMQP_URL: Field required",
        "ENCRYPTION_KEYS: Field required",
        "WAYPOST_DISPATCHER_PORT: Input should be greater than or equal to 0",
    ]
