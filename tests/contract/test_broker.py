"""What ``shared/broker/port.py`` promises, sentence by sentence, of each broker there is."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import timedelta

import pytest

from shared.broker.dead import Reason, death_of
from shared.broker.memory import MemoryBroker
from shared.broker.port import Broker, Incoming, Outcome, Outgoing, Subscription
from shared.errors import Transient, Unroutable
from tests.contract.conftest import DELIVERY_LIMIT, RETRY_DELAY, Carrier
from tests.support.broker import PATIENCE, Inbox, Names

LONG = timedelta(seconds=PATIENCE)


@asynccontextmanager
async def publishing(broker: Broker, *messages: Outgoing) -> AsyncIterator[None]:
    """Publish at the side: a broker that keeps nothing waits until everything is received."""
    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as tasks:
        tasks.create_task(broker.publish(messages))
        yield


def retry_first(times: int) -> Callable[[Incoming], Outcome]:
    """Answers ``RETRY`` until a message has been delivered so many times."""
    return lambda message: Outcome.RETRY if message.attempt <= times else Outcome.DONE


# Publishing


async def test_a_message_arrives_as_it_was_published(broker: Broker, names: Names) -> None:
    inbox = Inbox()
    sent = Outgoing(
        exchange=names.direct,
        routing_key=names.queue,
        body=b'{"text": "\xc3\xa4"}',
        message_id="id-1",
        type="message.received",
        content_type="application/cloudevents+json",
        headers={"tenant": "t-1", "empty": ""},
    )

    async with broker.subscribe(Subscription(queue=names.queue, receive=inbox)):
        await broker.publish([sent])
        (received,) = await inbox.received(1)

    assert received == Incoming(
        queue=names.queue,
        body=sent.body,
        message_id="id-1",
        type="message.received",
        content_type="application/cloudevents+json",
        headers={"tenant": "t-1", "empty": ""},
        attempt=1,
    )


@pytest.mark.parametrize("size", [0, 1, 131_063, 131_064, 131_065, 400_000])
async def test_a_body_may_be_of_any_size(broker: Broker, names: Names, size: int) -> None:
    inbox = Inbox()
    sent = replace(names.message(), body=bytes(index % 251 for index in range(size)))

    async with broker.subscribe(Subscription(queue=names.queue, receive=inbox)):
        await broker.publish([sent, names.message("next")])
        received = await inbox.received(2)

    assert [message.body for message in received] == [sent.body, b"next"]


async def test_messages_keep_their_order(broker: Broker, names: Names) -> None:
    inbox = Inbox()

    async with (
        broker.subscribe(Subscription(queue=names.queue, receive=inbox, batch=7)),
        publishing(broker, *names.messages(100)),
    ):
        await inbox.received(100)

    assert inbox.bodies == [str(number) for number in range(100)]


async def test_a_message_waits_for_somebody_to_subscribe(broker: Broker, names: Names) -> None:
    inbox = Inbox()

    async with (
        publishing(broker, *names.messages(3)),
        broker.subscribe(Subscription(queue=names.queue, receive=inbox)),
    ):
        await inbox.received(3)

    assert inbox.bodies == ["0", "1", "2"]


async def test_publishing_nothing_is_fine(broker: Broker) -> None:
    await broker.publish([])


async def test_many_may_publish_at_once(broker: Broker, names: Names) -> None:
    inbox = Inbox()

    async with broker.subscribe(Subscription(queue=names.queue, receive=inbox, batch=50)):
        async with asyncio.TaskGroup() as tasks:
            for first in range(0, 400, 20):
                batch = [names.message(number) for number in range(first, first + 20)]
                tasks.create_task(broker.publish(batch))
        await inbox.received(400)

    assert sorted(inbox.bodies, key=int) == [str(number) for number in range(400)]


async def test_a_mandatory_message_without_a_queue_is_unroutable_and_the_others_are_safe(
    broker: Broker, names: Names
) -> None:
    inbox = Inbox()
    messages = [
        names.message("before"),
        names.message(to="nobody"),
        names.message("between"),
        names.message(to="nobody"),
        names.message("after"),
    ]

    async with broker.subscribe(Subscription(queue=names.queue, receive=inbox)):
        with pytest.raises(Unroutable, match="nobody"):
            await broker.publish(messages)
        await inbox.received(3)

    assert inbox.bodies == ["before", "between", "after"]


async def test_an_exchange_that_does_not_exist_is_unroutable_and_harms_nobody(
    broker: Broker, names: Names
) -> None:
    inbox = Inbox()
    stray = replace(names.message(), exchange="nowhere", mandatory=False)

    async with broker.subscribe(Subscription(queue=names.queue, receive=inbox)):
        with pytest.raises(Unroutable, match="nowhere"):
            await broker.publish([stray, names.message("the other")])
        await broker.publish([names.message("the next")])
        await inbox.received(2)

    assert inbox.bodies == ["the other", "the next"]


async def test_a_message_that_is_not_mandatory_may_have_no_receiver(
    broker: Broker, names: Names
) -> None:
    await broker.publish([replace(names.message(to="nobody"), mandatory=False)])


async def test_a_pattern_says_what_a_queue_wants(carrier: Carrier, names: Names) -> None:
    keys = ["message", "message.sent", "message.sent.v1", "ev.sent", "ev.t1.i1.message.sent.v1"]
    wanted = {
        "message.sent": ["message.sent"],
        "message.*": ["message.sent"],
        "*.sent": ["message.sent", "ev.sent"],
        "#": keys,
        "message.#": ["message", "message.sent", "message.sent.v1"],
        "#.v1": ["message.sent.v1", "ev.t1.i1.message.sent.v1"],
        "ev.*.i1.#.v1": ["ev.t1.i1.message.sent.v1"],
        "ev.*.i2.#.v1": [],
        "ev.#.sent.#": ["ev.sent", "ev.t1.i1.message.sent.v1"],
    }
    inboxes = {pattern: Inbox() for pattern in wanted}
    queues = {f"queue{number}": [pattern, "last"] for number, pattern in enumerate(wanted)}

    async with carrier.open(names.topology(**queues)) as broker, AsyncExitStack() as stack:
        for name, inbox in zip(queues, inboxes.values(), strict=True):
            subscription = Subscription(queue=f"{names.prefix}.{name}", receive=inbox)
            await stack.enter_async_context(broker.subscribe(subscription))
        await broker.publish(
            [
                replace(names.message(key), exchange=names.topic, routing_key=key)
                for key in (*keys, "last")
            ]
        )
        for inbox in inboxes.values():
            await inbox.until(lambda inbox=inbox: "last" in inbox.bodies)  # type: ignore[misc]

    received = {
        pattern: [key for key in inbox.bodies if key != "last"]
        for pattern, inbox in inboxes.items()
    }
    assert received == wanted


async def test_every_queue_that_is_bound_receives_it_once(carrier: Carrier, names: Names) -> None:
    one, two = Inbox(), Inbox()
    message = replace(names.message(), exchange=names.topic, routing_key="message.sent")
    last = replace(names.message("last"), exchange=names.topic, routing_key="message.last")
    topology = names.topology(one=["#", "message.*"], two=["message.#"])

    async with (
        carrier.open(topology) as broker,
        broker.subscribe(Subscription(queue=f"{names.prefix}.one", receive=one)),
        broker.subscribe(Subscription(queue=f"{names.prefix}.two", receive=two)),
    ):
        await broker.publish([message, last])
        await one.received(2)
        await two.received(2)

    assert one.bodies == two.bodies == ["hello", "last"]


# Batches


async def test_a_batch_is_no_larger_than_asked_for(broker: Broker, names: Names) -> None:
    inbox = Inbox()

    async with (
        broker.subscribe(Subscription(queue=names.queue, receive=inbox, batch=4)),
        publishing(broker, *names.messages(30)),
    ):
        await inbox.received(30)

    assert max(len(batch) for batch in inbox.batches) <= 4


async def test_what_arrives_while_a_batch_is_received_makes_the_next(
    broker: Broker, names: Names
) -> None:
    inbox = Inbox(open_=False)

    async with (
        broker.subscribe(Subscription(queue=names.queue, receive=inbox, batch=10)),
        publishing(broker, names.message("first")),
    ):
        await inbox.received(1)
        async with publishing(broker, *names.messages(20)):
            async with broker.subscribe(
                Subscription(queue=names.other, receive=(marker := Inbox()))
            ):
                await broker.publish([names.message(to=names.other)])
                await marker.received(1)
            inbox.gate.set()
            await inbox.received(21)

    assert max(len(batch) for batch in inbox.batches) > 1


async def test_a_lingering_subscription_waits_for_its_batch_to_fill(
    broker: Broker, names: Names
) -> None:
    inbox = Inbox()
    subscription = Subscription(queue=names.queue, receive=inbox, batch=3, linger=LONG)

    async with (
        broker.subscribe(subscription),
        publishing(broker, names.message("0")),
        publishing(broker, names.message("1")),
        publishing(broker, names.message("2")),
    ):
        await inbox.received(3)

    assert len(inbox.batches) == 1


async def test_a_lingering_subscription_takes_what_there_is_when_the_time_is_up(
    broker: Broker, names: Names
) -> None:
    inbox = Inbox()
    short = timedelta(milliseconds=20)
    subscription = Subscription(queue=names.queue, receive=inbox, batch=1000, linger=short)

    async with broker.subscribe(subscription):
        await broker.publish([names.message("alone")])
        await inbox.received(1)

    assert inbox.bodies == ["alone"]


async def test_a_subscription_never_receives_twice_at_once(broker: Broker, names: Names) -> None:
    inbox = Inbox(open_=False)

    async with (
        broker.subscribe(Subscription(queue=names.queue, receive=inbox)),
        publishing(broker, *names.messages(10)),
    ):
        await inbox.received(1)
        inbox.gate.set()
        await inbox.received(10)

    assert inbox.most_at_once == 1


async def test_subscriptions_do_not_wait_for_one_another(broker: Broker, names: Names) -> None:
    slow, quick = Inbox(open_=False), Inbox()

    async with (
        broker.subscribe(Subscription(queue=names.queue, receive=slow)),
        broker.subscribe(Subscription(queue=names.other, receive=quick)),
        publishing(broker, names.message(), names.message(to=names.other)),
    ):
        await slow.received(1)
        await quick.received(1)
        slow.gate.set()


# Outcomes


async def test_a_retried_message_comes_again_and_says_which_attempt_it_is(
    broker: Broker, names: Names
) -> None:
    inbox = Inbox(retry_first(2))

    async with broker.subscribe(Subscription(queue=names.queue, receive=inbox)):
        await broker.publish([names.message("again")])
        received = await inbox.received(3)

    assert [(message.body, message.attempt) for message in received] == [
        (b"again", 1),
        (b"again", 2),
        (b"again", 3),
    ]


async def test_a_message_for_later_comes_again_however_often_and_counts_nothing(
    broker: Broker, names: Names
) -> None:
    times = 3 * DELIVERY_LIMIT
    asked = 0

    def away_at_first(_: Incoming) -> Outcome:
        nonlocal asked
        asked += 1
        return Outcome.LATER if asked <= times else Outcome.DONE

    inbox = Inbox(away_at_first)
    async with (
        broker.subscribe(Subscription(queue=names.queue, receive=inbox)),
        publishing(broker, names.message()),
    ):
        await inbox.received(times + 1)

    assert {message.attempt for message in inbox.messages} == {1}


async def test_a_batch_that_was_kept_for_later_is_settled_whole_and_in_order(
    broker: Broker, names: Names
) -> None:
    seen: set[bytes] = set()

    def away_at_first(message: Incoming) -> Outcome:
        if message.body in seen:
            return Outcome.DONE
        seen.add(message.body)
        return Outcome.LATER

    inbox, marker = Inbox(away_at_first), Inbox()
    async with (
        broker.subscribe(Subscription(queue=names.queue, receive=inbox, batch=20)),
        publishing(broker, *names.messages(40)),
    ):
        await inbox.received(80)
    async with broker.subscribe(Subscription(queue=names.queue, receive=marker)):
        await broker.publish([names.message("last")])
        await marker.received(1)

    assert marker.bodies == ["last"]


async def test_what_is_kept_for_later_goes_back_to_the_queue_when_the_receiver_leaves(
    broker: Broker, names: Names
) -> None:
    away, back = Inbox(lambda _: Outcome.LATER), Inbox()
    async with publishing(broker, names.message()):
        async with broker.subscribe(Subscription(queue=names.queue, receive=away)):
            await away.received(2)
        async with broker.subscribe(Subscription(queue=names.queue, receive=back)):
            await back.received(1)

    assert back.bodies == ["hello"]


async def test_a_message_is_redelivered_up_to_the_limit_and_then_dead(
    broker: Broker, carrier: Carrier, names: Names
) -> None:
    inbox = Inbox(lambda _: Outcome.RETRY)

    async with broker.subscribe(Subscription(queue=names.queue, receive=inbox)):
        await broker.publish([names.message("hopeless")])
        await inbox.received(1 + DELIVERY_LIMIT)
        dead = await carrier.dead_letter(names.queue)

    assert dead == b"hopeless"
    assert len(inbox.messages) == 1 + DELIVERY_LIMIT


async def test_a_dead_message_is_not_delivered_again(
    broker: Broker, carrier: Carrier, names: Names
) -> None:
    inbox = Inbox(lambda message: Outcome.DEAD if message.body == b"bad" else Outcome.DONE)

    async with broker.subscribe(Subscription(queue=names.queue, receive=inbox)):
        await broker.publish([names.message("bad"), names.message("good")])
        await inbox.received(2)
        dead = await carrier.dead_letter(names.queue)

    assert dead == b"bad"
    assert inbox.bodies == ["bad", "good"]


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [(Outcome.DEAD, Reason.REFUSED), (Outcome.RETRY, Reason.IN_VAIN)],
)
async def test_a_dead_letter_is_received_with_what_it_died_of(
    broker: Broker, names: Names, outcome: Outcome, reason: Reason
) -> None:
    inbox, dead = Inbox(lambda _: outcome), Inbox()

    async with (
        broker.subscribe(Subscription(queue=f"{names.queue}.dead", receive=dead)),
        broker.subscribe(Subscription(queue=names.queue, receive=inbox)),
    ):
        await broker.publish([replace(names.message("bad"), message_id="7", type="example")])
        await dead.received(1)

    [letter] = dead.messages
    assert (letter.body, letter.message_id, letter.type) == (b"bad", "7", "example")
    assert letter.queue == f"{names.queue}.dead"
    assert death_of(letter).reason is reason


@pytest.mark.parametrize("answer", [Outcome.DEAD, Outcome.RETRY, Outcome.LATER])
async def test_a_dead_letter_leaves_only_when_its_receiver_is_done(
    broker: Broker, names: Names, answer: Outcome
) -> None:
    repeats = DELIVERY_LIMIT + 3
    letters: list[Incoming] = []
    done = asyncio.Event()

    async def bury(messages: Sequence[Incoming]) -> list[Outcome]:
        letters.extend(messages)
        if len(letters) < repeats:
            return [answer] * len(messages)
        done.set()
        return [Outcome.DONE] * len(messages)

    refusing = Inbox(lambda _: Outcome.DEAD)
    async with (
        broker.subscribe(Subscription(queue=f"{names.queue}.dead", receive=bury)),
        broker.subscribe(Subscription(queue=names.queue, receive=refusing)),
    ):
        await broker.publish([names.message("bad")])
        async with asyncio.timeout(10):
            await done.wait()

    assert {letter.body for letter in letters} == {b"bad"}
    assert len(letters) == repeats


async def test_dead_letters_of_before_are_received(broker: Broker, names: Names) -> None:
    refusing, dead = Inbox(lambda _: Outcome.DEAD), Inbox()
    async with broker.subscribe(Subscription(queue=names.queue, receive=refusing)):
        await broker.publish([names.message("bad")])
        await refusing.received(1)

    async with broker.subscribe(Subscription(queue=f"{names.queue}.dead", receive=dead)):
        await dead.received(1)

    assert dead.bodies == ["bad"]


async def test_each_message_of_a_batch_has_its_own_outcome(
    broker: Broker, carrier: Carrier, names: Names
) -> None:
    def answer(message: Incoming) -> Outcome:
        if message.body == b"3":
            return Outcome.DEAD
        return Outcome.RETRY if message.body in (b"1", b"4") and message.attempt == 1 else done

    done = Outcome.DONE
    inbox = Inbox(answer)
    subscription = Subscription(queue=names.queue, receive=inbox, batch=6, linger=LONG)
    rest = Inbox()

    async with publishing(broker, *names.messages(6)):
        async with broker.subscribe(subscription):
            await inbox.received(6)
        async with broker.subscribe(Subscription(queue=names.queue, receive=rest)):
            await rest.received(2)
            await broker.publish([names.message("last")])
            await rest.received(3)
    dead = await carrier.dead_letter(names.queue)

    assert sorted(rest.bodies) == ["1", "4", "last"]
    assert dead == b"3"


async def test_done_messages_stay_done_around_one_that_is_retried(
    broker: Broker, names: Names
) -> None:
    inbox = Inbox(lambda message: retry_first(2 if message.body == b"5" else 0)(message))

    async with (
        broker.subscribe(Subscription(queue=names.queue, receive=inbox, batch=4)),
        publishing(broker, *names.messages(40)),
    ):
        await inbox.received(42)
    after = Inbox()
    async with broker.subscribe(Subscription(queue=names.queue, receive=after)):
        await broker.publish([names.message("last")])
        await after.received(1)

    assert sorted(inbox.bodies, key=int) == sorted(map(str, [*range(40), 5, 5]), key=int)
    assert after.bodies == ["last"]


async def test_a_retried_message_does_not_hold_up_the_others(broker: Broker, names: Names) -> None:
    inbox = Inbox(lambda message: retry_first(3 if message.body == b"0" else 0)(message))

    async with (
        broker.subscribe(Subscription(queue=names.queue, receive=inbox)),
        publishing(broker, *names.messages(2)),
    ):
        await inbox.received(5)

    assert inbox.bodies[:2] == ["0", "1"]


async def test_a_receiver_that_raises_gets_the_whole_batch_again(
    broker: Broker, names: Names
) -> None:
    inbox = Inbox()
    failures = [OSError("once"), OSError("twice")]

    async def receive(batch: Sequence[Incoming]) -> Sequence[Outcome]:
        outcomes = await inbox(batch)
        if failures:
            raise failures.pop()
        return outcomes

    subscription = Subscription(queue=names.queue, receive=receive, batch=2, linger=LONG)
    async with broker.subscribe(subscription), publishing(broker, *names.messages(2)):
        received = await inbox.received(6)

    assert [message.attempt for message in received] == [1, 1, 2, 2, 3, 3]


async def test_a_receiver_that_answers_too_little_gets_the_whole_batch_again(
    broker: Broker, names: Names
) -> None:
    inbox = Inbox()

    async def receive(batch: Sequence[Incoming]) -> Sequence[Outcome]:
        outcomes = await inbox(batch)
        return outcomes[1:] if batch[0].attempt == 1 else outcomes

    async with broker.subscribe(Subscription(queue=names.queue, receive=receive)):
        await broker.publish([names.message()])
        received = await inbox.received(2)

    assert [message.attempt for message in received] == [1, 2]


async def test_a_cancellation_that_escapes_from_a_receiver_does_not_end_the_subscription(
    broker: Broker, names: Names
) -> None:
    inbox = Inbox()

    async def receive(batch: Sequence[Incoming]) -> Sequence[Outcome]:
        outcomes = await inbox(batch)
        if batch[0].attempt == 1:
            raise asyncio.CancelledError
        return outcomes

    async with broker.subscribe(Subscription(queue=names.queue, receive=receive)):
        await broker.publish([names.message()])
        received = await inbox.received(2)

    assert [message.attempt for message in received] == [1, 2]


async def test_a_receiver_may_publish_even_to_its_own_queue(broker: Broker, names: Names) -> None:
    inbox = Inbox()

    async def receive(batch: Sequence[Incoming]) -> Sequence[Outcome]:
        (message,) = batch
        if message.body != b"0":
            await broker.publish([names.message(int(message.body) - 1)])
        return await inbox(batch)

    async with broker.subscribe(Subscription(queue=names.queue, receive=receive)):
        await broker.publish([names.message(3)])
        await inbox.received(4)

    assert inbox.bodies == ["3", "2", "1", "0"]


# Subscribing


async def test_unsubscribing_waits_for_the_receiver_that_is_running(
    broker: Broker, names: Names
) -> None:
    inbox = Inbox(open_=False)
    left = asyncio.Event()

    async def subscribed() -> None:
        async with broker.subscribe(Subscription(queue=names.queue, receive=inbox)):
            await inbox.received(1)
            leaving.set()
        left.set()

    leaving = asyncio.Event()
    async with asyncio.TaskGroup() as tasks, publishing(broker, names.message()):
        tasks.create_task(subscribed())
        await leaving.wait()
        assert inbox.at_once == 1
        assert not left.is_set()
        inbox.gate.set()
        await left.wait()
    assert inbox.at_once == 0

    after = Inbox()
    async with broker.subscribe(Subscription(queue=names.queue, receive=after)):
        await broker.publish([names.message("last")])
        await after.received(1)
    assert after.bodies == ["last"]


async def test_nothing_is_handed_out_after_unsubscribing_and_the_rest_goes_back(
    broker: Broker, names: Names
) -> None:
    before, after = Inbox(), Inbox()

    async def receive(batch: Sequence[Incoming]) -> Sequence[Outcome]:
        received.set()
        await leave.wait()
        return await before(batch)

    received, leave = asyncio.Event(), asyncio.Event()
    async with publishing(broker, *names.messages(10)):
        async with broker.subscribe(Subscription(queue=names.queue, receive=receive, batch=2)):
            await received.wait()
            # Leaving has begun by the time this is called, and waits for the receiver.
            asyncio.get_running_loop().call_soon(leave.set)
        assert len(before.batches) == 1
        async with broker.subscribe(Subscription(queue=names.queue, receive=after)):
            await after.received(10 - len(before.messages))

    assert sorted(before.bodies + after.bodies, key=int) == [str(number) for number in range(10)]


async def test_what_was_not_handed_out_does_not_wait_for_the_receiver_that_is_running(
    broker: Broker, names: Names
) -> None:
    slow, next_ = Inbox(open_=False), Inbox()

    async def subscribed() -> None:
        async with broker.subscribe(Subscription(queue=names.queue, receive=slow)):
            await slow.received(1)

    async with publishing(broker, *names.messages(2)):
        leaving = asyncio.create_task(subscribed())
        await slow.received(1)
        async with broker.subscribe(Subscription(queue=names.queue, receive=next_)):
            await next_.received(1)
            assert slow.at_once == 1
            slow.gate.set()
            await leaving

    assert (slow.bodies, next_.bodies) == (["0"], ["1"])


async def test_a_message_that_waits_for_its_retry_goes_back_when_unsubscribing(
    carrier: Carrier, names: Names
) -> None:
    before, after = Inbox(lambda _: Outcome.RETRY), Inbox()

    async with carrier.open(names.topology()) as broker, publishing(broker, names.message()):
        async with broker.subscribe(Subscription(queue=names.queue, receive=before)):
            await before.received(2)
        async with broker.subscribe(Subscription(queue=names.queue, receive=after)):
            await after.received(1)

    assert after.messages[0].attempt > 2


async def test_a_receiver_that_is_cancelled_has_not_received(broker: Broker, names: Names) -> None:
    before, after = Inbox(open_=False), Inbox()

    async def subscribed() -> None:
        async with broker.subscribe(Subscription(queue=names.queue, receive=before)):
            await before.received(1)
            leaving.set()

    leaving = asyncio.Event()
    async with publishing(broker, names.message("kept")):
        task = asyncio.create_task(subscribed())
        await leaving.wait()
        await asyncio.sleep(0)  # Let it begin to wait for the receiver.
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
        async with broker.subscribe(Subscription(queue=names.queue, receive=after)):
            await after.received(1)

    assert after.bodies == ["kept"]


async def test_what_the_body_of_a_subscription_raises_is_what_is_raised(
    broker: Broker, names: Names
) -> None:
    with pytest.raises(KeyError):
        async with broker.subscribe(Subscription(queue=names.queue, receive=Inbox())):
            raise KeyError


async def test_many_may_subscribe_and_unsubscribe_at_once(broker: Broker, names: Names) -> None:
    inboxes = {queue: Inbox() for queue in (names.queue, names.other, names.exclusive)}

    async def come_and_go(queue: str) -> None:
        for _ in range(5):
            async with broker.subscribe(Subscription(queue=queue, receive=inboxes[queue])):
                received = len(inboxes[queue].messages)
                await broker.publish([names.message(to=queue)])
                await inboxes[queue].received(received + 1)

    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as tasks:
        for queue in inboxes:
            tasks.create_task(come_and_go(queue))

    assert [len(inbox.messages) for inbox in inboxes.values()] == [5, 5, 5]


async def test_a_queue_with_a_single_active_consumer_has_one_until_it_leaves(
    broker: Broker, names: Names
) -> None:
    first, second = Inbox(), Inbox()

    async with broker.subscribe(Subscription(queue=names.exclusive, receive=first)):
        await broker.publish([names.message("0", to=names.exclusive)])
        await first.received(1)
        async with broker.subscribe(Subscription(queue=names.exclusive, receive=second)):
            async with publishing(broker, *names.messages(5, to=names.exclusive)):
                await first.received(6)
            assert not second.messages
    async with broker.subscribe(Subscription(queue=names.exclusive, receive=second)):
        await broker.publish([names.message("last", to=names.exclusive)])
        await second.received(1)

    assert second.bodies == ["last"]


async def test_a_queue_that_was_never_declared_cannot_be_subscribed_to(broker: Broker) -> None:
    with pytest.raises(ValueError, match="nothing-here"):
        async with broker.subscribe(Subscription(queue="nothing-here", receive=Inbox())):
            pass


# Listening


class Ear:
    """A listener that remembers what it has heard."""

    def __init__(self) -> None:
        self.heard: list[Incoming] = []
        self._changed = asyncio.Event()

    def __call__(self, message: Incoming) -> None:
        self.heard.append(message)
        self._changed.set()

    @property
    def bodies(self) -> list[str]:
        return [message.body.decode() for message in self.heard]

    async def until(self, count: int) -> list[Incoming]:
        async with asyncio.timeout(PATIENCE):
            while len(self.heard) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.heard


async def test_a_listener_hears_a_message_as_it_was_published(broker: Broker, names: Names) -> None:
    ear = Ear()
    sent = Outgoing(
        exchange=names.direct,
        routing_key="replica-1",
        body=b"answer",
        message_id="id-1",
        type="instance_answered",
        headers={"tenant": "t-1"},
    )

    async with broker.listen(names.direct, "replica-1", ear):
        await broker.publish([sent])
        (heard,) = await ear.until(1)

    assert heard == Incoming(
        queue="replica-1",
        body=b"answer",
        message_id="id-1",
        type="instance_answered",
        content_type="application/json",
        headers={"tenant": "t-1"},
        attempt=1,
    )


async def test_each_listener_hears_what_is_published_under_its_key(
    broker: Broker, names: Names
) -> None:
    ears = {key: Ear() for key in ("one", "two", "nobody's")}
    same = Ear()

    async with AsyncExitStack() as stack:
        for key, ear in ears.items():
            await stack.enter_async_context(broker.listen(names.direct, key, ear))
        await stack.enter_async_context(broker.listen(names.direct, "two", same))
        await broker.publish(
            [names.message(f"{key} {n}", to=key) for n in range(3) for key in ("one", "two")]
        )
        for ear in (ears["one"], ears["two"], same):
            await ear.until(3)

    assert ears["one"].bodies == ["one 0", "one 1", "one 2"]
    assert ears["two"].bodies == same.bodies == ["two 0", "two 1", "two 2"]
    assert not ears["nobody's"].heard


async def test_a_pattern_can_be_listened_for(broker: Broker, names: Names) -> None:
    ear = Ear()

    async with broker.listen(names.topic, "message.*", ear):
        await broker.publish(
            [
                replace(names.message(key, to=key), exchange=names.topic, mandatory=False)
                for key in ("instance.qr", "message.sent", "message.sent.v1", "message.last")
            ]
        )
        await ear.until(2)

    assert ear.bodies == ["message.sent", "message.last"]


async def test_a_queue_and_a_listener_both_get_a_message(broker: Broker, names: Names) -> None:
    ear, inbox = Ear(), Inbox()

    async with (
        broker.listen(names.direct, names.queue, ear),
        broker.subscribe(Subscription(queue=names.queue, receive=inbox)),
    ):
        await broker.publish([names.message("both")])
        await inbox.received(1)
        await ear.until(1)

    assert ear.bodies == inbox.bodies == ["both"]


async def test_publishing_to_somebody_who_does_not_listen_disturbs_nobody_unless_mandatory(
    broker: Broker, names: Names
) -> None:
    lost = names.message(to="gone")

    await broker.publish([replace(lost, mandatory=False)])
    with pytest.raises(Unroutable):
        await broker.publish([lost])


async def test_nothing_is_kept_for_a_listener_and_nothing_is_left_of_it(
    broker: Broker, names: Names
) -> None:
    before, after = Ear(), Ear()

    await broker.publish([replace(names.message("too early", to="me"), mandatory=False)])
    async with broker.listen(names.direct, "me", before):
        await broker.publish([names.message("in time", to="me")])
        await before.until(1)
    with pytest.raises(Unroutable):
        await broker.publish([names.message("too late", to="me")])
    async with broker.listen(names.direct, "me", after):
        await broker.publish([names.message("in time again", to="me")])
        await after.until(1)

    assert before.bodies == ["in time"]
    assert after.bodies == ["in time again"]


async def test_a_listener_that_raises_goes_on_hearing_and_the_publisher_notices_nothing(
    broker: Broker, names: Names
) -> None:
    ear = Ear()

    def hear(message: Incoming) -> None:
        ear(message)
        raise KeyError

    async with broker.listen(names.direct, "me", hear):
        await broker.publish([names.message("one", to="me"), names.message("two", to="me")])
        await ear.until(2)

    assert ear.bodies == ["one", "two"]


async def test_an_exchange_that_was_never_declared_cannot_be_listened_to(broker: Broker) -> None:
    with pytest.raises(ValueError, match="nowhere"):
        async with broker.listen("nowhere", "key", Ear()):
            pass


async def test_what_the_body_of_a_listener_raises_is_what_is_raised(
    broker: Broker, names: Names
) -> None:
    with pytest.raises(KeyError):
        async with broker.listen(names.direct, "me", Ear()):
            raise KeyError


async def test_a_broker_that_is_open_is_connected(broker: Broker) -> None:
    assert broker.connected()


# What only the broker in memory says of itself


def memory_broker(names: Names, *, raise_failures: bool = False) -> MemoryBroker:
    return MemoryBroker(
        names.topology(),
        raise_failures=raise_failures,
        publish_timeout=timedelta(milliseconds=50),
        retry_delay=RETRY_DELAY,
        delivery_limit=DELIVERY_LIMIT,
    )


async def test_in_memory_publish_returns_when_every_receiver_has_settled(names: Names) -> None:
    broker = MemoryBroker(names.topology(), retry_delay=RETRY_DELAY)
    inbox = Inbox(retry_first(2))

    async with broker.subscribe(Subscription(queue=names.queue, receive=inbox)):
        await broker.publish([names.message()])

    assert [message.attempt for message in inbox.messages] == [1, 2, 3]


async def test_in_memory_publish_waits_for_what_a_receiver_publishes(names: Names) -> None:
    broker = MemoryBroker(names.topology())
    consequence = Inbox()

    async def receive(batch: Sequence[Incoming]) -> Sequence[Outcome]:
        await broker.publish([names.message(to=names.other)])
        return [Outcome.DONE] * len(batch)

    async with (
        broker.subscribe(Subscription(queue=names.queue, receive=receive)),
        broker.subscribe(Subscription(queue=names.other, receive=consequence)),
    ):
        await broker.publish([names.message()])

    assert len(consequence.messages) == 1


async def test_in_memory_a_message_that_nobody_receives_in_time_is_withdrawn(names: Names) -> None:
    broker = memory_broker(names)
    inbox = Inbox()

    with pytest.raises(Transient):
        await broker.publish([names.message("withdrawn")])
    async with broker.subscribe(Subscription(queue=names.queue, receive=inbox)):
        await broker.publish([names.message("received")])

    assert inbox.bodies == ["received"]


async def test_in_memory_repeating_a_message_that_is_being_received_adds_no_copy(
    names: Names,
) -> None:
    broker = memory_broker(names)
    inbox = Inbox(open_=False)
    message = names.message("slow")

    async with broker.subscribe(Subscription(queue=names.queue, receive=inbox)):
        with pytest.raises(Transient):
            await broker.publish([message])
        with pytest.raises(Transient):
            await broker.publish([message])
        inbox.gate.set()
        await broker.publish([message])
        await broker.publish([names.message("next")])

    assert inbox.bodies == ["slow", "next"]


async def test_in_memory_the_failure_of_a_receiver_can_be_raised_in_the_publisher(
    names: Names,
) -> None:
    broker = memory_broker(names, raise_failures=True)
    attempts: list[int] = []

    async def receive(batch: Sequence[Incoming]) -> Sequence[Outcome]:
        attempts.extend(message.attempt for message in batch)
        raise ZeroDivisionError

    async with broker.subscribe(Subscription(queue=names.queue, receive=receive)):
        with pytest.raises(ZeroDivisionError):
            await broker.publish([names.message()])

    assert attempts == [1]


async def test_in_memory_a_failure_further_down_is_raised_in_the_first_publisher(
    names: Names,
) -> None:
    broker = memory_broker(names, raise_failures=True)

    async def receive(batch: Sequence[Incoming]) -> Sequence[Outcome]:
        await broker.publish([names.message(to=names.other)])
        return [Outcome.DONE] * len(batch)

    async def fail(batch: Sequence[Incoming]) -> Sequence[Outcome]:
        raise ZeroDivisionError

    async with (
        broker.subscribe(Subscription(queue=names.queue, receive=receive)),
        broker.subscribe(Subscription(queue=names.other, receive=fail)),
    ):
        with pytest.raises(ZeroDivisionError):
            await broker.publish([names.message()])
