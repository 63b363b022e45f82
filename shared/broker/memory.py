"""A broker in the memory of one process, for tests and for running everything in one process."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import lru_cache
from typing import assert_never

from shared.backoff import exponential
from shared.broker.dead import REASON, Reason
from shared.broker.port import Broker, Hearer, Incoming, Outcome, Outgoing, Subscription
from shared.broker.receiving import LATER_DELAYS, Answer, Arrivals, ask, finished, owned, tell
from shared.broker.topology import DEAD, DELIVERY_LIMIT, TOPOLOGY, Binding, Queue, Topology
from shared.errors import Transient, Unroutable

LONGEST_RETRY_DELAY = timedelta(seconds=5)


class _Entry:
    """One message in one queue, until it is settled.

    ``children`` are what its receiver published while it ran. They belong to whoever waits for
    this entry, because the receiver itself did not wait for them (see ``MemoryBroker``).
    ``died_at`` is, of a dead letter, at which attempt it became one.
    """

    __slots__ = (
        "attempt",
        "children",
        "died_at",
        "failure",
        "message",
        "queue",
        "settled",
        "withdrawn",
    )

    def __init__(self, message: Outgoing, queue: "_Queue") -> None:
        self.message = message
        self.queue = queue
        self.attempt = 0
        self.children: list[_Entry] = []
        self.died_at = 0
        self.failure: Exception | None = None
        self.settled = asyncio.Event()
        self.withdrawn = False

    @property
    def key(self) -> tuple[str, str]:
        return self.queue.name, self.message.message_id

    def incoming(self) -> Incoming:
        return _incoming(self.message, queue=self.queue.name, attempt=self.attempt)


class _Queue:
    """Where entries wait, and who is there to take them."""

    def __init__(self, declared: Queue) -> None:
        self.name = declared.name
        self.dead = declared.dead
        self._one_at_a_time = declared.single_active_consumer
        self._unclaimed: deque[_Entry] = deque()
        self._receivers: deque[Arrivals[_Entry]] = deque()

    @property
    def waiting(self) -> Sequence[_Entry]:
        """What nobody has received, oldest first."""
        return tuple(self._unclaimed)

    @property
    def received(self) -> bool:
        """Whether anybody receives from it."""
        return bool(self._receivers)

    def put(self, entry: _Entry) -> None:
        if not self._receivers:
            self._unclaimed.append(entry)
            return
        self._receivers[0].add(entry)
        if not self._one_at_a_time:
            self._receivers.rotate(-1)

    def put_back(self, entry: _Entry) -> None:
        """As RabbitMQ does, ahead of what nobody has received yet."""
        if self._receivers:
            self._receivers[0].add_first(entry)
        else:
            self._unclaimed.appendleft(entry)

    def join(self, arrivals: Arrivals[_Entry]) -> None:
        self._receivers.append(arrivals)
        while self._unclaimed:
            self._receivers[0].add(self._unclaimed.popleft())

    def leave(self, arrivals: Arrivals[_Entry]) -> None:
        self._receivers.remove(arrivals)
        arrivals.close()
        for entry in reversed(arrivals.rest()):
            self.put_back(entry)

    def forget(self, entry: _Entry) -> None:
        """Nobody waits for it any more; one that a receiver holds is skipped by its mark."""
        if entry in self._unclaimed:
            self._unclaimed.remove(entry)


@dataclass(frozen=True, slots=True, eq=False)
class _Listener:
    """Somebody who hears what goes by, and for whom nothing is kept."""

    exchange: str
    key: str
    receive: Hearer


class _Run:
    """One call of a receiver: what is published during it becomes a child of its messages."""

    __slots__ = ("active", "broker", "children")

    def __init__(self, broker: "MemoryBroker") -> None:
        self.broker = broker
        self.active = True
        self.children: list[_Entry] = []


_running: ContextVar[_Run | None] = ContextVar("waypost_memory_broker_run", default=None)


class MemoryBroker:
    """Keeps nothing, so ``publish`` returns only when every bound receiver has settled.

    Whoever publishes still has the message until then (in an outbox, say), and has it again after
    a crash. What follows from that, and where this differs from a broker that keeps messages:

    * A message whose queue has no subscriber is held until one comes; after the publish timeout it
      is withdrawn and ``publish`` raises ``Transient``.
    * A message that is still being received or retried when the timeout passes stays. Publishing
      it again with the same ``message_id`` joins it, instead of adding a copy at each repetition
      and starting to count its attempts anew.
    * What a receiver publishes while it runs is not waited for there, since it could be waiting for
      itself; it is waited for by whoever published the message that is being received.
    * A dead letter whose queue has a receiver is waited for like what a receiver publishes: until
      it is settled too, whoever published the message has it. Others are kept in ``dead_letters``,
      for as long as the object lives.

    With ``raise_failures``, meant for tests, an exception of a receiver is not retried but raised
    in the publisher, so that a test fails with the cause and not with its consequence.
    """

    def __init__(
        self,
        topology: Topology = TOPOLOGY,
        *,
        raise_failures: bool = False,
        publish_timeout: timedelta = timedelta(seconds=5),
        retry_delay: timedelta = timedelta(milliseconds=200),
        delivery_limit: int = DELIVERY_LIMIT,
    ) -> None:
        self._raise_failures = raise_failures
        self._publish_timeout = publish_timeout
        self._retry_delay = retry_delay
        self._delivery_limit = delivery_limit
        self._queues = {queue.name: _Queue(queue) for queue in topology.queues}
        self._queues |= {queue.dead: _Queue(Queue(queue.dead)) for queue in topology.queues}
        self._kinds = {exchange.name: exchange.kind for exchange in topology.exchanges}
        self._kinds.setdefault(DEAD, "direct")
        self._bindings: dict[str, list[Binding]] = {name: [] for name in self._kinds}
        self._abandoned: dict[tuple[str, str], _Entry] = {}
        self._listeners: list[_Listener] = []
        for binding in topology.bindings:
            self._bindings[binding.exchange].append(binding)
        for queue in topology.queues:
            self._bindings[DEAD].append(Binding(queue.dead, DEAD, queue.dead))

    async def publish(self, messages: Sequence[Outgoing]) -> None:
        entries: list[_Entry] = []
        unroutable: list[Outgoing] = []
        for message in messages:
            queues = self._routed(message)
            heard = self._heard(message)
            lost = not queues and not heard
            if lost and (message.mandatory or message.exchange not in self._kinds):
                unroutable.append(message)
            entries.extend(self._enqueue(message, queue) for queue in queues)
        run = _running.get()
        if run is not None and run.active and run.broker is self:
            run.children.extend(entries)
        else:
            await self._settled(entries)
        if unroutable:
            raise Unroutable(f"no queue for {unroutable[0].exchange}/{unroutable[0].routing_key}")

    @asynccontextmanager
    async def subscribe(self, subscription: Subscription) -> AsyncIterator[None]:
        queue = self._queues.get(subscription.queue)
        if queue is None:
            raise ValueError(f"no queue {subscription.queue!r} in the topology")
        arrivals: Arrivals[_Entry] = Arrivals()
        queue.join(arrivals)
        serving = owned(self._serve(subscription, arrivals), name=f"subscription {queue.name}")
        try:
            yield
        finally:
            queue.leave(arrivals)
            await finished(serving)

    @asynccontextmanager
    async def listen(self, exchange: str, key: str, receive: Hearer) -> AsyncIterator[None]:
        if exchange not in self._kinds:
            raise ValueError(f"no exchange {exchange!r} in the topology")
        listener = _Listener(exchange, key, receive)
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)

    def connected(self) -> bool:
        return True

    def dead_letters(self, queue: str) -> Sequence[Incoming]:
        """The dead letters of a queue that nobody received; ``attempt`` is the last one made."""
        dead = self._queues[self._queues[queue].dead]
        return tuple(replace(entry.incoming(), attempt=entry.died_at) for entry in dead.waiting)

    def _routed(self, message: Outgoing) -> list[_Queue]:
        bindings = self._bindings.get(message.exchange, ())
        names = {binding.queue for binding in bindings if self._takes(binding.key, message)}
        return [self._queues[name] for name in sorted(names)]

    def _heard(self, message: Outgoing) -> bool:
        """Tell those who listen; whether anybody does."""
        listeners = [
            listener
            for listener in self._listeners
            if listener.exchange == message.exchange and self._takes(listener.key, message)
        ]
        for listener in listeners:
            tell(listener.receive, _incoming(message, queue=listener.key, attempt=1))
        return bool(listeners)

    def _takes(self, key: str, message: Outgoing) -> bool:
        if key == message.routing_key:
            return True
        return self._kinds[message.exchange] == "topic" and _matches(key, message.routing_key)

    def _enqueue(self, message: Outgoing, queue: _Queue) -> _Entry:
        abandoned = self._abandoned.pop((queue.name, message.message_id), None)
        if abandoned is not None:
            return abandoned
        entry = _Entry(message, queue)
        queue.put(entry)
        return entry

    async def _settled(self, entries: Iterable[_Entry]) -> None:
        pending = deque(entries)
        failure: Exception | None = None
        try:
            async with asyncio.timeout(self._publish_timeout.total_seconds()):
                while pending:
                    await pending[0].settled.wait()
                    entry = pending.popleft()
                    failure = failure or entry.failure
                    pending.extend(entry.children)
        except TimeoutError as error:
            raise Transient("a message was not settled in time") from error
        finally:
            for entry in pending:
                self._abandon(entry)
        if failure is not None:
            raise failure

    def _abandon(self, entry: _Entry) -> None:
        if entry.settled.is_set():
            for child in entry.children:
                self._abandon(child)
            return
        if entry.attempt:
            self._abandoned[entry.key] = entry
            return
        entry.withdrawn = True
        entry.failure = Transient("nobody received the message in time")
        entry.queue.forget(entry)
        entry.settled.set()

    async def _serve(self, subscription: Subscription, arrivals: Arrivals[_Entry]) -> None:
        while taken := await arrivals.take(subscription):
            entries = [entry for entry in taken if not entry.withdrawn]
            if not entries:
                continue
            for entry in entries:
                entry.attempt += 1
            run = _Run(self)
            token = _running.set(run)
            try:
                answer = await ask(subscription, [entry.incoming() for entry in entries])
            except asyncio.CancelledError:
                for entry in reversed(entries):
                    entry.queue.put_back(entry)
                raise
            finally:
                run.active = False
                _running.reset(token)
            self._settle(entries, answer, run)

    def _settle(self, entries: Sequence[_Entry], answer: Answer, run: _Run) -> None:
        for entry, outcome in zip(entries, answer.outcomes, strict=True):
            entry.children.extend(run.children)
            if self._raise_failures and answer.failure is not None:
                entry.failure = answer.failure
                self._finish(entry)
                continue
            match outcome:
                case Outcome.DONE:
                    self._finish(entry)
                case Outcome.DEAD:
                    self._bury(entry, Reason.REFUSED)
                case Outcome.LATER:
                    entry.attempt -= 1
                    self._offer_again(entry, LATER_DELAYS * self._retry_delay)
                case Outcome.RETRY if entry.attempt > self._delivery_limit:
                    self._bury(entry, Reason.IN_VAIN)
                case Outcome.RETRY:
                    self._retry(entry)
                case _:
                    assert_never(outcome)

    def _retry(self, entry: _Entry) -> None:
        delay = exponential(
            entry.attempt, base=self._retry_delay, cap=LONGEST_RETRY_DELAY, jitter=0
        )
        self._offer_again(entry, delay)

    def _offer_again(self, entry: _Entry, delay: timedelta) -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(delay.total_seconds(), entry.queue.put_back, entry)

    def _bury(self, entry: _Entry, reason: Reason) -> None:
        headers = {**entry.message.headers, REASON: reason}
        dead = self._enqueue(
            replace(entry.message, headers=headers), self._queues[entry.queue.dead]
        )
        dead.died_at = entry.attempt
        if dead.queue.received:
            entry.children.append(dead)
        self._finish(entry)

    def _finish(self, entry: _Entry) -> None:
        self._abandoned.pop(entry.key, None)
        entry.settled.set()


def _incoming(message: Outgoing, *, queue: str, attempt: int) -> Incoming:
    return Incoming(
        queue=queue,
        body=message.body,
        message_id=message.message_id,
        type=message.type,
        content_type=message.content_type,
        headers=dict(message.headers),
        attempt=attempt,
    )


@lru_cache(maxsize=4096)
def _matches(pattern: str, key: str) -> bool:
    """Whether a topic pattern takes a key: ``*`` is one word, ``#`` any number, none included."""
    return _words_match(pattern.split("."), key.split("."))


def _words_match(pattern: Sequence[str], key: Sequence[str]) -> bool:
    if not pattern:
        return not key
    first, rest = pattern[0], pattern[1:]
    if first == "#":
        return any(_words_match(rest, key[taken:]) for taken in range(len(key) + 1))
    return bool(key) and first in ("*", key[0]) and _words_match(rest, key[1:])


_: type[Broker] = MemoryBroker
