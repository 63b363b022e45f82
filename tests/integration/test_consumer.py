"""Consumers: what becomes of a message that is handled, refused, failed at or put off."""

from collections.abc import Awaitable, Callable, Iterator, MutableMapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import orjson
import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from shared.broker.memory import MemoryBroker
from shared.broker.port import Incoming, Outcome, Outgoing, Receiver, Subscription
from shared.broker.topology import COMMANDS, Binding, Exchange, Queue, Topology
from shared.contracts import envelope, events
from shared.contracts.commands import Dispatch, ReceiptsReported, ScanSandboxQr, Transmit
from shared.contracts.envelope import Carried, Emitted
from shared.contracts.model import Command
from shared.db.database import Database
from shared.errors import Away, Rejected, Transient
from shared.ids import new_id
from shared.messaging import consumer, inbox
from shared.metrics import MessagingMetrics
from tests.support.broker import Inbox
from tests.support.builders import NOON

DONE, RETRY, DEAD = Outcome.DONE, Outcome.RETRY, Outcome.DEAD
POISON = new_id()


Logs = list[MutableMapping[str, Any]]


@pytest.fixture(autouse=True)
def logs() -> Iterator[Logs]:
    """What was logged; captured in every test, because tracebacks take long to be printed."""
    with capture_logs() as logs:
        yield logs


@pytest.fixture
def metrics() -> MessagingMetrics:
    return MessagingMetrics("example", CollectorRegistry())


def incoming(body: bytes, *, type_: str = "", attempt: int = 1) -> Incoming:
    """A message as a receiver gets it."""
    return Incoming(
        queue="example.queue",
        body=body,
        message_id=str(new_id()),
        type=type_,
        content_type="application/json",
        headers={},
        attempt=attempt,
    )


def a_command(command: Command | None = None, *, attempt: int = 1) -> Incoming:
    """A command's message."""
    command = command or ScanSandboxQr(instance_id=new_id())
    body = command.model_dump_json().encode()
    return incoming(body, type_=command.TYPE, attempt=attempt)


def an_event(id_: UUID | None = None) -> Emitted:
    """An event."""
    return Emitted(
        id=id_ or new_id(),
        event=events.Test(message="Hello"),
        tenant_id=new_id(),
        instance_id=None,
        time=NOON,
        subject="test",
        partition_key="test",
        correlation_id="req-1",
    )


def a_batch(*batch: Emitted, attempt: int = 1) -> Incoming:
    """One message that carries events."""
    body = envelope.join([envelope.encode(event) for event in batch])
    return incoming(body, type_="test", attempt=attempt)


