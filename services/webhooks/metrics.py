"""The webhook service's metrics."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from shared.metrics import MessagingMetrics


class WebhooksMetrics(MessagingMetrics):
    """What every service counts, and what becomes of deliveries."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__("webhooks", registry)
        self.created = Counter(
            "waypost_webhooks_deliveries_created_total",
            "Deliveries made from events.",
            registry=registry,
        )
        self.attempts = Counter(
            "waypost_webhooks_attempts_total",
            "Posts by what they told about the endpoint.",
            ["verdict"],
            registry=registry,
        )
        self.ended = Counter(
            "waypost_webhooks_deliveries_ended_total",
            "Deliveries that need no more attempts, by how they ended.",
            ["state"],
            registry=registry,
        )
        self.post_seconds = Histogram(
            "waypost_webhooks_post_seconds",
            "Time that endpoints take to answer.",
            buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30),
            registry=registry,
        )
        self.breakers_opened = Counter(
            "waypost_webhooks_breakers_opened_total",
            "Times that an endpoint could not be reached so often that it is left alone.",
            registry=registry,
        )
        self.posting = Gauge(
            "waypost_webhooks_posts_in_flight", "Posts under way.", registry=registry
        )
        self.unwritten = Gauge(
            "waypost_webhooks_attempts_unwritten",
            "Posts that have ended and are not committed yet.",
            registry=registry,
        )
        self.oldest_due = Gauge(
            "waypost_webhooks_oldest_due_age_seconds",
            "How long the delivery that is due longest has been waiting, open breakers aside.",
            registry=registry,
        )
