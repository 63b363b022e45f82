"""What the gateway counts about itself."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

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
        self.quota_refused = Counter(
            "waypost_gateway_quota_refused_total",
            "Messages that were refused because the plan's month was used up.",
            registry=registry,
        )
        self.quota_warnings = Counter(
            "waypost_gateway_quota_warnings_total",
            "Tenants that were told that most of their month is used.",
            registry=registry,
        )
        self.acceptance_batch = Histogram(
            "waypost_gateway_acceptance_batch_messages",
            "Messages that shared one commit.",
            buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500),
            registry=registry,
        )
        self.media_uploads = Counter(
            "waypost_gateway_media_uploads_total", "Files that were uploaded.", registry=registry
        )
        self.media_erased = Counter(
            "waypost_gateway_media_erased_total",
            "Files that were removed because all that spoke of them was deleted.",
            registry=registry,
        )
        self.media_orphans = Counter(
            "waypost_gateway_media_orphans_total",
            "Files that were removed because nothing had spoken of them for a day.",
            registry=registry,
        )
        self.questions = Counter(
            "waypost_gateway_questions_total",
            "Questions that were asked of instances while somebody waited, by what became of them.",
            ("question", "outcome"),
            registry=registry,
        )
        self.callbacks = Counter(
            "waypost_gateway_callbacks_total",
            "Callbacks of WhatsApp, by what became of them; each instance it concerns is one.",
            ("outcome",),
            registry=registry,
        )
        self.dead_letters = Gauge(
            "waypost_gateway_dead_letters",
            "Dead letters that wait for somebody to decide; the same on every replica.",
            registry=registry,
        )
        self.dead_letter_age = Gauge(
            "waypost_gateway_dead_letter_oldest_age_seconds",
            "How long the oldest of them has waited.",
            registry=registry,
        )
        self.events_logged = Counter(
            "waypost_gateway_events_logged_total", "Events added to the log.", registry=registry
        )
        self.log_unread = Gauge(
            "waypost_gateway_log_unread_events",
            "Numbers of the event log that are still to be told to those who follow it here.",
            registry=registry,
        )
        self.event_waiters = Gauge(
            "waypost_gateway_event_waiters", "Requests that wait for events.", registry=registry
        )
        self.live_clients = Gauge(
            "waypost_gateway_live_clients",
            "Clients that are connected by Socket.IO.",
            registry=registry,
        )
        self.live_connections = Gauge(
            "waypost_gateway_live_connections",
            "Connections of Engine.IO, those included that have not said yet whose they are.",
            registry=registry,
        )
        self.live_sent = Counter(
            "waypost_gateway_live_sent_total",
            "Events told to live clients, each client counted.",
            registry=registry,
        )
        self.live_dropped = Counter(
            "waypost_gateway_live_dropped_total",
            "Live clients that were sent away, by why.",
            ["reason"],
            registry=registry,
        )
        self.live_refused = Counter(
            "waypost_gateway_live_refused_total",
            "Live connections that were refused, by what stood against it.",
            ["reason"],
            registry=registry,
        )
