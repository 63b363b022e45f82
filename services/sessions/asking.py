"""Asking: what somebody waits for, beside the queue of messages."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final, Protocol
from uuid import UUID

from services.sessions.domain.lifecycle import Status
from services.sessions.engines.port import (
    SessionDown,
    capable,
    needed_to_ask,
)
from services.sessions.leases import Leases
from services.sessions.lines import Line, Lines
from services.sessions.metrics import SessionsMetrics
from services.sessions.store import fence as fences
from services.sessions.store import numbers
from services.sessions.store.fence import Fence
from services.sessions.supervisor import Session
from shared.broker.port import Broker, Outgoing
from shared.broker.topology import REPLIES
from shared.clock import Clock
from shared.contracts.commands import (
    AskInstance,
    InstanceAnswered,
    Refusal,
)
from shared.contracts.envelope import Emitted
from shared.contracts.events import ConnectionUpdate
from shared.contracts.questions import (
    Answer,
    CheckedNumbers,
    CheckNumbers,
    PairByCode,
    PairingCode,
    Question,
)
from shared.db.database import Database
from shared.errors import Conflict, Fenced, PlatformError, Throttled, Transient, Unconfirmed
from shared.ids import id_of, new_id
from shared.log import get_logger
from shared.messaging import outbox
from shared.messaging.outbox import Stored

log = get_logger()

# A number that is on WhatsApp rarely leaves; one that is not may join at any moment.
FOUND_FOR: Final = timedelta(hours=24)
MISSED_FOR: Final = timedelta(hours=1)
PUBLISH_AGAIN: Final = timedelta(milliseconds=250)

# A phone can be linked to what waits for one.
_PAIRABLE: Final = frozenset({Status.CONNECTING, Status.QR})


class NotReady(Conflict):
    """The instance is not connected."""

    code = "INSTANCE_NOT_READY"


class Sessions(Protocol):
    """Where sessions are found."""

    def session(self, instance_id: UUID) -> Session | None:
        """The session of an instance, connected or not."""
        ...


class Asking:
    """Asks engines, as many questions at a time as ``lines`` allow, and answers whoever waits.

    Nothing of it is kept: what is too much is refused, what comes too late is dropped, and what a
    crash cuts off is not answered. Only the shard's owner asks, as only it sends.
    """

    def __init__(
        self,
        *,
        database: Database,
        fence: Fence,
        leases: Leases,
        sessions: Sessions,
        broker: Broker,
        clock: Clock,
        told: Callable[[Sequence[Stored]], None],
        metrics: SessionsMetrics,
        lines: Lines,
    ) -> None:
        self._database = database
        self._fence = fence
        self._leases = leases
        self._sessions = sessions
        self._broker = broker
        self._clock = clock
        self._told = told
        self._metrics = metrics
        self._lines = lines
        # Questions by id, until nobody waits: the broker may bring one twice, and a group that is
        # made twice stays.
        self._asked: dict[UUID, datetime] = {}

    def ask(self, command: AskInstance) -> None:
        """Begin to find the answer to a question; what came too late is dropped."""
        now = self._clock.now()
        self._asked = {id_: until for id_, until in self._asked.items() if until > now}
        if now >= command.until or command.ask_id in self._asked:
            self._count(command.question, "too_late")
            return
        self._asked[command.ask_id] = command.until
        if not self._lines.full(command.instance_id):
            line = self._lines.enter(command.instance_id)
            self._lines.begin(self._answer(command, line))
            return
        self._count(command.question, "refused")
        # A refusal costs no more than a publish, but there is an end to that too: whoever is told
        # nothing has waited for nothing, which a flood deserves.
        if not self._lines.flooded:
            too_much = Throttled("Too many questions at once; ask again when one is answered.")
            self._lines.begin(self._reply(command, _refusal(too_much)))

    async def _answer(self, command: AskInstance, line: Line) -> None:
        try:
            said = await self._said(command)
        finally:
            self._lines.leave(command.instance_id, line)
        if said is None:
            self._count(command.question, "too_late")
            return
        self._count(command.question, "refused" if isinstance(said, Refusal) else "answered")
        await self._reply(command, said)

    async def _said(self, command: AskInstance) -> Answer | Refusal | None:
        """The answer, or why there is none; ``None`` when nobody waits any more."""
        patience = (command.until - self._clock.now()).total_seconds()
        try:
            async with asyncio.timeout(patience):
                return await self._find(command.instance_id, command.question)
        except TimeoutError:
            return None
        except PlatformError as error:
            return _refusal(error)
        except Exception:
            log.exception("question_failed", question=command.question.kind)
            return _refusal(Transient("The engine has failed over this; ask again shortly."))

    async def _find(self, instance_id: UUID, question: Question) -> Answer:
        session = self._able(instance_id, question)
        match question:
            case CheckNumbers():
                return await self._check(session, question)
            case PairByCode():
                code = await session.engine.ask(instance_id, question)
                if isinstance(code, PairingCode):
                    try:
                        await self._tell_code(session, code)
                    except Transient as error:
                        # Whoever has asked gets it all the same, and only they can use it.
                        log.warning("pairing_code_untold", reason=error.message)
                return code
            case _:
                return await session.engine.ask(instance_id, question)

    def _able(self, instance_id: UUID, question: Question) -> Session:
        """The session that can be asked this; raises if there is none."""
        session = self._sessions.session(instance_id)
        if session is None:
            raise NotReady("The instance is not connected; connect it first.")
        capable(session.engine, needed_to_ask(question))
        status = session.status
        if isinstance(question, PairByCode):
            if status not in _PAIRABLE:
                raise Conflict(f"The instance is {status.value} already; log it out to pair anew.")
        elif status is not Status.READY:
            raise NotReady(f"The instance is {status.value}; ask again once it is ready.")
        if not self._leases.holds(session.lease):
            raise Transient("The instance is moving to another process; ask again shortly.")
        return session

    async def _check(self, session: Session, question: CheckNumbers) -> CheckedNumbers:
        """Ask about those numbers that nothing is known of; remember what comes of it."""
        tenant_id, engine = session.instance.tenant_id, session.engine
        now = self._clock.now()
        async with self._database.hot() as connection:
            known = await numbers.known(
                connection,
                tenant_id,
                engine.kind,
                question.numbers,
                found_since=now - FOUND_FOR,
                missed_since=now - MISSED_FOR,
            )
        unknown = tuple(dict.fromkeys(n for n in question.numbers if n not in known))
        self._metrics.numbers.labels("known").inc(len(question.numbers) - len(unknown))
        if unknown:
            self._metrics.numbers.labels("asked").inc(len(unknown))
            said = await engine.ask(session.instance.id, CheckNumbers(numbers=unknown))
            if not isinstance(said, CheckedNumbers):
                raise TypeError(f"{engine.kind} answered {said.kind} to check_numbers")
            async with self._database.hot(durable=False) as connection:
                await numbers.remember(connection, tenant_id, engine.kind, said.numbers, now=now)
            known |= {one.number: one for one in said.numbers}
        return CheckedNumbers(numbers=tuple(known[number] for number in question.numbers))

    async def _tell_code(self, session: Session, code: PairingCode) -> None:
        """Tell everybody of a pairing code, whoever has asked for it."""
        instance, now = session.instance, self._clock.now()
        emitted = Emitted(
            id=id_of(ConnectionUpdate.TYPE, instance.id, code.code, code.expires_at),
            event=ConnectionUpdate(
                connection="pairing_code", code=code.code, expires_at=code.expires_at
            ),
            tenant_id=instance.tenant_id,
            instance_id=instance.id,
            time=now,
            subject=f"instances/{instance.id}",
            partition_key=str(instance.id),
        )
        async with self._fence.tx() as connection:
            if not await fences.hold(connection, [session.lease]):
                raise Fenced("Another process owns this shard now.")
            stored = await outbox.add_hot(connection, "sessions", [outbox.event(emitted)], now=now)
        self._told(stored)

    async def _reply(self, command: AskInstance, said: Answer | Refusal) -> None:
        """Publish an answer, for as long as somebody waits for it."""
        if isinstance(said, Refusal):
            answered = InstanceAnswered(ask_id=command.ask_id, refusal=said)
        else:
            answered = InstanceAnswered(ask_id=command.ask_id, answer=said)
        message = Outgoing(
            exchange=REPLIES,
            routing_key=command.reply_to,
            body=answered.model_dump_json().encode(),
            message_id=str(new_id()),
            type=InstanceAnswered.TYPE,
            mandatory=False,
        )
        while self._clock.now() < command.until:
            try:
                await self._broker.publish([message])
            except Transient:
                await self._clock.sleep(PUBLISH_AGAIN)
            else:
                return
        log.warning("answer_not_published", question=command.question.kind)

    def _count(self, question: Question, outcome: str) -> None:
        self._metrics.questions.labels(question.kind, outcome).inc()


def _refusal(error: PlatformError) -> Refusal:
    """An error as whoever asked is told of it."""
    match error:
        case SessionDown():
            return Refusal(code=NotReady.code, message=error.message)
        case Throttled() | Unconfirmed():
            return Refusal(code=error.code, message=error.message)
        case Transient() | Fenced():
            return Refusal(code=Transient.code, message=error.message)
        case _:
            return Refusal(code=error.code, message=error.message)
