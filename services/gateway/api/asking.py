"""Asking an instance something while a request waits for the answer.

A question goes to the queue of the instance's shard, and the answer comes back to this replica
alone, under a key of its own. Nothing of it is kept: what is lost is asked again.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final, Self, TypeVar
from uuid import UUID

from pydantic import ValidationError

from services.gateway.metrics import GatewayMetrics
from shared.broker.port import Broker, Incoming, Outgoing
from shared.broker.topology import COMMANDS, REPLIES, shard_queue
from shared.clock import Clock
from shared.contracts.commands import AskInstance, InstanceAnswered, Refusal
from shared.contracts.questions import (
    Answer,
    ChangeMembers,
    CreateGroup,
    LeaveGroup,
    PairByCode,
    Question,
    TellInviteLink,
)
from shared.errors import (
    PlatformError,
    Rejected,
    Throttled,
    Transient,
    Unconfirmed,
    Unroutable,
)
from shared.ids import new_id
from shared.log import get_logger
from shared.web.errors import CODES

log = get_logger()

AnswerT = TypeVar("AnswerT", bound=Answer)

# Asking again after this long finds out whether it was a short disturbance.
_SOON: Final = timedelta(seconds=5)
_REPEATABLE: Final = "ask again in a moment, and look at the instance's status if that goes on."
_LOOK_FIRST: Final = "it may have been done all the same: look before you ask again."


class Asking:
    """Asks, and waits: at most ``deadline`` for one answer, at most ``most`` at a time."""

    def __init__(
        self,
        *,
        broker: Broker,
        clock: Clock,
        metrics: GatewayMetrics,
        deadline: timedelta,
        most: int,
    ) -> None:
        self._broker = broker
        self._clock = clock
        self._metrics = metrics
        self.deadline = deadline
        self._most = most
        self._key = f"gateway.{new_id()}"
        self._waiting: dict[UUID, asyncio.Future[InstanceAnswered]] = {}
        self._closed = False

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Self]:
        """Hear answers for as long as the context is open."""
        async with self._broker.listen(REPLIES, self._key, self._hear):
            yield self

    def close(self) -> None:
        """Let nobody wait any longer: the process is about to stop."""
        self._closed = True
        for waiting in self._waiting.values():
            waiting.cancel()

    async def ask(
        self,
        question: Question,
        wanted: type[AnswerT],
        *,
        instance_id: UUID,
        shard: int,
        request_id: str,
        within: timedelta | None = None,
    ) -> AnswerT:
        """The answer of an instance whose commands go to ``shard``; in less time if ``within``.

        Raises ``Rejected`` with what WhatsApp or the session service says against it, ``Transient``
        if nobody has answered in time, and ``Unconfirmed`` if it is not known whether it was done.
        """
        if self._closed:
            raise _restarting()
        if len(self._waiting) >= self._most:
            raise Transient("Too many wait for answers at this moment; ask again.")
        deadline = self.deadline if within is None else within
        ask_id = new_id()
        waiting: asyncio.Future[InstanceAnswered] = asyncio.get_running_loop().create_future()
        self._waiting[ask_id] = waiting
        outcome = "unanswered"
        try:
            command = AskInstance(
                ask_id=ask_id,
                instance_id=instance_id,
                question=question,
                reply_to=self._key,
                until=self._clock.now() + deadline,
                request_id=request_id,
            )
            answered = await self._answer(command, shard, waiting, deadline)
            outcome = "refused" if answered.answer is None else "answered"
        finally:
            del self._waiting[ask_id]
            self._metrics.questions.labels(question.kind, outcome).inc()
        if answered.refusal is not None:
            raise refused(answered.refusal)
        if not isinstance(answered.answer, wanted):
            said = None if answered.answer is None else answered.answer.kind
            raise PlatformError(f"{question.kind} was answered with {said}.")
        return answered.answer

    async def _answer(
        self,
        command: AskInstance,
        shard: int,
        waiting: asyncio.Future[InstanceAnswered],
        deadline: timedelta,
    ) -> InstanceAnswered:
        message = Outgoing(
            exchange=COMMANDS,
            routing_key=shard_queue(shard),
            body=command.model_dump_json().encode(),
            message_id=str(command.ask_id),
            type=AskInstance.TYPE,
        )
        try:
            async with asyncio.timeout(deadline.total_seconds()):
                await self._broker.publish([message])
                # Not awaited itself: to be cancelled is the request's right, not only the answer's.
                await asyncio.wait([waiting])
        except Unroutable:
            raise _unanswered() from None
        except (TimeoutError, Transient):
            raise _lost(command.question, _unanswered()) from None
        if waiting.cancelled():
            raise _lost(command.question, _restarting())
        return waiting.result()

    def _hear(self, message: Incoming) -> None:
        """An answer has come. One that nobody waits for any more, or again, changes nothing."""
        try:
            answered = InstanceAnswered.model_validate_json(message.body)
        except ValidationError:
            log.exception("answer_unreadable", type=message.type)
            return
        waiting = self._waiting.get(answered.ask_id)
        if waiting is not None and not waiting.done():
            waiting.set_result(answered)


def refused(refusal: Refusal) -> PlatformError:
    """What a refusal is to the caller; a code that is not public is about the request itself."""
    code, message = refusal.code, refusal.message
    match code:
        case Transient.code:
            return Transient(message, retry_after=_SOON)
        case Throttled.code:
            return Throttled(message)
        case Unconfirmed.code:
            return Unconfirmed(f"{message.rstrip('.')}; {_LOOK_FIRST}")
        case _:
            return Rejected(message, code=code if code in _OF_CALLERS else None)


# What a refusal may say in its own code: whatever is the caller's affair.
_OF_CALLERS: Final = frozenset(code for code, (status, _) in CODES.items() if status < 500)


def _changes(question: Question) -> bool:
    match question:
        case PairByCode() | CreateGroup() | ChangeMembers() | LeaveGroup():
            return True
        case TellInviteLink():
            return question.renew
        case _:
            return False


def _lost(question: Question, transient: Transient) -> PlatformError:
    """What to tell about a question that was asked and whose answer is not to be had any more."""
    if not _changes(question):
        return transient
    return Unconfirmed(f"The instance did not answer; {_LOOK_FIRST}")


def _unanswered() -> Transient:
    return Transient(f"The instance did not answer; {_REPEATABLE}", retry_after=_SOON)


def _restarting() -> Transient:
    return Transient("This server is being restarted; ask again.", retry_after=timedelta(seconds=1))
