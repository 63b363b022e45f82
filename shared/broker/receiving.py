"""How a subscription is served, whoever carries the messages: gather a batch, ask the receiver."""

import asyncio
import math
from collections import deque
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import structlog

from shared.broker.port import Hearer, Incoming, Outcome, Subscription
from shared.broker.topology import DEAD_ENDING

log = structlog.get_logger(__name__)

T = TypeVar("T")

# Above so many messages a second on one subscription, its batches wait to be filled: a little delay
# costs nobody anything then, and the transactions that it saves serve everybody.
BUSY = 400.0
BUSY_LINGER = 0.02
_SMOOTHING = 0.25  # seconds that the rate is taken over

# What a receiver answered ``LATER`` waits so many first retry delays: a second, as a rule.
LATER_DELAYS = 5


class Arrivals(Generic[T]):
    """What has arrived for one subscription and was not handed out yet, in queue order.

    Whoever closes it decides that nothing more is handed out; what is left then is ``rest``.
    """

    def __init__(self) -> None:
        self._waiting: deque[T] = deque()
        self._rate = 0.0
        self._taken_at = 0.0
        self._changed = asyncio.Event()
        self.closed = asyncio.Event()

    def add(self, item: T) -> None:
        self._waiting.append(item)
        self._changed.set()

    def add_first(self, item: T) -> None:
        """Put back what was delivered before, ahead of what was not."""
        self._waiting.appendleft(item)
        self._changed.set()

    def close(self) -> None:
        self.closed.set()
        self._changed.set()

    def rest(self) -> list[T]:
        """What was never handed out; it is the caller's from here on."""
        rest = list(self._waiting)
        self._waiting.clear()
        return rest

    async def take(self, subscription: Subscription) -> list[T]:
        """The next batch, as the subscription wants it filled; empty only once closed."""
        await self._filled(1)
        linger = subscription.linger.total_seconds()
        if self._rate > BUSY:
            linger = max(linger, BUSY_LINGER)
        if linger > 0 and len(self._waiting) < subscription.batch:
            try:
                async with asyncio.timeout(linger):
                    await self._filled(subscription.batch)
            except TimeoutError:
                pass  # What has come by now is the batch.
        if self.closed.is_set():
            return []
        size = min(subscription.batch, len(self._waiting))
        self._count(size)
        return [self._waiting.popleft() for _ in range(size)]

    def _count(self, taken: int) -> None:
        now = asyncio.get_running_loop().time()
        passed, self._taken_at = now - self._taken_at, now
        self._rate = self._rate * math.exp(-passed / _SMOOTHING) + taken / _SMOOTHING

    async def _filled(self, size: int) -> None:
        while len(self._waiting) < size and not self.closed.is_set():
            self._changed.clear()
            await self._changed.wait()


@dataclass(frozen=True, slots=True)
class Answer:
    """What a receiver made of a batch: one outcome for each message, and why if it raised."""

    outcomes: Sequence[Outcome]
    failure: Exception | None = None


async def ask(subscription: Subscription, messages: Sequence[Incoming]) -> Answer:
    """Hand a batch to the receiver. Whatever it raises means ``RETRY`` for all of it.

    From a dead-letter queue nothing goes any further, so all but ``DONE`` means ``LATER`` there.

    Only a cancellation that is aimed at the calling task passes. A ``CancelledError`` that merely
    escapes from something the receiver awaited is a failure like any other: let through, it would
    end the subscription without a sound.
    """
    try:
        outcomes = await subscription.receive(messages)
        if len(outcomes) != len(messages):
            raise ValueError(f"{len(outcomes)} outcomes for {len(messages)} messages")  # noqa: TRY301 - a failure of the receiver like any other
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        failure: Exception = RuntimeError("the receiver was cancelled from within")
        failure.__cause__ = error
    except Exception as error:  # noqa: BLE001 - the edge: a receiver may raise anything
        failure = error
    else:
        return Answer(_bounded(subscription, outcomes))
    log.error("receiver_failed", queue=subscription.queue, messages=len(messages), exc_info=failure)
    return Answer(_bounded(subscription, [Outcome.RETRY] * len(messages)), failure)


def _bounded(subscription: Subscription, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
    if not subscription.queue.endswith(DEAD_ENDING):
        return outcomes
    return [one if one is Outcome.DONE else Outcome.LATER for one in outcomes]


def tell(receive: Hearer, message: Incoming) -> None:
    """Hand a message to a listener. If it raises, that is its defect and nobody else's concern."""
    try:
        receive(message)
    except Exception:
        log.exception("listener_failed", queue=message.queue)


def owned(work: Coroutine[None, None, None], *, name: str) -> asyncio.Task[None]:
    """A task of an adapter's own, which ends by itself only when told to, or over a defect.

    A defect is logged when it happens: whoever owns the task looks at it only when shutting down.
    """
    task = asyncio.create_task(work, name=name)
    task.add_done_callback(_report)
    return task


def _report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.error("broker_task_died", task=task.get_name(), exc_info=task.exception())


async def finished(task: asyncio.Task[None]) -> None:
    """Wait for a subscription's own task to end by itself, and cut it off if we are cancelled."""
    try:
        await asyncio.wait([task])
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
    task.result()
