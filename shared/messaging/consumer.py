"""Consumers: handlers that see commands and events, never acknowledgements, retries or bodies."""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from shared.broker.port import Broker, Incoming, Outcome, Outgoing, Receiver
from shared.broker.topology import DEAD, DELIVERY_LIMIT
from shared.contracts import envelope
from shared.contracts.commands import COMMANDS
from shared.contracts.envelope import Carried, Emitted
from shared.contracts.model import Command
from shared.errors import Away, Rejected, Transient, Unroutable
from shared.log import get_logger
from shared.metrics import MessagingMetrics

log = get_logger()

C = TypeVar("C", bound=Command)
T = TypeVar("T")
CommandHandler = Callable[[C], Awaitable[None]]
Handle = Callable[[Sequence[Incoming]], Awaitable[None]]


def commands(
    handlers: Mapping[type[Command], Callable[..., Awaitable[None]]], *, metrics: MessagingMetrics
) -> Receiver:
    """A receiver that hands each command to its handler. A handler opens its own transaction.

    Commands that come together share nothing, so none is handled again because another failed.
    """
    by_type = {command.TYPE: (command, handler) for command, handler in handlers.items()}

    async def handle(messages: Sequence[Incoming]) -> None:
        for message in messages:
            known = by_type.get(message.type)
            if known is None:
                wrong = "is for another service" if message.type in COMMANDS else "is unknown"
                raise Rejected(f"The command {message.type} {wrong}.")
            command, handler = known
            await handler(_read(command.model_validate_json, message))

    async def receive(messages: Sequence[Incoming]) -> list[Outcome]:
        return [await _handled(handle, [message], metrics) for message in messages]

    return receive


def command_batches(
    handlers: Mapping[type[Command], Callable[..., Awaitable[None]]], *, metrics: MessagingMetrics
) -> Receiver:
    """A receiver that hands each handler all commands of its type in a batch, as one list.

    For hot paths, where one transaction serves many commands. Handlers run in the order in which
    they are given here, whatever the order of the commands, and must stand repetition.
    """

    async def handle(messages: Sequence[Incoming]) -> None:
        read: dict[type[Command], list[Command]] = {command: [] for command in handlers}
        for message in messages:
            command = COMMANDS.get(message.type)
            if command not in read:
                raise Rejected(f"The command {message.type} is not for this queue.")
            read[command].append(_read(command.model_validate_json, message))
        for command, batch in read.items():
            if batch:
                await handlers[command](batch)

    return _together(handle, metrics)


def events(
    handler: Callable[[Sequence[Emitted]], Awaitable[None]], *, metrics: MessagingMetrics
) -> Receiver:
    """A receiver that hands over all events of a batch of messages at once, for one transaction.

    Events of types that this program does not know yet are left out.
    """
    return _together(_all_of(envelope.decode_batch, handler), metrics)


def carried_events(
    handler: Callable[[Sequence[Carried]], Awaitable[None]], *, metrics: MessagingMetrics
) -> Receiver:
    """Like ``events``, for services that pass events on or count them without looking inside."""
    return _together(_all_of(envelope.carried_batch, handler), metrics)


def dead_letters(handle: Handle, *, broker: Broker, metrics: MessagingMetrics) -> Receiver:
    """A receiver for dead-letter queues, which lets nothing go but what ``handle`` has taken.

    RabbitMQ 4 throws away what was given back to such a queue too often, as happens when processes
    die while the database is away. So a letter that comes near goes to the end of its queue anew.
    """

    async def receive(messages: Sequence[Incoming]) -> list[Outcome]:
        error = await _error_of(handle, messages)
        if error is None or len(messages) == 1 or isinstance(error, Away):
            return [await outcome(message, error) for message in messages]
        return [await outcome(one, await _error_of(handle, [one])) for one in messages]

    async def outcome(message: Incoming, error: Exception | None) -> Outcome:
        if error is None:
            metrics.handled.labels("dead", Outcome.DONE).inc()
            return Outcome.DONE
        metrics.handled.labels("dead", Outcome.LATER).inc()
        if isinstance(error, Transient):
            log.warning("dead_letter_postponed", queue=message.queue, reason=error.message)
        else:
            log.error("dead_letter_not_kept", queue=message.queue, exc_info=error)
        if message.attempt <= DELIVERY_LIMIT // 2:
            return Outcome.LATER
        return await renewed(message)

    async def renewed(message: Incoming) -> Outcome:
        again = Outgoing(
            exchange=DEAD,
            routing_key=message.queue,
            body=message.body,
            message_id=message.message_id,
            type=message.type,
            content_type=message.content_type,
            headers=message.headers,
        )
        try:
            await broker.publish([again])
        except (Transient, Unroutable):
            return Outcome.LATER
        return Outcome.DONE

    return receive


