"""What is remembered for a moment."""

import asyncio
from datetime import timedelta

import pytest

from services.gateway.store.recent import Recent
from shared.errors import Transient
from tests.support.clock import HandClock

TTL = timedelta(seconds=1)


class Source:
    """Answers with how often it was asked; holds answers back while ``held``."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.absent: set[str] = set()
        self.go = asyncio.Event()
        self.go.set()
        self.failure: Exception | None = None

    async def read(self, key: str) -> int | None:
        self.asked.append(key)
        await self.go.wait()
        if self.failure is not None:
            raise self.failure
        return None if key in self.absent else len(self.asked)


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
