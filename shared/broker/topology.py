"""Exchanges, queues and bindings as data: declared at start and after every reconnect."""

from dataclasses import dataclass

SHARDS = 64

COMMANDS = "waypost.commands"
# Events in batches, for our own services; the routing key is the event's name.
BATCHES = "waypost.batches"
# Events one by one, for subscribers; the routing key is ``ev.<tenant>.<instance>.<name>.v1``.
EVENTS = "waypost.events"
# Answers to questions, for whoever waits; the routing key is that process's own.
REPLIES = "waypost.replies"
# News for every replica of a service, kept for nobody; the routing key is the service's name.
NEWS = "waypost.news"
DEAD = "waypost.dead"
# What the names of dead-letter queues end in.
DEAD_ENDING = ".dead"

# A message that has been delivered this often without success goes to the dead-letter queue.
# RabbitMQ 4 has the same default; 3.10 to 3.13 have none, so it is always set.
DELIVERY_LIMIT = 20


@dataclass(frozen=True, slots=True)
class Exchange:
    """An exchange; durable, like everything here."""

    name: str
    kind: str


@dataclass(frozen=True, slots=True)
class Queue:
    """A quorum queue with a dead-letter queue of its own, named after it."""

    name: str
    single_active_consumer: bool = False

    @property
    def dead(self) -> str:
        """The name of the queue that takes what this one could not deliver."""
        return f"{self.name}{DEAD_ENDING}"


@dataclass(frozen=True, slots=True)
class Binding:
    """What a queue wants from an exchange; from a topic exchange, ``key`` is a pattern."""

    queue: str
    exchange: str
    key: str


@dataclass(frozen=True, slots=True)
class Topology:
    """Everything that must exist before the first message."""

    exchanges: tuple[Exchange, ...]
    queues: tuple[Queue, ...]
    bindings: tuple[Binding, ...]

    def kept_by(self, queue: str) -> Queue | None:
        """The queue that ``queue`` is, or whose dead letters it takes, if it is either."""
        return next((each for each in self.queues if queue in {each.name, each.dead}), None)


def shard_queue(shard: int) -> str:
    """The queue of one shard's commands; also its routing key."""
    return f"sessions.shard.{shard:02d}"


def _topology() -> Topology:
    shards = [shard_queue(shard) for shard in range(SHARDS)]
    named = (
        "dispatcher.nudges",
        "dispatcher.commands",
        "dispatcher.events",
        "webhooks.commands",
        "webhooks.events",
        "stats.events",
        "gateway.events",
    )
    return Topology(
        exchanges=(
            Exchange(COMMANDS, "direct"),
            Exchange(BATCHES, "topic"),
            Exchange(EVENTS, "topic"),
            Exchange(REPLIES, "direct"),
            Exchange(NEWS, "direct"),
            Exchange(DEAD, "direct"),
        ),
        queues=(
            *(Queue(name) for name in named),
            *(Queue(name, single_active_consumer=True) for name in shards),
        ),
        bindings=(
            Binding("dispatcher.nudges", COMMANDS, "dispatcher.nudges"),
            Binding("dispatcher.commands", COMMANDS, "dispatcher"),
            Binding("webhooks.commands", COMMANDS, "webhooks"),
            # Each queue by its own name too: a dead letter goes back to where it came from, and
            # to nobody who has handled the same message already.
            *(Binding(name, COMMANDS, name) for name in named if name != "dispatcher.nudges"),
            *(Binding(name, COMMANDS, name) for name in shards),
            Binding("dispatcher.events", BATCHES, "message.received"),
            Binding("dispatcher.events", BATCHES, "message.edited"),
            Binding("dispatcher.events", BATCHES, "message.revoked"),
            Binding("dispatcher.events", BATCHES, "instance.connected"),
            Binding("dispatcher.events", BATCHES, "instance.disconnected"),
            Binding("webhooks.events", BATCHES, "#"),
            Binding("stats.events", BATCHES, "message.*"),
            Binding("gateway.events", BATCHES, "#"),
        ),
    )


TOPOLOGY = _topology()
