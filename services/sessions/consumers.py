"""Consumers: what comes in on the queues of the shards that this process owns."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol
from uuid import UUID

from pydantic import ValidationError

from services.sessions.asking import Asking
from services.sessions.leases import Leases
from services.sessions.signs import Signs
from services.sessions.supervisor import Supervisor
from services.sessions.transmitter import Transmitter
from shared.broker.port import Incoming, Outcome
from shared.contracts.commands import (
    AskInstance,
    ConnectInstance,
    DisconnectInstance,
    MarkRead,
    ScanSandboxQr,
    ShowPresence,
    TakeCallbacks,
    Transmit,
    WriteFromSandboxContact,
)
from shared.errors import Away, Fenced, Rejected, Transient
from shared.log import get_logger
from shared.metrics import MessagingMetrics
from shared.pause import Pause

log = get_logger()


class Sandbox(Protocol):
    """What can be done to the sandbox from outside."""

    def scan(self, instance_id: UUID) -> None:
        """Pretend that a phone scans the code that is shown."""
        ...

    async def write(self, command: WriteFromSandboxContact, *, cause: str) -> None:
        """Have a contact do something. ``cause`` is the same when a command is repeated."""
        ...


class ShardConsumer:
    """Takes commands, a batch at a time; all batches of all shards share their commits."""

    def __init__(
        self,
        *,
        leases: Leases,
        transmitter: Transmitter,
        supervisor: Supervisor,
        asking: Asking,
        signs: Signs,
        sandbox: Sandbox,
        callbacks_came: Callable[[], None],
        metrics: MessagingMetrics,
        pause: Pause,
    ) -> None:
        self._leases = leases
        self._transmitter = transmitter
        self._supervisor = supervisor
        self._asking = asking
        self._signs = signs
        self._sandbox = sandbox
        self._callbacks_came = callbacks_came
        self._metrics = metrics
        self._pause = pause
        self._handlers: dict[str, Callable[[Incoming], Awaitable[None]]] = {
            ConnectInstance.TYPE: self._connect,
            DisconnectInstance.TYPE: self._disconnect,
            AskInstance.TYPE: self._ask,
            MarkRead.TYPE: self._mark_read,
            ShowPresence.TYPE: self._show_presence,
            ScanSandboxQr.TYPE: self._scan,
            WriteFromSandboxContact.TYPE: self._write,
            TakeCallbacks.TYPE: self._take_callbacks,
        }

    async def receive(self, messages: Sequence[Incoming]) -> Sequence[Outcome]:
        """Handle a batch. Transmissions are merged; other commands are rare and go one by one."""
        transmits = [message for message in messages if message.type == Transmit.TYPE]
        outcomes = await self._transmit(transmits) if transmits else {}
        for message in messages:
            if message.type != Transmit.TYPE:
                outcomes[message.message_id] = await _attempt(message, self._handle(message))
        counts = [outcomes[message.message_id] for message in messages]
        for outcome in set(counts):
            self._metrics.handled.labels("sessions", outcome).inc(counts.count(outcome))
        return counts

    async def _transmit(self, messages: Sequence[Incoming]) -> dict[str, Outcome]:
        if self._pause.on:
            # Not kept for later: what else is in the queue must not wait behind them, and the
            # dispatcher repeats whatever has not been handed over.
            return {message.message_id: Outcome.DONE for message in messages}
        commands: list[Transmit] = []
        outcomes: dict[str, Outcome] = {}
        for message in messages:
            try:
                commands.append(Transmit.model_validate_json(message.body))
            except ValidationError:
                log.exception("transmit_unreadable", queue=message.queue)
                outcomes[message.message_id] = Outcome.DEAD
        outcome = await _attempt(messages[0], self._accept(commands))
        return {message.message_id: outcome for message in messages} | outcomes

    async def _accept(self, commands: Sequence[Transmit]) -> None:
        by_shard: dict[int, list[Transmit]] = {}
        for command in commands:
            by_shard.setdefault(command.shard, []).append(command)
        for shard, members in by_shard.items():
            lease = self._leases.of(shard)
            if lease is None:
                raise Fenced("This process does not own the shard.")
            await self._transmitter.accept(
                lease, [item for command in members for item in command.transmissions]
            )

    async def _handle(self, message: Incoming) -> None:
        handler = self._handlers.get(message.type)
        if handler is None:
            raise Rejected(f"The command {message.type} is not for the session service.")
        await handler(message)

    async def _connect(self, message: Incoming) -> None:
        command = ConnectInstance.model_validate_json(message.body)
        await self._supervisor.connect(command.instance_id, restart=command.restart)

    async def _disconnect(self, message: Incoming) -> None:
        command = DisconnectInstance.model_validate_json(message.body)
        await self._supervisor.disconnect(command.instance_id, logout=command.logout)

    async def _ask(self, message: Incoming) -> None:
        self._asking.ask(AskInstance.model_validate_json(message.body))

    async def _mark_read(self, message: Incoming) -> None:
        self._signs.mark_read(MarkRead.model_validate_json(message.body))

    async def _show_presence(self, message: Incoming) -> None:
        self._signs.show_presence(ShowPresence.model_validate_json(message.body))

    async def _scan(self, message: Incoming) -> None:
        self._sandbox.scan(ScanSandboxQr.model_validate_json(message.body).instance_id)

    async def _write(self, message: Incoming) -> None:
        command = WriteFromSandboxContact.model_validate_json(message.body)
        await self._sandbox.write(command, cause=message.message_id)

    async def _take_callbacks(self, _message: Incoming) -> None:
        # Who looks sees those of all sessions that are open here.
        self._callbacks_came()


async def _attempt(message: Incoming, work: Awaitable[None]) -> Outcome:
    try:
        await work
    except (Transient, Fenced) as error:
        log.warning("command_postponed", type=message.type, reason=error.message)
        # Fenced: the next owner of the shard receives it from the same queue, once we have left.
        nobody_could = isinstance(error, Away | Fenced)
        return Outcome.LATER if nobody_could else Outcome.RETRY
    except (Rejected, ValidationError, ValueError):
        log.exception("command_refused", type=message.type, queue=message.queue)
        return Outcome.DEAD
    except Exception:
        log.exception("command_failed", type=message.type, queue=message.queue)
        return Outcome.RETRY
    return Outcome.DONE
