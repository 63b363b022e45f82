"""The dispatcher's parts."""

from typing import Final

from services.dispatcher.consumers import Consumers
from services.dispatcher.dispatching import Dispatching
from services.dispatcher.loops import History, Retention, Upkeep
from services.dispatcher.metrics import DispatcherMetrics
from services.dispatcher.settings import DispatcherSettings
from shared.broker.port import Subscription
from shared.contracts.commands import Dispatch, ReceiptsReported, TransmissionsSettled
from shared.messaging import consumer
from shared.messaging.outbox import Relay
from shared.metrics import counted
from shared.runtime import ops
from shared.runtime.service import Listener, Loop, Platform, Service, Workload

# How many broker messages share a transaction; each may carry many items itself.
BATCH: Final = 50


def build(settings: DispatcherSettings, platform: Platform) -> Service:
    """Put the dispatcher together."""
    metrics = DispatcherMetrics(platform.registry)
    ring = settings.key_ring
    relay = Relay(
        database=platform.database,
        broker=platform.broker,
        schema="dispatcher",
        clock=platform.clock,
        metrics=metrics,
    )
    dispatching = Dispatching(
        database=platform.database,
        broker=platform.broker,
        relay=relay,
        ring=ring,
        clock=platform.clock,
        metrics=metrics,
        pause=platform.pause,
    )
    upkeep = Upkeep(
        database=platform.database,
        dispatching=dispatching,
        relay=relay,
        ring=ring,
        clock=platform.clock,
        metrics=metrics,
    )
    history = History(database=platform.database, ring=ring, clock=platform.clock, metrics=metrics)
    retention = Retention(database=platform.database, clock=platform.clock, metrics=metrics)
    consumers = Consumers(
        database=platform.database,
        dispatching=dispatching,
        relay=relay,
        ring=ring,
        clock=platform.clock,
    )
    # A queue of its own: news of a new message must not wait behind reports on old ones.
    nudges = consumer.command_batches({Dispatch: consumers.dispatch}, metrics=metrics)
    commands = consumer.command_batches(
        {
            TransmissionsSettled: consumers.transmissions_settled,
            ReceiptsReported: consumers.receipts_reported,
        },
        metrics=metrics,
    )
    events = consumer.events(consumers.events, metrics=metrics)
    platform.health.add("outbox", relay.check)
    return Service(
        name="dispatcher",
        health=platform.health,
        workload=Workload(
            processing=lambda: dispatching.processing,
            completed=lambda: counted(metrics.claimed),
            failed=lambda: counted(metrics.handled, among={"dead"}),
        ),
        loops=[
            Loop(name="outbox", run=relay.run),
            Loop(name="dispatching", run=dispatching.run),
            Loop(name="upkeep", run=upkeep.run),
            Loop(name="history", run=history.run),
            Loop(name="forgetting", run=retention.run),
        ],
        subscriptions=[
            Subscription(queue="dispatcher.nudges", receive=nudges, batch=BATCH),
            Subscription(queue="dispatcher.commands", receive=commands, batch=BATCH),
            Subscription(queue="dispatcher.events", receive=events, batch=BATCH),
        ],
        listener=Listener(
            app=ops.application(health=platform.health, registry=platform.registry),
            host=settings.host,
            port=settings.port,
        ),
    )
