"""The statistics service's metrics."""

from prometheus_client import CollectorRegistry, Counter, Gauge

from shared.metrics import MessagingMetrics


class StatsMetrics(MessagingMetrics):
    """What every service counts, and what was counted."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__("stats", registry)
        self.counted = Counter(
            "waypost_stats_events_counted_total", "Events counted.", registry=registry
        )
        self.repeated = Counter(
            "waypost_stats_events_repeated_total",
            "Events that had been counted before.",
            registry=registry,
        )
        self.lag = Gauge(
            "waypost_stats_lag_seconds",
            "Age of the oldest event of the last batch when it was counted.",
            registry=registry,
        )
