"""Consumers: handlers that see commands and events, never acknowledgements, retries or bodies."""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from pydantic import ValidationError

from shared.broker.port import Incoming, Outcome, Receiver
from shared.contracts import envelope
from shared.contracts.commands import COMMANDS
from shared.contracts.envelope import Carried, Emitted
from shared.contracts.model import Command
from shared.errors import PlatformError, Rejected, Transient
from shared.log import get_logger
from shared.metrics import MessagingMetrics

log = get_logger()

C = TypeVar("C", bound=Command)
CommandHandler = Callable[[C], Awaitable[None]]
Handle = Callable[[Sequence[Incoming]], Awaitable[None]]


def commands(
    handlers: Mapping[type[Command], Callable[..., Awaitable[None]]], *, metrics: MessagingMetrics
) -> Receiver:
    """A receiver that hands each command to its handler. A handler opens its own transaction."""
    by_type = {command.TYPE: (command, handler) for command, handler in handlers.items()}

    async def handle(messages: Sequence[Incoming]) -> None:
        for message in messages:
            known = by_type.get(message.type)
            if known is None:
                wrong = "is for another service" if message.type in COMMANDS else "is unknown"
                raise Rejected(f"The command {message.type} {wrong}.")
            command, handler = known
            await handler(command.model_validate_json(message.body))

    return _settled(handle, metrics)


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
            read[command].append(command.model_validate_json(message.body))
        for command, batch in read.items():
            if batch:
                await handlers[command](batch)

    return _settled(handle, metrics)


def events(
    handler: Callable[[Sequence[Emitted]], Awaitable[None]], *, metrics: MessagingMetrics
) -> Receiver:
    """A receiver that hands over all events of a batch of messages at once, for one transaction.

    Events of types that this program does not know yet are left out.
    """

    async def handle(messages: Sequence[Incoming]) -> None:
        batch = [event for message in messages for event in envelope.decode_batch(message.body)]
        if batch:
            await handler(batch)

    return _settled(handle, metrics)


def carried_events(
    handler: Callable[[Sequence[Carried]], Awaitable[None]], *, metrics: MessagingMetrics
) -> Receiver:
    """Like ``events``, for services that pass events on or count them without looking inside."""

    async def handle(messages: Sequence[Incoming]) -> None:
        batch = [event for message in messages for event in envelope.carried_batch(message.body)]
        if batch:
            await handler(batch)

    return _settled(handle, metrics)


def _settled(handle: Handle, metrics: MessagingMetrics) -> Receiver:
    async def receive(messages: Sequence[Incoming]) -> list[Outcome]:
        outcome = await _attempt(handle, messages, metrics)
        if outcome is Outcome.DONE or len(messages) == 1:
            return [outcome] * len(messages)
        # One of them spoils the batch: find out which, so that its neighbours do not suffer.
        return [await _attempt(handle, [message], metrics) for message in messages]

    return receive


async def _attempt(
    handle: Handle, messages: Sequence[Incoming], metrics: MessagingMetrics
) -> Outcome:
    started = time.perf_counter()
    outcome = Outcome.DONE
    try:
        await handle(messages)
    except Transient as error:
        outcome = Outcome.RETRY
        log.warning("messages_postponed", queue=messages[0].queue, reason=error.message)
    except (Rejected, ValidationError, ValueError, KeyError) as error:
        outcome = Outcome.DEAD
        reason = error.message if isinstance(error, PlatformError) else type(error).__name__
        log.error("messages_refused", queue=messages[0].queue, reason=reason, exc_info=True)
    except Exception:  # noqa: BLE001 - the edge: a bug here must not take the process down
        outcome = Outcome.RETRY
        log.exception("message_handler_failed", queue=messages[0].queue)
    duration = time.perf_counter() - started
    metrics.handled.labels(messages[0].queue.split(".")[0], outcome).inc(len(messages))
    metrics.handling_seconds.observe(duration)
    log.info(
        "messages_handled",
        queue=messages[0].queue,
        count=len(messages),
        attempt=messages[0].attempt,
        outcome=outcome,
        duration_ms=round(duration * 1000, 2),
    )
    return outcome
