"""What is remembered for a moment."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import pytest

from services.gateway.store.recent import Recent
from shared.errors import Transient
from tests.support.clock import HandClock

TTL = timedelta(seconds=1)
# When something that is asked for is to be read again, and is still given out.
AGED = timedelta(seconds=0.7)


class Source:
    """Answers with how often it was asked, once it may ``go``."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.absent: set[str] = set()
        self.go = asyncio.Event()
        self.go.set()
        self.failure: Exception | None = None

    async def read(self, keys: Sequence[str]) -> dict[str, int]:
        self.asked.append(" ".join(sorted(keys)))
        answer = len(self.asked)
        await self.go.wait()
        if self.failure is not None:
            raise self.failure
        return {key: answer for key in keys if key not in self.absent}


def remembering(source: Source, clock: HandClock, **more: int) -> Recent[str, int]:
    return Recent(source.read, clock=clock, ttl=TTL, **more)


async def test_what_was_read_is_given_until_it_is_too_old() -> None:
    source, clock = Source(), HandClock()
    recent = remembering(source, clock)
    assert await recent.get("a") == 1
    clock.move(timedelta(seconds=0.9))
    assert await recent.get("a") == 1
    assert recent.fresh("a") == 1
    clock.move(timedelta(seconds=0.2))
    assert recent.fresh("a") is None
    assert await recent.get("a") == 2


async def test_that_a_key_stands_for_nothing_is_remembered_too() -> None:
    source, clock = Source(), HandClock()
    source.absent.add("a")
    recent = remembering(source, clock)
    assert await recent.get("a") is None
    assert await recent.get("a") is None
    assert source.asked == ["a"]
    source.absent.clear()
    clock.move(TTL)
    assert await recent.get("a") == 2


async def test_many_who_ask_at_once_cause_one_read() -> None:
    source = Source()
    source.go.clear()
    recent = remembering(source, HandClock())
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(recent.get("a")) for _ in range(10)]
        await asyncio.sleep(0)
        source.go.set()
    assert {task.result() for task in tasks} == {1}
    assert source.asked == ["a"]


async def test_a_failed_read_is_told_to_everybody_and_not_remembered() -> None:
    source = Source()
    source.go.clear()
    source.failure = Transient("away")
    recent = remembering(source, HandClock())
    asking = [asyncio.ensure_future(recent.get("a")) for _ in range(3)]
    await asyncio.sleep(0)
    source.go.set()
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert [type(answer) for answer in answers] == [Transient] * 3
    source.failure = None
    assert await recent.get("a") == 2


async def test_who_gives_up_waiting_does_not_take_the_answer_from_others() -> None:
    source = Source()
    source.go.clear()
    recent = remembering(source, HandClock())
    first = asyncio.ensure_future(recent.get("a"))
    await asyncio.sleep(0)
    second, third = (asyncio.ensure_future(recent.get("a")) for _ in range(2))
    await asyncio.sleep(0)
    second.cancel()
    source.go.set()
    assert await first == 1
    assert await third == 1
    with pytest.raises(asyncio.CancelledError):
        await second


async def test_those_who_wait_for_a_reader_that_is_cancelled_are_not_left_waiting() -> None:
    source = Source()
    source.go.clear()
    recent = remembering(source, HandClock())
    first = asyncio.ensure_future(recent.get("a"))
    await asyncio.sleep(0)
    second = asyncio.ensure_future(recent.get("a"))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    source.go.set()
    assert await second == 2
    await asyncio.gather(first, return_exceptions=True)


async def test_what_is_forgotten_while_it_is_read_is_not_remembered() -> None:
    source = Source()
    source.go.clear()
    recent = remembering(source, HandClock())
    reading = asyncio.ensure_future(recent.get("a"))
    await asyncio.sleep(0)
    recent.forget("a")
    source.go.set()
    assert await reading == 1
    assert await recent.get("a") == 2


async def test_guessed_keys_do_not_push_out_those_in_use() -> None:
    source, clock = Source(), HandClock()
    recent = remembering(source, clock, capacity=2, absent_capacity=3)
    assert await recent.get("used") == 1
    for number in range(10):
        source.absent.add(f"guess{number}")
        assert await recent.get(f"guess{number}") is None
    assert recent.fresh("used") == 1