def _all_of(
    decode: Callable[[bytes], list[T]], handler: Callable[[Sequence[T]], Awaitable[None]]
) -> Handle:
    async def handle(messages: Sequence[Incoming]) -> None:
        batch = [event for message in messages for event in _read(decode, message)]
        if batch:
            await handler(batch)

    return handle


def _read(read: Callable[[bytes], T], message: Incoming) -> T:
    """What a body says. Here a ``ValueError`` is the sender's fault; in a handler it is ours."""
    try:
        return read(message.body)
    except ValueError as error:
        raise Rejected(f"The body cannot be read as {message.type or 'anything'}.") from error


def _together(handle: Handle, metrics: MessagingMetrics) -> Receiver:
    async def receive(messages: Sequence[Incoming]) -> list[Outcome]:
        if len(messages) == 1:
            return [await _handled(handle, messages, metrics)]
        started = time.perf_counter()
        error = await _error_of(handle, messages)
        # When the world is wrong it is wrong for all of them. Should they come again, find out
        # whether it is only so for one, as with anything else that spoils a batch: its neighbours
        # must not suffer.
        all_alike = isinstance(error, Away) or (
            isinstance(error, Transient) and all(one.attempt == 1 for one in messages)
        )
        if error is None or all_alike:
            return [_outcome(error, messages, metrics, started=started)] * len(messages)
        log.warning(
            "batch_fell_apart",
            queue=messages[0].queue,
            count=len(messages),
            reason=type(error).__name__,
        )
        return [await _handled(handle, [message], metrics) for message in messages]

    return receive


async def _handled(
    handle: Handle, messages: Sequence[Incoming], metrics: MessagingMetrics
) -> Outcome:
    started = time.perf_counter()
    return _outcome(await _error_of(handle, messages), messages, metrics, started=started)


async def _error_of(handle: Handle, messages: Sequence[Incoming]) -> Exception | None:
    try:
        await handle(messages)
    except Exception as error:  # noqa: BLE001 - the edge: a bug must not take the process down
        return error
    return None


def _outcome(
    error: Exception | None,
    messages: Sequence[Incoming],
    metrics: MessagingMetrics,
    *,
    started: float,
) -> Outcome:
    """What becomes of messages that ended like this, told to logs and metrics."""
    queue = messages[0].queue
    match error:
        case None:
            outcome = Outcome.DONE
        case Transient():
            # Counted, unless nobody can work: an outage must not make dead letters, and a message
            # that is never possible must not come for ever.
            outcome = Outcome.LATER if isinstance(error, Away) else Outcome.RETRY
            log.warning("messages_postponed", queue=queue, reason=error.message)
        case Rejected():
            outcome = Outcome.DEAD
            log.error(
                "messages_refused",
                queue=queue,
                message_id=messages[0].message_id,
                reason=error.message,
                exc_info=error,
            )
        case _:
            outcome = Outcome.RETRY
            log.error(
                "message_handler_failed",
                queue=queue,
                message_id=messages[0].message_id,
                exc_info=error,
            )
    duration = time.perf_counter() - started
    metrics.handled.labels(queue.split(".")[0], outcome).inc(len(messages))
    metrics.handling_seconds.observe(duration)
    log.info(
        "messages_handled",
        queue=queue,
        count=len(messages),
        attempt=messages[0].attempt,
        outcome=outcome,
        duration_ms=round(duration * 1000, 2),
    )
    return outcome
