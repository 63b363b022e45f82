"""Metrics that every service has, on a registry that is passed in, since embedded runs five."""

from collections.abc import Collection

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase


class MessagingMetrics:
    """What passes through a service's outbox and consumers, and when its loops last succeeded."""

    def __init__(self, service: str, registry: CollectorRegistry) -> None:
        prefix = f"waypost_{service}"
        self.published = Counter(
            f"{prefix}_outbox_published_total", "Outbox rows published.", registry=registry
        )
        self.outbox_age = Gauge(
            f"{prefix}_outbox_oldest_age_seconds",
            "Age of the oldest outbox row.",
            registry=registry,
        )
        self.handled = Counter(
            f"{prefix}_messages_handled_total",
            "Broker messages handled.",
            ["source", "outcome"],
            registry=registry,
        )
        self.handling_seconds = Histogram(
            f"{prefix}_message_handling_seconds",
            "Time to handle a batch of broker messages.",
            registry=registry,
        )
        self.loop_succeeded = Gauge(
            f"{prefix}_loop_last_success_timestamp_seconds",
            "When a loop last finished a step.",
            ["loop"],
            registry=registry,
        )


def counted(metric: MetricWrapperBase, *, among: Collection[str] = ()) -> int:
    """What a metric stands at, over all its series or those whose last label is ``among``."""
    return int(
        sum(
            sample.value
            for family in metric.collect()
            for sample in family.samples
            if not sample.name.endswith("_created")
            and (not among or list(sample.labels.values())[-1] in among)
        )
    )
