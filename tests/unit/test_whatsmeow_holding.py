"""What is confirmed to WhatsApp, and when: nothing before it is safe."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from services.sessions.engines.whatsmeow.worker.holding import (
    Holding,
    Unreadable,
    confirmed,
    outgoing_message,
)

PATIENCE = 10.0
MESSAGE = (
    '<message addressing_mode="lid" from="77:1@lid" id="3EB0A1" notify="Bob" t="1" type="text">'
    '<enc type="msg" v="2"><!-- 181 bytes --></enc></message>'
)
CONFIRMATION = '<receipt id="3EB0A1" to="77:1@lid" type="inactive"/>'
KEY = ("message", "3EB0A1")


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


class Asked:
    """Who is asked about messages that cannot be read."""

    def __init__(self) -> None:
        self.about: list[Unreadable] = []
        self.asked = threading.Event()

    def __call__(self, message: Unreadable) -> None:
        self.about.append(message)
        self.asked.set()


def a_holding(nothing_came: float = 60.0) -> tuple[Holding, Asked]:
    asked = Asked()
    return Holding(ask=asked, nothing_came=nothing_came), asked


def sending(threads: ThreadPoolExecutor, holding: Holding, frame: str) -> Future[None]:
    """A frame on its way out, in a thread that is certainly waiting, or through."""
    begun = threading.Event()

    def send() -> None:
        begun.set()
        holding.sending(frame)

    future = threads.submit(send)
    assert begun.wait(PATIENCE)
    return future


def test_a_confirmation_waits_until_the_message_is_committed(threads: ThreadPoolExecutor) -> None:
    holding, _ = a_holding()
    holding.received(MESSAGE)
    holding.came(KEY)
    going = sending(threads, holding, CONFIRMATION)
    assert not going.done()
    holding.settled(KEY, recorded=True)
    going.result(PATIENCE)
    assert holding.waiting() == 0


def test_it_waits_for_every_part_of_a_message(threads: ThreadPoolExecutor) -> None:
    holding, _ = a_holding()
    holding.received(MESSAGE.replace("<enc", "<enc/><enc", 1).replace("<enc/>", "<enc x='1'/>"))
    for _part in range(2):
        holding.came(KEY)
    holding.settled(KEY, recorded=False)
    going = sending(threads, holding, CONFIRMATION)
    assert not going.done()
    holding.settled(KEY, recorded=True)
    going.result(PATIENCE)


def test_what_whatsmeow_keeps_to_itself_is_confirmed_after_a_while(
    threads: ThreadPoolExecutor,
) -> None:
    holding, _ = a_holding(nothing_came=0.05)
    holding.received(MESSAGE)
    sending(threads, holding, CONFIRMATION).result(PATIENCE)


def test_what_has_come_and_is_not_committed_is_not_confirmed_however_long_it_takes(
    threads: ThreadPoolExecutor,
) -> None:
    holding, _ = a_holding(nothing_came=0.01)
    holding.received(MESSAGE)
    holding.came(KEY)
    going = sending(threads, holding, CONFIRMATION)
    with pytest.raises(TimeoutError):
        going.result(0.2)
    holding.end()
    going.result(PATIENCE)


def test_what_there_is_no_room_for_is_never_confirmed(threads: ThreadPoolExecutor) -> None:
    holding = Holding(ask=Asked(), most=2)
    others = [MESSAGE.replace("3EB0A1", id_) for id_ in ("3EB0B1", "3EB0B2")]
    assert all(map(holding.received, others))
    holding.came(("message", "3EB0B1"))
    assert not holding.received(MESSAGE)
    assert holding.received(others[1])  # Known already: that costs no room.
    late = sending(threads, holding, CONFIRMATION)
    first = sending(threads, holding, CONFIRMATION.replace("3EB0A1", "3EB0B1"))
    holding.settled(("message", "3EB0B1"), recorded=True)
    first.result(PATIENCE)
    assert not late.done()
    holding.end()
    late.result(PATIENCE)


def test_what_whatsmeow_never_confirms_makes_room_in_the_end() -> None:
    holding = Holding(ask=Asked(), most=1, abandoned=0)
    assert holding.received(MESSAGE.replace("3EB0A1", "3EB0B1"))
    assert holding.received(MESSAGE)
    holding.came(KEY)
    assert not holding.received(MESSAGE.replace("3EB0A1", "3EB0B2"))


def test_the_end_of_the_connection_lets_everything_go(threads: ThreadPoolExecutor) -> None:
    holding, _ = a_holding()
    holding.received(MESSAGE)
    holding.came(KEY)
    going = sending(threads, holding, CONFIRMATION)
    holding.end()
    going.result(PATIENCE)


def test_a_message_that_was_decrypted_before_is_asked_about(threads: ThreadPoolExecutor) -> None:
    holding, asked = a_holding()
    holding.received(MESSAGE)
    holding.ignored(
        "Ignoring message 3EB0A1 from 77:1@lid in 5@g.us: received message with old counter"
    )
    going = sending(threads, holding, CONFIRMATION)
    assert asked.asked.wait(PATIENCE)
    assert asked.about == [Unreadable("3EB0A1", "77:1@lid", "5@g.us")]
    assert not going.done()
    holding.known("3EB0A1")
    going.result(PATIENCE)


def test_a_repeat_of_what_was_confirmed_here_is_confirmed_at_once(
    threads: ThreadPoolExecutor,
) -> None:
    holding, asked = a_holding()
    for _time in range(2):
        holding.received(MESSAGE)
        holding.came(KEY)
        holding.settled(KEY, recorded=True)
        sending(threads, holding, CONFIRMATION).result(PATIENCE)
    holding.received(MESSAGE)
    holding.ignored("Ignoring message 3EB0A1 from 77:1@lid: received message with old counter")
    sending(threads, holding, CONFIRMATION).result(PATIENCE)
    assert asked.about == []


def test_the_phones_own_messages_to_its_devices_are_left_to_whatsmeow(
    threads: ThreadPoolExecutor,
) -> None:
    holding, asked = a_holding()
    holding.received(MESSAGE.replace("addressing_mode", 'category="peer" addressing_mode'))
    holding.ignored("Ignoring message 3EB0A1 from 77:1@lid: received message with old counter")
    sending(threads, holding, CONFIRMATION).result(PATIENCE)
    assert asked.about == []


def test_nobody_can_name_themselves_out_of_being_confirmed_late(
    threads: ThreadPoolExecutor,
) -> None:
    """A push name may hold anything; it stands behind what is read."""
    holding, _ = a_holding()
    holding.received(MESSAGE.replace("Bob", '" id="OTHER" category="peer" x="'))
    holding.came(KEY)
    going = sending(threads, holding, CONFIRMATION)
    assert not going.done()
    holding.settled(KEY, recorded=True)
    going.result(PATIENCE)


def test_a_receipt_is_acknowledged_when_it_is_committed(threads: ThreadPoolExecutor) -> None:
    holding, _ = a_holding()
    holding.received('<receipt from="77@lid" id="3EB0B2" t="1"/>')
    going = sending(threads, holding, '<ack class="receipt" id="3EB0B2" to="77@lid"/>')
    assert not going.done()
    holding.came(("receipt", "3EB0B2"))
    holding.settled(("receipt", "3EB0B2"), recorded=True)
    going.result(PATIENCE)


@pytest.mark.parametrize(
    "frame",
    [
        '<receipt id="3EB0A1" to="77:1@lid" type="read"/>',
        '<receipt id="3EB0A1" to="77:1@lid" type="retry"/>',
        '<ack class="message" id="3EB0A1" to="77@lid"/>',
        '<ack class="receipt" error="487" id="3EB0A1" to="77@lid"/>',
        '<iq id="1" to="s.whatsapp.net" type="get" xmlns="w:p"/>',
        "",
    ],
)
def test_other_frames_confirm_nothing(frame: str) -> None:
    assert confirmed(frame) is None


def test_an_outgoing_message_is_known_by_its_id() -> None:
    frame = '<message id="3EB0C3" to="77@lid" type="text"><participants/></message>'
    assert outgoing_message(frame) == "3EB0C3"
    assert outgoing_message(CONFIRMATION) is None
