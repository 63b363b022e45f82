"""Ids: new ones that sort by time, and those that a cause always gets again."""

import time
from uuid import RFC_4122, UUID

from shared.ids import id_of, new_id


def test_a_new_id_is_a_uuid_of_version_seven() -> None:
    id_ = new_id()
    assert (id_.version, id_.variant) == (7, RFC_4122)


def test_a_new_id_begins_with_the_millisecond_of_its_making() -> None:
    before = time.time_ns() // 1_000_000
    made = new_id().int >> 80
    assert before <= made <= time.time_ns() // 1_000_000


def test_new_ids_do_not_repeat() -> None:
    assert len({new_id() for _ in range(10_000)}) == 10_000


def test_all_bits_that_may_be_random_are() -> None:
    ids = [new_id().int for _ in range(2000)]
    ever_set = ever_clear = 0
    for id_ in ids:
        ever_set |= id_
        ever_clear |= ~id_
    random = (1 << 76) - 1 & ~(0b11 << 62)
    assert ever_set & random == random
    assert ever_clear & random == random


def test_one_cause_has_one_id_for_ever() -> None:
    # Events that are being delivered bear such ids: another result would double them.
    cause = ("message.sent", UUID("018f3b2e-0000-7000-8000-000000000001"))
    assert id_of(*cause) == UUID("6c36a4f9-633a-5923-8e71-9c835fb7b511")


def test_parts_of_a_cause_are_not_run_together() -> None:
    assert len({id_of("ab", "c"), id_of("a", "bc"), id_of("abc")}) == 3


def test_a_uuid_and_its_text_are_the_same_cause() -> None:
    id_ = new_id()
    assert id_of("message.sent", id_) == id_of("message.sent", str(id_))
