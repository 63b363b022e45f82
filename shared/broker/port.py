"""What Waypost asks of a message broker: so little that RabbitMQ and memory promise it alike."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One message on its way to an exchange.

    ``mandatory`` asks the broker to refuse what no queue would receive; leave it off only where
    having no receiver is normal, as with events that nobody has subscribed to.
    """

    exchange: str
    routing_key: str
    body: bytes
    message_id: str
    type: str
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    mandatory: bool = True


@dataclass(frozen=True, slots=True)
class Incoming:
    """One message as a receiver sees it; ``attempt`` is 1 the first time it is delivered."""

    queue: str
    body: bytes
    message_id: str
    type: str
    content_type: str
    headers: Mapping[str, str]
    attempt: int


class Outcome(StrEnum):
    """What the receiver says should become of a message."""

    DONE = "done"
    # Something is wrong, perhaps with the message: again after a delay, and not for ever.
    RETRY = "retry"
    # The receiver cannot work at all now, whatever the message: again until it can.
    LATER = "later"
    DEAD = "dead"


Receiver = Callable[[Sequence[Incoming]], Awaitable[Sequence[Outcome]]]

# Gets a message that nobody keeps. It may neither raise nor wait: others are behind it.
Hearer = Callable[[Incoming], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """A queue and who receives from it.

    ``receive`` gets up to ``batch`` messages at once, in queue order, and answers one outcome for
    each, in the same order. It is called again only when the call before has returned, so one
    subscription never runs twice at once. ``linger`` is how long to wait for a batch to fill once
    its first message is there: zero takes what has already arrived.
    """

    queue: str
    receive: Receiver
    batch: int = 1
    linger: timedelta = timedelta(0)


class Broker(Protocol):
    """Carries messages between services. It may deliver twice and late, never not at all."""

    async def publish(self, messages: Sequence[Outgoing]) -> None:
        """Return once every message is safe with the broker, in the order given per routing key.

        Raises ``Transient`` if any is not known to be safe within the publish timeout (5 s): some
        may have arrived, so the caller repeats all of them. Raises ``Unroutable`` if a mandatory
        message has no queue to go to; the others are safe then.
        """
        ...

    def subscribe(self, subscription: Subscription) -> AbstractAsyncContextManager[None]:
        """Receive from a queue for as long as the context is open.

        On exit no further batch is handed out, and a receiver that is running is waited for; what
        was fetched and not handed out goes back to the queue. An outcome ``RETRY`` delivers the
        message again after a short delay, at most the queue's delivery limit times, and then to
        the queue's dead-letter queue; ``DEAD`` sends it there at once. ``LATER`` hands it out again
        after a delay without counting, so that no outage, however long, makes a dead letter. A
        receiver that raises is treated as ``RETRY`` for the whole batch. Survives every loss of the
        connection.

        A dead-letter queue can be received from as well. Its messages say in their headers why
        they are there (``dead.death_of``), and all but ``DONE`` means ``LATER`` for them.
        """
        ...

    def listen(self, exchange: str, key: str, receive: Hearer) -> AbstractAsyncContextManager[None]:
        """Hear what is published to an exchange under a key, for as long as the context is open.

        At most once: nothing is kept for a listener, so what is published while it, or its
        connection, is away is lost, and is no concern of the publisher's unless the message is
        mandatory. ``receive`` is called with each message, whose ``queue`` is the key. Any number
        may listen, under the same key or another. Listens from the start, unless the broker is
        away then, and again after every loss of the connection; on exit nothing of it is left.
        """
        ...

    def connected(self) -> bool:
        """Whether the broker can be reached as far as is known now; for readiness only."""
        ...
