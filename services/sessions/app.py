"""The session service's parts."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from importlib.util import find_spec

from services.sessions.asking import Asking
from services.sessions.attachments import Attachments
from services.sessions.chronicle import Chronicle
from services.sessions.consumers import ShardConsumer
from services.sessions.engines.cloud_api.engine import CloudApiEngine
from services.sessions.engines.cloud_api.graph import Graph
from services.sessions.engines.port import Engine
from services.sessions.engines.sandbox.engine import SandboxEngine
from services.sessions.engines.whatsmeow.credentials import store_url
from services.sessions.engines.whatsmeow.engine import WhatsmeowEngine
from services.sessions.engines.whatsmeow.workers import FOR_TESTS, INHERITED, Terms
from services.sessions.fetching import Fetching
from services.sessions.inbound import Inbound
from services.sessions.leases import Leases
from services.sessions.lines import Lines
from services.sessions.logins import LoginBudget
from services.sessions.loops import (
    FORGET_EVERY,
    MEASURE_EVERY,
    Forgetting,
    Reconciling,
    Rhythm,
)
from services.sessions.metrics import SessionsMetrics
from services.sessions.ownership import Ownership
from services.sessions.reports import Reports
from services.sessions.scratch import Scratch, usual_place
from services.sessions.settings import SessionsSettings
from services.sessions.signs import Signs
from services.sessions.store.fence import Fence
from services.sessions.supervisor import Supervisor
from services.sessions.tenures import ShardDuty
from services.sessions.transmitter import Transmitter
from services.sessions.typist import Typist
from shared.contracts.commands import TransmissionOutcome
from shared.db.tables.grants import role
from shared.ids import new_id
from shared.media.store import MediaStore
from shared.messaging.outbox import Relay
from shared.metrics import MessagingMetrics, counted
from shared.runtime import ops
from shared.runtime.service import Listener, Loop, Platform, Service, Workload
from shared.security.egress import EgressClient
from shared.settings import inherited


def build(settings: SessionsSettings, platform: Platform) -> Service:
    """Put the session service together."""
    database, clock = platform.database, platform.clock
    ring = settings.key_ring
    messaging = MessagingMetrics("sessions", platform.registry)
    metrics = SessionsMetrics(platform.registry)
    relay = Relay(
        database=database,
        broker=platform.broker,
        schema="sessions",
        clock=clock,
        metrics=messaging,
        ring=ring,
    )
    fence = Fence(database)
    leases = Leases(clock=clock, fence_after=settings.fence)
    store = MediaStore.of(settings)
    logins = LoginBudget(clock=clock, per_second=settings.logins_per_second)
    sandbox = SandboxEngine(database=database, fence=fence, store=store, clock=clock)
    cloud_api = CloudApiEngine(
        database=database,
        fence=fence,
        ring=ring,
        graph=Graph(
            web=EgressClient(policy=settings.policy, limits=settings.cloud_api_limits),
            url=settings.cloud_api_url,
            largest=settings.fetch_largest,
            patience=timedelta(seconds=max(settings.media_deadline, settings.fetch_deadline)),
        ),
        clock=clock,
        metrics=metrics,
    )
    engines: dict[str, Engine] = {sandbox.kind: sandbox, cloud_api.kind: cloud_api}
    if find_spec("neonize") is not None:
        engines[WhatsmeowEngine.kind] = WhatsmeowEngine(
            database=database,
            fence=fence,
            clock=clock,
            terms=Terms(
                store=store_url(
                    (settings.whatsmeow_database_url or settings.database_url).get_secret_value(),
                    role=role("sessions"),
                ),
                silence=settings.fence,
                sessions=settings.whatsmeow_per_worker,
                environment=inherited(INHERITED, beginning=FOR_TESTS),
            ),
            proxies=settings.proxy_pool,
            permits=settings.policy.permits,
            login=logins.turn,
            device_name=settings.device_name,
            deaf_after=timedelta(seconds=settings.whatsmeow_deaf_after),
        )
    supervisor = Supervisor(
        database=database,
        leases=leases,
        chronicle=Chronicle(fence=fence, clock=clock, told=relay.wake, metrics=metrics),
        engines=engines,
        missing={WhatsmeowEngine.kind: "Install linked devices: pip install 'waypost[whatsmeow]'"},
        logins=logins,
        ring=ring,
        clock=clock,
        metrics=metrics,
    )
    scratch = Scratch(settings.scratch or usual_place())
    fetching = Fetching(
        database=database,
        ring=ring,
        fence=fence,
        leases=leases,
        sessions=supervisor,
        store=store,
        scratch=scratch,
        clock=clock,
        metrics=metrics,
        messaging=messaging,
        deadline=timedelta(seconds=settings.fetch_deadline),
        largest=settings.fetch_largest,
        most=settings.fetch_at_once,
    )
    inbound = Inbound(
        fence=fence,
        ring=ring,
        supervisor=supervisor,
        clock=clock,
        told=relay.wake,
        media_came=fetching.wake,
        metrics=metrics,
    )
    reports = Reports(fence=fence, leases=leases, clock=clock, told=relay.wake, metrics=metrics)
    web = EgressClient(policy=settings.policy, limits=settings.limits)
    transmitter = Transmitter(
        database=database,
        fence=fence,
        leases=leases,
        sessions=supervisor,
        reports=reports,
        attachments=Attachments(
            database=database,
            store=store,
            web=web,
            scratch=scratch,
            largest=settings.max_file_size,
            takes=settings.takes,
            most=settings.media_at_once,
        ),
        # All others leave room for what must not wait.
        typist=Typist(clock=clock, most=max(1, settings.in_flight // 4)),
        clock=clock,
        metrics=metrics,
        deadline=timedelta(seconds=settings.transmit_deadline),
        media_deadline=timedelta(seconds=settings.media_deadline),
        drain=timedelta(seconds=settings.drain),
        most=settings.in_flight,
    )
    lines = Lines(most=settings.questions, most_each=settings.questions_each)
    asking = Asking(
        database=database,
        fence=fence,
        leases=leases,
        sessions=supervisor,
        broker=platform.broker,
        clock=clock,
        told=relay.wake,
        metrics=metrics,
        lines=lines,
    )
    signs = Signs(leases=leases, sessions=supervisor, clock=clock, metrics=metrics, lines=lines)
    consumer = ShardConsumer(
        leases=leases,
        transmitter=transmitter,
        supervisor=supervisor,
        asking=asking,
        signs=signs,
        sandbox=sandbox,
        callbacks_came=cloud_api.wake,
        metrics=messaging,
        pause=platform.pause,
    )
    duty = ShardDuty(
        broker=platform.broker,
        receive=consumer.receive,
        supervisor=supervisor,
        transmitter=transmitter,
        reports=reports,
        clock=clock,
    )
    ownership = Ownership(
        replica=f"{socket.gethostname()}:{new_id()}",
        database=database,
        fence=fence,
        leases=leases,
        clock=clock,
        serve=duty.serve,
        settings=settings,
        metrics=metrics,
    )
    reconciling = Reconciling(supervisor=supervisor, transmitter=transmitter)
    forgetting = Forgetting(database=database, clock=clock, keep=timedelta(days=settings.keep_days))
    platform.health.add("outbox", relay.check)

    @asynccontextmanager
    async def working() -> AsyncIterator[None]:
        # One resource, because of the end: shards are given up while all below still works.
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(_background("outbox", relay.run))
            await stack.enter_async_context(scratch.running())
            await stack.enter_async_context(web)
            await stack.enter_async_context(inbound.running())
            for engine in engines.values():
                await stack.enter_async_context(engine.events(inbound.sink))
            await stack.enter_async_context(supervisor.running())
            await stack.enter_async_context(reports.running())
            await stack.enter_async_context(transmitter.running())
            await stack.enter_async_context(lines.running())
            await stack.enter_async_context(fetching.running())
            await stack.enter_async_context(ownership.running())
            yield

    return Service(
        name="sessions",
        health=platform.health,
        workload=Workload(
            processing=lambda: counted(metrics.in_flight),
            completed=lambda: counted(metrics.settled, among={TransmissionOutcome.ACCEPTED}),
            failed=lambda: counted(
                metrics.settled,
                among={TransmissionOutcome.REJECTED, TransmissionOutcome.UNKNOWN},
            ),
        ),
        resources=[working()],
        loops=[
            Loop(name="fetching", run=fetching.run),
            *(
                Loop(
                    name=name,
                    run=Rhythm(name, step, every=every, clock=clock, metrics=messaging).run,
                )
                for name, step, every in (
                    ("reconciling", reconciling.step, timedelta(seconds=settings.reconcile_every)),
                    ("forgetting", forgetting.step, FORGET_EVERY),
                    ("media_age", fetching.measure, MEASURE_EVERY),
                    ("callback_age", cloud_api.measure, MEASURE_EVERY),
                )
            ),
        ],
        listener=Listener(
            app=ops.application(health=platform.health, registry=platform.registry),
            host=settings.host,
            port=settings.port,
        )
        if settings.port
        else None,
    )


@asynccontextmanager
async def _background(name: str, run: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(_forever(run), name=name)
        try:
            yield
        finally:
            task.cancel()


async def _forever(run: Callable[[], Awaitable[None]]) -> None:
    await run()
