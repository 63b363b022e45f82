"""The statistics service's parts."""

from datetime import timedelta
from typing import Final

from services.stats.consumers import Consumers
from services.stats.loops import Forgetting
from services.stats.metrics import StatsMetrics
from services.stats.settings import StatsSettings
from shared.broker.port import Subscription
from shared.messaging import consumer
from shared.metrics import counted
from shared.runtime import ops
from shared.runtime.service import Listener, Loop, Platform, Service, Workload

# How many broker messages share a transaction, and how long to wait for company: a batch of
# hundreds of events costs little more than one event, and nobody waits for a counter.
BATCH: Final = 50


def build(settings: StatsSettings, platform: Platform) -> Service:
    """Put the statistics service together."""
    metrics = StatsMetrics(platform.registry)
    consumers = Consumers(database=platform.database, clock=platform.clock, metrics=metrics)
    forgetting = Forgetting(
        database=platform.database,
        clock=platform.clock,
        metrics=metrics,
        kept=timedelta(days=settings.inbox_days),
        hours_kept=timedelta(days=settings.hourly_days),
    )
    events = consumer.carried_events(consumers.events, metrics=metrics)
    return Service(
        name="stats",
        health=platform.health,
        workload=Workload(
            processing=lambda: 0,
            completed=lambda: counted(metrics.counted),
            failed=lambda: counted(metrics.handled, among={"dead"}),
            pausable=False,
        ),
        loops=[Loop(name="forgetting", run=forgetting.run)],
        subscriptions=[
            Subscription(
                queue="stats.events",
                receive=events,
                batch=BATCH,
                linger=timedelta(seconds=settings.linger),
            )
        ],
        listener=Listener(
            app=ops.application(health=platform.health, registry=platform.registry),
            host=settings.host,
            port=settings.port,
        ),
    )
