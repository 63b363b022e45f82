"""The dispatcher's metrics."""

from prometheus_client import CollectorRegistry, Counter

from shared.metrics import MessagingMetrics


class DispatcherMetrics(MessagingMetrics):
    """What every service counts, and what was claimed, and what became of histories."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__("dispatcher", registry)
        self.claimed = Counter(
            "waypost_dispatcher_transmissions_claimed_total",
            "Transmissions claimed for hand-over.",
            registry=registry,
        )
        self.history = Counter(
            "waypost_dispatcher_history_messages_total",
            "Messages of the past that were sealed, indexed, erased or deleted.",
            ["done"],
            registry=registry,
        )