class Handled:
    """A handler that remembers its calls and raises what it is told to, if ``POISON`` is there."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.calls: list[list[UUID]] = []
        self._failure = failure

    async def commands(self, commands: Sequence[ScanSandboxQr]) -> None:
        """For batches of commands."""
        self._take([command.instance_id for command in commands])

    async def command(self, command: ScanSandboxQr) -> None:
        """For one command at a time."""
        self._take([command.instance_id])

    async def events(self, batch: Sequence[Emitted]) -> None:
        """For events."""
        self._take([event.id for event in batch])

    async def carried(self, batch: Sequence[Carried]) -> None:
        """For events that are only passed on."""
        self._take([event.id for event in batch])

    def _take(self, ids: list[UUID]) -> None:
        self.calls.append(ids)
        if self._failure is not None and POISON in ids:
            raise self._failure


Way = tuple[Receiver, Callable[..., Incoming]]


def way(kind: str, handled: Handled, metrics: MessagingMetrics) -> Way:
    """A receiver of some kind, and what makes a message with one id for it."""

    def scan(id_: UUID, *, attempt: int = 1) -> Incoming:
        return a_command(ScanSandboxQr(instance_id=id_), attempt=attempt)

    def told(id_: UUID, *, attempt: int = 1) -> Incoming:
        return a_batch(an_event(id_), attempt=attempt)

    match kind:
        case "commands":
            return consumer.commands({ScanSandboxQr: handled.command}, metrics=metrics), scan
        case "command_batches":
            receive = consumer.command_batches({ScanSandboxQr: handled.commands}, metrics=metrics)
            return receive, scan
        case "events":
            return consumer.events(handled.events, metrics=metrics), told
        case _:
            return consumer.carried_events(handled.carried, metrics=metrics), told


ALL = pytest.mark.parametrize("kind", ["commands", "command_batches", "events", "carried_events"])
TOGETHER = pytest.mark.parametrize("kind", ["command_batches", "events", "carried_events"])
BUGS = pytest.mark.parametrize(
    "bug", [ZeroDivisionError("ours"), ValueError("ours"), KeyError("x")]
)


@ALL
async def test_what_is_handled_is_done(kind: str, metrics: MessagingMetrics) -> None:
    handled = Handled()
    receive, message = way(kind, handled, metrics)
    ids = [new_id() for _ in range(3)]
    assert await receive([message(id_) for id_ in ids]) == [DONE] * 3
    assert [id_ for call in handled.calls for id_ in call] == ids


@TOGETHER
async def test_what_comes_together_is_handled_together(
    kind: str, metrics: MessagingMetrics
) -> None:
    handled = Handled()
    receive, message = way(kind, handled, metrics)
    ids = [new_id() for _ in range(3)]
    await receive([message(id_) for id_ in ids])
    assert handled.calls == [ids]


@ALL
@pytest.mark.parametrize(
    ("failure", "outcome"),
    [(Rejected("never"), DEAD), (RuntimeError("a bug"), RETRY), (ValueError("a bug"), RETRY)],
)
async def test_one_message_that_fails_does_not_spoil_its_batch(
    kind: str, failure: Exception, outcome: Outcome, metrics: MessagingMetrics
) -> None:
    handled = Handled(failure)
    receive, message = way(kind, handled, metrics)
    one, other = new_id(), new_id()
    outcomes = await receive([message(one), message(POISON), message(other)])
    assert outcomes == [DONE, outcome, DONE]
    assert handled.calls[-3:] == [[one], [POISON], [other]]


@ALL
async def test_what_cannot_be_done_now_is_tried_again(
    kind: str, metrics: MessagingMetrics, logs: Logs
) -> None:
    receive, message = way(kind, Handled(Transient("The database is away.")), metrics)
    assert await receive([message(POISON)]) == [RETRY]
    (line,) = (line for line in logs if line["event"] == "messages_postponed")
    assert line["log_level"] == "warning"
    assert line["reason"] == "The database is away."


@ALL
async def test_an_outage_is_waited_out_without_counting(
    kind: str, metrics: MessagingMetrics
) -> None:
    handled = Handled(Away("The database is away."))
    receive, message = way(kind, handled, metrics)
    assert await receive([message(POISON, attempt=2)]) == [Outcome.LATER]


@TOGETHER
async def test_a_batch_that_cannot_be_done_now_is_not_tried_piece_by_piece(
    kind: str, metrics: MessagingMetrics
) -> None:
    # The world is wrong for all of them; asking it once for each would only take longer.
    handled = Handled(Transient("The database is away."))
    receive, message = way(kind, handled, metrics)
    assert await receive([message(new_id()), message(POISON)]) == [RETRY, RETRY]
    assert len(handled.calls) == 1


@TOGETHER
async def test_a_message_that_never_can_be_done_does_not_hold_up_others_for_ever(
    kind: str, metrics: MessagingMetrics
) -> None:
    receive, message = way(kind, Handled(Transient("It takes too long.")), metrics)
    assert await receive([message(new_id()), message(POISON, attempt=2)]) == [DONE, RETRY]


@ALL
@BUGS
async def test_a_bug_is_logged_with_its_traceback_and_tried_again(
    kind: str, bug: Exception, metrics: MessagingMetrics, logs: Logs
) -> None:
    receive, message = way(kind, Handled(bug), metrics)
    assert await receive([message(POISON)]) == [RETRY]
    (line,) = (line for line in logs if line["event"] == "message_handler_failed")
    assert line["log_level"] == "error"
    assert line["exc_info"] is bug
    assert bug.__traceback__ is not None


@ALL
async def test_what_a_handler_refuses_is_dead_and_logged(
    kind: str, metrics: MessagingMetrics, logs: Logs
) -> None:
    receive, message = way(kind, Handled(Rejected("Not for us.")), metrics)
    assert await receive([message(POISON)]) == [DEAD]
    (line,) = (line for line in logs if line["event"] == "messages_refused")
    assert (line["log_level"], line["reason"]) == ("error", "Not for us.")


@ALL
@pytest.mark.parametrize(
    "body", [b"", b"garbage", b"\xff", b"3", b"{}", b"[3]", b'[{"id": 1}]', b'{"instance_id": "x"}']
)
async def test_garbage_is_dead_at_once_and_its_neighbours_are_not(
    kind: str, body: bytes, metrics: MessagingMetrics
) -> None:
    handled = Handled()
    receive, message = way(kind, handled, metrics)
    garbage = incoming(body, type_=ScanSandboxQr.TYPE)
    good = new_id()
    assert await receive([garbage, message(good)]) == [DEAD, DONE]
    assert handled.calls[-1:] == [[good]]


async def test_what_stands_in_garbage_does_not_end_up_in_the_log(
    metrics: MessagingMetrics,
    logs: Logs,
) -> None:
    receive, _ = way("commands", Handled(), metrics)
    body = b'{"instance_id": "between us"}'
    assert await receive([incoming(body, type_=ScanSandboxQr.TYPE)]) == [DEAD]
    (line,) = (line for line in logs if line["event"] == "messages_refused")
    assert "between us" not in f"{line['exc_info']} {line['exc_info'].__cause__}"


@pytest.mark.parametrize("kind", ["commands", "command_batches"])
@pytest.mark.parametrize("type_", [Dispatch.TYPE, "no_such_command", ""])
async def test_a_command_that_is_not_for_us_is_dead(
    kind: str, type_: str, metrics: MessagingMetrics
) -> None:
    handled = Handled()
    receive, _ = way(kind, handled, metrics)
    assert await receive([incoming(b'{"instance_ids": []}', type_=type_)]) == [DEAD]
    assert handled.calls == []


async def test_commands_share_nothing_so_none_is_handled_twice_over_another(
    metrics: MessagingMetrics,
) -> None:
    handled = Handled(RuntimeError("a bug"))
    receive, message = way("commands", handled, metrics)
    ids = [new_id(), POISON, new_id()]
    assert await receive([message(id_) for id_ in ids]) == [DONE, RETRY, DONE]
    assert handled.calls == [[id_] for id_ in ids]


async def test_handlers_of_a_batch_run_in_the_order_of_the_handlers(
    metrics: MessagingMetrics,
) -> None:
    calls: list[tuple[str, int]] = []

    def noting(name: str) -> Callable[[Sequence[Command]], Awaitable[None]]:
        async def handle(commands: Sequence[Command]) -> None:
            calls.append((name, len(commands)))

        return handle

    receive = consumer.command_batches(
        {
            ReceiptsReported: noting("receipts"),
            Dispatch: noting("dispatch"),
            Transmit: noting("never"),
        },
        metrics=metrics,
    )
    dispatch, receipts = Dispatch(instance_ids=()), ReceiptsReported(receipts=())
    messages = [a_command(one) for one in (dispatch, receipts, dispatch)]
    assert await receive(messages) == [DONE] * 3
    assert calls == [("receipts", 1), ("dispatch", 2)]


async def test_all_events_of_all_messages_are_handed_over_at_once(
    metrics: MessagingMetrics,
) -> None:
    handled = Handled()
    receive, _ = way("events", handled, metrics)
    one, two, three = an_event(), an_event(), an_event()
    assert await receive([a_batch(one, two), a_batch(three)]) == [DONE, DONE]
    assert handled.calls == [[one.id, two.id, three.id]]


def unknown(**changed: Any) -> Incoming:
    """A message with an event that this program does not know."""
    item = {**orjson.loads(envelope.encode(an_event())), **changed}
    return incoming(b"[" + orjson.dumps(item) + b"]")


@pytest.mark.parametrize("kind", ["events", "carried_events"])
async def test_events_that_are_for_newer_readers_are_left_out(
    kind: str, metrics: MessagingMetrics
) -> None:
    handled = Handled()
    receive, message = way(kind, handled, metrics)
    known = new_id()
    newer = unknown(type="dev.waypost.test.v2", data={"another": "shape"})
    assert await receive([newer, message(known)]) == [DONE, DONE]
    assert handled.calls == [[known]]


async def test_a_message_with_unknown_events_only_is_done_without_a_word(
    metrics: MessagingMetrics,
) -> None:
    handled = Handled()
    receive, _ = way("events", handled, metrics)
    assert await receive([unknown(type="dev.waypost.moon.landed.v1")]) == [DONE]
    assert handled.calls == []


async def test_each_message_is_counted_once_by_its_outcome(metrics: MessagingMetrics) -> None:
    receive, message = way("events", Handled(Rejected("never")), metrics)
    await receive([message(new_id()), message(POISON), message(new_id())])
    counted = {
        (one.labels["source"], one.labels["outcome"]): one.value
        for family in metrics.handled.collect()
        for one in family.samples
        if one.name.endswith("_total")
    }
    assert counted == {("example", "done"): 2, ("example", "dead"): 1}


async def test_each_end_is_told_in_one_line(metrics: MessagingMetrics, logs: Logs) -> None:
    receive, message = way("events", Handled(), metrics)
    await receive([message(new_id(), attempt=3), message(new_id())])
    (line,) = logs
    assert line.pop("duration_ms") >= 0
    assert line == {
        "event": "messages_handled",
        "log_level": "info",
        "queue": "example.queue",
        "count": 2,
        "attempt": 3,
        "outcome": "done",
    }


async def test_neighbours_of_a_message_that_the_database_refuses_are_committed(
    module_database_url: str, metrics: MessagingMetrics
) -> None:
    seen: list[UUID] = []
    async with Database.open(module_database_url, role="waypost_stats") as database:

        async def record(batch: Sequence[Carried]) -> None:
            async with database.hot_tx() as connection:
                ids = [event.id for event in batch]
                new = await inbox.fresh(connection, "stats", ids, now=NOON)
                if POISON in new:
                    await connection.execute("SELECT 1 / 0")
            seen.extend(sorted(new))

        receive = consumer.carried_events(record, metrics=metrics)
        ids = sorted([new_id(), POISON, new_id(), new_id()])
        outcomes = await receive([a_batch(an_event(id_)) for id_ in ids])
        assert dict(zip(ids, outcomes, strict=True)) == {
            id_: RETRY if id_ == POISON else DONE for id_ in ids
        }
        async with database.hot() as connection:
            rows = await connection.fetch("SELECT event_id FROM stats.inbox")
    assert {row[0] for row in rows} == set(ids) - {POISON} == set(seen)


async def test_over_a_broker_the_dead_are_buried_and_the_others_come_again(
    metrics: MessagingMetrics,
) -> None:
    failures = [Transient("not yet"), RuntimeError("a bug"), None]
    scanned: list[UUID] = []

    async def scan(command: ScanSandboxQr) -> None:
        failure = failures.pop(0)
        if failure is not None:
            raise failure
        scanned.append(command.instance_id)

    broker = MemoryBroker(
        Topology(
            (Exchange(COMMANDS, "direct"),), (Queue("here"),), (Binding("here", COMMANDS, "x"),)
        ),
        retry_delay=timedelta(milliseconds=1),
    )
    command = ScanSandboxQr(instance_id=new_id())
    good = Outgoing(COMMANDS, "x", command.model_dump_json().encode(), "1", command.TYPE)
    bad = Outgoing(COMMANDS, "x", b"garbage", "2", command.TYPE)
    receive = consumer.commands({ScanSandboxQr: scan}, metrics=metrics)
    async with broker.subscribe(Subscription(queue="here", receive=receive, batch=10)):
        await broker.publish([bad, good])
    assert scanned == [command.instance_id]
    assert [dead.message_id for dead in broker.dead_letters("here")] == ["2"]


# Dead letters


def a_dead_letter(body: bytes = b"7", *, attempt: int = 1) -> Incoming:
    """A message in a dead-letter queue."""
    return replace(incoming(body, attempt=attempt), queue="here.dead", headers={"why": "bad"})


async def test_a_dead_letter_that_cannot_be_kept_holds_up_no_other(
    metrics: MessagingMetrics,
) -> None:
    kept: list[bytes] = []

    async def keep(messages: Sequence[Incoming]) -> None:
        if any(message.body == b"poison" for message in messages):
            raise ValueError("a defect of ours")
        kept.extend(message.body for message in messages)

    receive = consumer.dead_letters(keep, broker=MemoryBroker(), metrics=metrics)
    outcomes = await receive([a_dead_letter(b"1"), a_dead_letter(b"poison"), a_dead_letter(b"2")])
    assert outcomes == [DONE, Outcome.LATER, DONE]
    assert kept == [b"1", b"2"]


async def test_a_dead_letter_that_was_given_back_often_begins_anew(
    metrics: MessagingMetrics,
) -> None:
    """RabbitMQ 4 would throw it away after twenty deliveries."""

    async def keep(_messages: Sequence[Incoming]) -> None:
        raise Away("the database is away")

    topology = Topology((), (Queue("here"),), ())
    broker = MemoryBroker(topology)
    inbox = Inbox()
    receive = consumer.dead_letters(keep, broker=broker, metrics=metrics)
    assert await receive([a_dead_letter(attempt=10)]) == [Outcome.LATER]
    async with broker.subscribe(Subscription(queue="here.dead", receive=inbox)):
        assert await receive([a_dead_letter(attempt=11)]) == [DONE]
    [again] = inbox.messages
    assert (again.body, again.attempt, again.headers) == (b"7", 1, {"why": "bad"})


async def test_a_dead_letter_stays_where_it_is_when_it_cannot_begin_anew(
    metrics: MessagingMetrics,
) -> None:
    async def keep(_messages: Sequence[Incoming]) -> None:
        raise Away("the database is away")

    nowhere = MemoryBroker(Topology((), (), ()))
    receive = consumer.dead_letters(keep, broker=nowhere, metrics=metrics)
    assert await receive([a_dead_letter(attempt=11)]) == [Outcome.LATER]
