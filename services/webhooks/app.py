"""The webhook service's parts."""

import random
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from services.webhooks.consumers import Consumers
from services.webhooks.loops import Claims, Forgetting, Repairs
from services.webhooks.metrics import WebhooksMetrics
from services.webhooks.sender.directory import Directory
from services.webhooks.sender.lanes import Lanes
from services.webhooks.sender.ledger import Ledger
from services.webhooks.sender.posting import Poster
from services.webhooks.sender.worker import Worker
from services.webhooks.settings import WebhooksSettings
from shared.broker.port import Subscription
from shared.contracts.commands import TestEndpoint
from shared.ids import new_id
from shared.messaging import consumer
from shared.messaging.outbox import Relay
from shared.metrics import counted
from shared.runtime import ops
from shared.runtime.service import Listener, Loop, Platform, Service, Workload
from shared.security.egress import EgressClient

# How many broker messages share a statement; each may carry 200 events.
BATCH: Final = 50
# How long to wait for others: a statement for two messages costs hardly more than for one.
LINGER: Final = timedelta(milliseconds=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the service is made of, for those who take its steps one at a time."""

    metrics: WebhooksMetrics
    relay: Relay
    worker: Worker
    consumers: Consumers
    claims: Claims
    repairs: Repairs
    forgetting: Forgetting


def build(settings: WebhooksSettings, platform: Platform) -> Service:
    """Put the webhook service together."""
    return service(assemble(settings, platform), settings, platform)


def assemble(settings: WebhooksSettings, platform: Platform) -> Parts:
    """Make the parts."""
    database, clock = platform.database, platform.clock
    ring = settings.key_ring
    timeout = timedelta(seconds=settings.timeout)
    metrics = WebhooksMetrics(platform.registry)
    relay = Relay(
        database=database, broker=platform.broker, schema="webhooks", clock=clock, metrics=metrics
    )
    name = f"webhooks-{new_id()}"
    client = EgressClient(policy=settings.policy, limits=settings.limits)
    lanes = Lanes(clock=clock, most=settings.endpoint_slots, pause=platform.pause)
    ledger = Ledger(
        database=database,
        ring=ring,
        relay=relay,
        lanes=lanes,
        clock=clock,
        metrics=metrics,
        worker=name,
        jitter=lambda: random.uniform(-1, 1),  # noqa: S311 - spreads retries, guards nothing
    )
    worker = Worker(
        name=name,
        client=client,
        poster=Poster(client=client, ring=settings.key_ring, clock=clock, version=settings.version),
        lanes=lanes,
        ledger=ledger,
        database=database,
        clock=clock,
        metrics=metrics,
        slots=settings.slots,
        drain=timedelta(seconds=settings.drain),
    )
    directory = Directory(database=database, clock=clock)
    consumers = Consumers(
        database=database,
        ring=ring,
        directory=directory,
        worker=worker,
        clock=clock,
        metrics=metrics,
        timeout=timeout,
    )
    return Parts(
        metrics=metrics,
        relay=relay,
        worker=worker,
        consumers=consumers,
        claims=Claims(
            database=database,
            ring=ring,
            worker=worker,
            clock=clock,
            metrics=metrics,
            timeout=timeout,
            pause=platform.pause,
        ),
        repairs=Repairs(
            database=database,
            worker=worker,
            directory=directory,
            relay=relay,
            clock=clock,
            metrics=metrics,
        ),
        forgetting=Forgetting(
            database=database,
            clock=clock,
            metrics=metrics,
            kept=timedelta(days=settings.retention_days),
        ),
    )


def service(parts: Parts, settings: WebhooksSettings, platform: Platform) -> Service:
    """What the runtime runs of them."""
    events = consumer.carried_events(parts.consumers.events, metrics=parts.metrics)
    commands = consumer.commands(
        {TestEndpoint: parts.consumers.test_endpoint}, metrics=parts.metrics
    )
    platform.health.add("outbox", parts.relay.check)
    return Service(
        name="webhooks",
        health=platform.health,
        workload=Workload(
            processing=lambda: counted(parts.metrics.posting),
            completed=lambda: counted(parts.metrics.ended, among={"delivered"}),
            failed=lambda: counted(parts.metrics.ended, among={"exhausted", "disabled"}),
        ),
        resources=[parts.worker.running()],
        loops=[
            Loop(name="outbox", run=parts.relay.run),
            Loop(name="claims", run=parts.claims.run),
            Loop(name="repairs", run=parts.repairs.run),
            Loop(name="forgetting", run=parts.forgetting.run),
        ],
        subscriptions=[
            Subscription(queue="webhooks.events", receive=events, batch=BATCH, linger=LINGER),
            Subscription(queue="webhooks.commands", receive=commands, batch=BATCH),
        ],
        listener=Listener(
            app=ops.application(health=platform.health, registry=platform.registry),
            host=settings.host,
            port=settings.port,
        ),
    )
