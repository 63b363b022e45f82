"""What the gateway counts about itself."""

from prometheus_client import CollectorRegistry, Counter, Histogram

from shared.metrics import MessagingMetrics


class GatewayMetrics(MessagingMetrics):
    """Declared once for each process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__("gateway", registry)
        self.accepted = Counter(
            "waypost_gateway_messages_accepted_total",
            "Messages that were committed and answered with 202.",
            registry=registry,
        )
        self.acceptance_batch = Histogram(
            "waypost_gateway_acceptance_batch_messages",
            "Messages that shared one commit.",
            buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500),
            registry=registry,
        )
        self.events_logged = Counter(
            "waypost_gateway_events_logged_total", "Events added to the log.", registry=registry
        )
