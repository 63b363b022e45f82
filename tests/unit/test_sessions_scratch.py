"""Files in passing: gone when nobody uses them, whatever became of who did."""

from pathlib import Path

import pytest

from services.sessions.domain.fetching import FIRST, LONGEST, TRIES, given_up, next_try
from services.sessions.scratch import Scratch
from shared.errors import Transient
from tests.support.builders import NOON


def files(place: Path) -> list[str]:
    return [path.name for path in place.rglob("*") if path.is_file() and path.name != "lock"]


def left_in(place: Path) -> list[str]:
    return [path.name for path in place.iterdir()]


async def test_a_file_is_gone_when_nobody_uses_it_any_more(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path)
    async with scratch.running():
        async with scratch.path() as path:
            assert not path.exists()
            path.write_text("passing")
            assert len(files(tmp_path)) == 1
        assert files(tmp_path) == []


async def fail_with_a_file(scratch: Scratch) -> None:
    async with scratch.path() as path:
        path.write_text("passing")
        raise ZeroDivisionError


async def test_a_file_is_gone_when_its_user_fails(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path)
    async with scratch.running():
        with pytest.raises(ZeroDivisionError):
            await fail_with_a_file(scratch)
        assert files(tmp_path) == []


async def test_what_a_process_that_was_killed_has_left_is_removed_by_the_next(
    tmp_path: Path,
) -> None:
    dead = tmp_path / "dead"
    dead.mkdir()
    (dead / "lock").touch()
    (dead / "file").write_text("left behind")
    halfway = tmp_path / "halfway"
    halfway.mkdir()
    async with Scratch(tmp_path).running():
        assert files(tmp_path) == []
        assert not dead.exists()
        assert not halfway.exists()


async def test_what_a_living_process_uses_stays(tmp_path: Path) -> None:
    first, second = Scratch(tmp_path), Scratch(tmp_path)
    async with first.running(), first.path() as path:
        path.write_text("in use")
        async with second.running():
            assert path.read_text() == "in use"
        assert path.read_text() == "in use"


async def test_everything_is_gone_at_the_end(tmp_path: Path) -> None:
    async with Scratch(tmp_path).running():
        pass
    assert left_in(tmp_path) == ["lock"]


async def test_a_process_that_has_ended_has_no_room(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path)
    with pytest.raises(Transient):
        async with scratch.path():
            pass


# How long a file is fetched


def test_a_file_is_fetched_again_soon_at_first_then_seldom_and_for_a_day() -> None:
    waits = [next_try(attempt, now=NOON, jitter=0) - NOON for attempt in range(1, TRIES)]
    assert waits[0] == FIRST
    assert waits == sorted(waits)
    assert waits[-1] == LONGEST
    assert 23 < sum(wait.total_seconds() for wait in waits) / 3600 < 26


def test_only_the_last_attempt_gives_up() -> None:
    assert [given_up(attempt) for attempt in range(1, TRIES + 2)] == [False] * (TRIES - 1) + [
        True,
        True,
    ]


def test_those_that_failed_together_do_not_come_again_together() -> None:
    early, late = (next_try(3, now=NOON, jitter=jitter) for jitter in (-1, 1))
    assert late - early > FIRST