async def test_the_oldest_goes_when_there_is_no_room() -> None:
    source, clock = Source(), HandClock()
    recent = remembering(source, clock, capacity=2)
    for key in "abc":
        await recent.get(key)
    assert recent.fresh("a") is None
    assert recent.fresh("b") == 2
    assert recent.fresh("c") == 3


async def test_what_is_in_use_is_read_ahead_so_that_nobody_waits() -> None:
    source, clock = Source(), HandClock()
    recent = remembering(source, clock)
    for key in ("used", "unused", "used too"):
        await recent.get(key)
    for _ in range(10):
        clock.move(AGED)
        assert recent.fresh("used") is not None
        assert recent.fresh("used too") is not None
        await recent.refresh()
    assert recent.fresh("used") == 13
    assert source.asked[3:] == ["used used too"] * 10
    assert (recent.missed, recent.refreshed) == (3, 20)
    assert recent.fresh("unused") is None


async def test_nothing_is_read_ahead_before_it_ages_or_twice() -> None:
    source, clock = Source(), HandClock()
    recent = remembering(source, clock)
    await recent.get("a")
    await recent.refresh()
    clock.move(AGED)
    recent.fresh("a")
    source.go.clear()
    refreshing = asyncio.ensure_future(recent.refresh())
    await asyncio.sleep(0)
    assert recent.fresh("a") == 1
    source.go.set()
    await refreshing
    await recent.refresh()
    assert source.asked == ["a", "a"]
    assert recent.fresh("a") == 2


async def test_what_cannot_be_read_ahead_is_trusted_as_long_as_ever_and_no_longer() -> None:
    source, clock = Source(), HandClock()
    recent = remembering(source, clock)
    await recent.get("a")
    source.failure = Transient("away")
    clock.move(AGED)
    assert recent.fresh("a") == 1
    with pytest.raises(Transient):
        await recent.refresh()
    assert recent.fresh("a") == 1
    with pytest.raises(Transient):
        await recent.refresh()
    clock.move(TTL - AGED)
    assert recent.fresh("a") is None
    with pytest.raises(Transient):
        await recent.get("a")


async def test_what_stands_for_nothing_any_more_when_it_is_read_ahead_is_not_given_out() -> None:
    source, clock = Source(), HandClock()
    recent = remembering(source, clock)
    await recent.get("a")
    source.absent.add("a")
    clock.move(AGED)
    assert recent.fresh("a") == 1
    await recent.refresh()
    assert recent.fresh("a") is None
    assert await recent.get("a") is None


@pytest.mark.parametrize("everything", [False, True])
async def test_what_is_forgotten_while_it_is_read_ahead_is_not_remembered(
    everything: bool,
) -> None:
    source, clock = Source(), HandClock()
    recent = remembering(source, clock)
    await recent.get("a")
    clock.move(AGED)
    recent.fresh("a")
    source.go.clear()
    refreshing = asyncio.ensure_future(recent.refresh())
    await asyncio.sleep(0)
    if everything:
        recent.forget_if(lambda _: True)
    else:
        recent.forget("a")
    source.go.set()
    await refreshing
    assert recent.fresh("a") is None


async def test_a_read_ahead_that_comes_late_does_not_undo_a_later_read() -> None:
    source, clock = Source(), HandClock()
    recent = remembering(source, clock)
    await recent.get("a")
    clock.move(AGED)
    recent.fresh("a")
    source.go.clear()
    refreshing = asyncio.ensure_future(recent.refresh())
    await asyncio.sleep(0)
    clock.move(TTL)
    reading = asyncio.ensure_future(recent.get("a"))
    await asyncio.sleep(0)
    source.go.set()
    assert await reading == 3
    await refreshing
    assert recent.fresh("a") == 3


async def test_all_that_has_changed_is_forgotten_and_the_rest_is_kept() -> None:
    source, clock = Source(), HandClock()
    recent = remembering(source, clock)
    for key in "abc":
        await recent.get(key)
    recent.forget_if(lambda value: value != 2)
    assert [recent.fresh(key) for key in "abc"] == [None, 2, None]


async def test_many_are_read_ahead_by_a_few_reads() -> None:
    source, clock = Source(), HandClock()
    recent = remembering(source, clock)
    keys = [str(number) for number in range(450)]
    for key in keys:
        await recent.get(key)
    clock.move(AGED)
    assert all(recent.fresh(key) for key in keys)
    await recent.refresh()
    assert [len(asked.split()) for asked in source.asked[450:]] == [200, 200, 50]
