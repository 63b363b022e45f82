"""The session service's metrics. Labels come from closed sets; never an id or a number."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class SessionsMetrics:
    """What is owned, what is connected, and what passes through."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.shards = Gauge(
            "waypost_sessions_shards_owned", "Shards leased by this process.", registry=registry
        )
        self.shards_lost = Counter(
            "waypost_sessions_shards_lost_total",
            "Leases that ended without being given up.",
            registry=registry,
        )
        self.renewal_seconds = Histogram(
            "waypost_sessions_renewal_seconds", "Time to renew all leases.", registry=registry
        )
        self.live = Gauge(
            "waypost_sessions_live", "Sessions that this process keeps.", registry=registry
        )
        self.status_changes = Counter(
            "waypost_sessions_status_changes_total",
            "Changes of an instance's status.",
            ["status"],
            registry=registry,
        )
        self.logins = Counter(
            "waypost_sessions_logins_total", "Connections opened.", registry=registry
        )
        self.in_flight = Gauge(
            "waypost_sessions_transmissions_in_flight",
            "Transmissions handed to an engine and not settled.",
            registry=registry,
        )
        self.settled = Counter(
            "waypost_sessions_transmissions_settled_total",
            "Transmissions that have ended.",
            ["outcome"],
            registry=registry,
        )
        self.not_ours = Counter(
            "waypost_sessions_transmissions_dropped_total",
            "Transmissions that were a repeat, or another owner's.",
            registry=registry,
        )
        self.transmit_seconds = Histogram(
            "waypost_sessions_transmit_seconds",
            "Time that an engine took for one transmission.",
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
            registry=registry,
        )
        self.inbound = Counter(
            "waypost_sessions_inbound_total",
            "What engines have reported.",
            ["kind"],
            registry=registry,
        )
        self.callbacks = Counter(
            "waypost_sessions_callbacks_total",
            "Callbacks that were looked at, by what became of them.",
            ["outcome"],
            registry=registry,
        )
        self.callback_age = Gauge(
            "waypost_sessions_callback_oldest_age_seconds",
            "How long the callback has waited that has waited longest for a connected instance.",
            registry=registry,
        )
        self.questions = Counter(
            "waypost_sessions_questions_total",
            "Questions that came for instances, by what became of them.",
            ["question", "outcome"],
            registry=registry,
        )
        self.numbers = Counter(
            "waypost_sessions_numbers_checked_total",
            "Numbers that were asked about, by whether WhatsApp had to be.",
            ["source"],
            registry=registry,
        )
        self.signs = Counter(
            "waypost_sessions_signs_total",
            "Read marks and presences for chats, by what became of them.",
            ["outcome"],
            registry=registry,
        )
        self.media = Counter(
            "waypost_sessions_inbound_media_total",
            "Attempts to fetch files of received messages, by what became of them.",
            ["outcome"],
            registry=registry,
        )
        self.media_age = Gauge(
            "waypost_sessions_inbound_media_oldest_age_seconds",
            "How long the file has waited that has waited longest to be fetched.",
            registry=registry,
        )
