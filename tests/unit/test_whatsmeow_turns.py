"""Encrypting and decrypting in one session take turns."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context

import pytest

from services.sessions.engines.whatsmeow.worker.turns import Turns, encrypting

PATIENCE = 10.0
FRAME = '<message addressing_mode="lid" from="77:1@lid" id="{id}" notify="Bob"><enc/></message>'
GROUP = (
    '<message from="5@g.us" id="{id}" notify="Bob" participant="77:1@lid" t="1"><enc/></message>'
)
BEGINS = "Decrypting message from 77:1@lid in 77@lid"
SENDS = '<message id="3EB0C3" to="77@lid" type="text"><participants/></message>'


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


def taking(threads: ThreadPoolExecutor, turns: Turns, whose: object) -> Future[None]:
    """A turn that is asked for, in a thread that certainly asks."""
    begun = threading.Event()

    def take() -> None:
        begun.set()
        turns.take(whose, at_most=PATIENCE)

    future = threads.submit(take)
    assert begun.wait(PATIENCE)
    return future


@pytest.mark.parametrize("frame", [FRAME, GROUP])
def test_nothing_is_encrypted_while_a_message_is_decrypted(
    threads: ThreadPoolExecutor, frame: str
) -> None:
    turns = Turns()
    turns.received(frame.format(id="3EB0A1"))
    turns.said(BEGINS)
    sending = taking(threads, turns, object())
    assert not sending.done()
    turns.sending('<receipt id="3EB0A1" to="77:1@lid" type="inactive"/>')
    sending.result(PATIENCE)


def test_nothing_is_decrypted_until_what_is_encrypted_goes_out(
    threads: ThreadPoolExecutor,
) -> None:
    turns, mine = Turns(), object()
    turns.take(mine)
    turns.received(FRAME.format(id="3EB0A1"))
    reading = threads.submit(turns.said, BEGINS)

    def send() -> None:
        encrypting.set(mine)
        turns.sending(SENDS)

    assert not reading.done()
    copy_context().run(send)
    reading.result(PATIENCE)


def test_what_was_not_answered_has_ended_when_the_next_begins(
    threads: ThreadPoolExecutor,
) -> None:
    turns = Turns()
    for id_ in ("1", "2"):
        turns.received(FRAME.format(id=id_))
        turns.said(BEGINS)
    sending = taking(threads, turns, object())
    turns.sending('<receipt id="1" to="77:1@lid"/>')
    assert not sending.done()
    turns.sending('<ack class="message" error="500" id="2" to="77:1@lid"/>')
    sending.result(PATIENCE)


def test_a_turn_that_never_ends_is_taken_all_the_same() -> None:
    turns = Turns()
    turns.take(object())
    turns.take(object(), at_most=0.01)


def test_turns_are_taken_in_the_order_of_asking(threads: ThreadPoolExecutor) -> None:
    turns, first = Turns(), object()
    turns.take(first)
    second, third = object(), object()
    waiting = taking(threads, turns, second)
    while not turns.waits(second):
        pass
    last = taking(threads, turns, third)
    turns.give(first)
    waiting.result(PATIENCE)
    assert not last.done()
    turns.give(second)
    last.result(PATIENCE)


def test_messages_that_whatsmeow_never_decrypts_do_not_confuse_the_count(
    threads: ThreadPoolExecutor,
) -> None:
    turns = Turns()
    turns.received('<message from="99@newsletter" id="N1" t="1"><plaintext/></message>')
    turns.received(FRAME.format(id="3EB0A1"))
    turns.said(BEGINS)
    sending = taking(threads, turns, object())
    assert not sending.done()
    turns.sending('<receipt id="3EB0A1" to="77:1@lid"/>')
    sending.result(PATIENCE)
