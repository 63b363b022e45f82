"""The topology as RabbitMQ wants to hear it."""

from aiormq.abc import AbstractChannel
from pamqp.common import FieldValue

from shared.broker.topology import DEAD, Queue, Topology


async def declare(channel: AbstractChannel, topology: Topology, *, delivery_limit: int) -> None:
    """Ask for everything to exist, without waiting for the answers.

    Four hundred questions and answers would take a second at each reconnect. The broker works
    through a channel in order and closes it over anything that it will not do, so whatever is
    asked next on the channel with an answer tells whether all of this went well.
    """
    for exchange in topology.exchanges:
        await channel.exchange_declare(
            exchange.name, exchange_type=exchange.kind, durable=True, nowait=True
        )
    for queue in topology.queues:
        await channel.queue_declare(
            queue.dead, durable=True, nowait=True, arguments={"x-queue-type": "quorum"}
        )
        await channel.queue_bind(queue.dead, DEAD, queue.dead, nowait=True)
        await channel.queue_declare(
            queue.name, durable=True, nowait=True, arguments=_arguments(queue, delivery_limit)
        )
    for binding in topology.bindings:
        await channel.queue_bind(binding.queue, binding.exchange, binding.key, nowait=True)


def only(topology: Topology, queue: str) -> Topology:
    """What one queue needs: itself, its bindings, and the exchanges they start from."""
    return Topology(
        exchanges=topology.exchanges,
        queues=tuple(each for each in topology.queues if each.name == queue),
        bindings=tuple(each for each in topology.bindings if each.queue == queue),
    )


def _arguments(queue: Queue, delivery_limit: int) -> dict[str, FieldValue]:
    arguments: dict[str, FieldValue] = {
        "x-queue-type": "quorum",
        "x-delivery-limit": delivery_limit,
        "x-dead-letter-exchange": DEAD,
        "x-dead-letter-routing-key": queue.dead,
        # A dead letter leaves its queue only when the dead-letter queue has it. That strategy asks
        # for reject-publish, which never comes to pass: the queue has no length limit.
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }
    if queue.single_active_consumer:
        arguments["x-single-active-consumer"] = True
    return arguments
