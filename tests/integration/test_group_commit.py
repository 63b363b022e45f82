"""Group commit: callers share a commit, and nothing else; against a real table where it matters."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta

import asyncpg
import pytest

from shared.db.database import Database
from shared.db.group_commit import GroupCommit
from shared.errors import Transient


class Notes:
    """A table that refuses negative numbers and repeated ones, and a flush that writes to it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.flushed: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.reached = asyncio.Event()

    async def flush(self, numbers: Sequence[int]) -> list[str]:
        """Write all numbers in one transaction; each caller gets a text with theirs."""
        self.flushed.append(list(numbers))
        self.reached.set()
        await self.gate.wait()
        async with self._database.hot_tx() as connection:
            rows = await connection.fetch(
                "INSERT INTO notes SELECT unnest($1::int[]) RETURNING number", list(numbers)
            )
        return [f"wrote {row[0]}" for row in rows]

    async def written(self) -> list[int]:
        """What is committed."""
        async with self._database.hot() as connection:
            return [
                row[0] for row in await connection.fetch("SELECT number FROM notes ORDER BY number")
            ]


@pytest.fixture
async def notes(module_database_url: str) -> AsyncIterator[Notes]:
    async with Database.open(module_database_url) as database:
        async with database.hot() as connection:
            await connection.execute("DROP TABLE IF EXISTS notes")
            await connection.execute(
                "CREATE TABLE notes (number int PRIMARY KEY CHECK (number >= 0))"
            )
        yield Notes(database)


def committing(
    notes: Notes,
    *,
    max_batch: int = 500,
    max_waiting: int = 100,
    linger: timedelta = timedelta(0),
) -> GroupCommit[int, str]:
    """A group commit of numbers."""
    return GroupCommit(
        notes.flush, name="notes", max_batch=max_batch, max_waiting=max_waiting, linger=linger
    )


async def test_each_caller_gets_its_own_result_once_it_is_committed(notes: Notes) -> None:
    async with committing(notes).running() as commits:
        results = await asyncio.gather(*(commits.submit(number) for number in range(20)))
        assert await notes.written() == list(range(20))
    assert results == [f"wrote {number}" for number in range(20)]


async def test_callers_who_come_during_a_commit_share_the_next(notes: Notes) -> None:
    async with committing(notes).running() as commits, asyncio.TaskGroup() as callers:
        notes.gate.clear()
        callers.create_task(commits.submit(0))
        await notes.reached.wait()
        for number in range(1, 10):
            callers.create_task(commits.submit(number))
        await asyncio.sleep(0)
        notes.gate.set()
    assert notes.flushed == [[0], list(range(1, 10))]


async def test_no_batch_is_larger_than_the_bound(notes: Notes) -> None:
    async with committing(notes, max_batch=4).running() as commits:
        await asyncio.gather(*(commits.submit(number) for number in range(10)))
    assert notes.flushed == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


async def test_a_commit_that_overlaps_begins_when_nobody_new_comes_and_leaves_half(
    notes: Notes,
) -> None:
    async def crowd(commits: GroupCommit[int, str]) -> None:
        async with asyncio.TaskGroup() as callers:
            for number in range(12):
                callers.create_task(commits.submit(number))
                await asyncio.sleep(0)  # each turn of the loop brings another

    async with GroupCommit(notes.flush, name="notes", overlap=4).running() as commits:
        await crowd(commits)
    assert notes.flushed == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert await notes.written() == list(range(12))


async def test_a_row_that_fails_fails_its_own_caller_only(notes: Notes) -> None:
    async with committing(notes).running() as commits:
        answers = await asyncio.gather(
            *(commits.submit(number) for number in (1, 2, 3, -4, 5, 6, 7, 7)),
            return_exceptions=True,
        )
    assert await notes.written() == [1, 2, 3, 5, 6, 7]
    failed = [type(answer) for answer in answers if isinstance(answer, BaseException)]
    assert failed == [asyncpg.CheckViolationError, asyncpg.UniqueViolationError]
    assert isinstance(answers[3], asyncpg.CheckViolationError)
    assert answers[:3] == ["wrote 1", "wrote 2", "wrote 3"]


async def test_a_value_that_the_database_cannot_take_fails_its_own_caller_only(
    notes: Notes,
) -> None:
    # The driver refuses it before it asks the server, which must not look as if that were away.
    async with committing(notes).running() as commits:
        good, bad = await asyncio.gather(
            commits.submit(1), commits.submit(2**40), return_exceptions=True
        )
    assert good == "wrote 1"
    assert isinstance(bad, asyncpg.DataError)


async def test_when_the_database_is_away_all_fail_at_once_and_nothing_is_split() -> None:
    batches = []

    async def flush(items: Sequence[int]) -> list[None]:
        batches.append(list(items))
        raise Transient("The database is away.")

    async with GroupCommit(flush, name="notes").running() as commits:
        answers = await asyncio.gather(
            *(commits.submit(number) for number in range(8)), return_exceptions=True
        )
    assert all(isinstance(answer, Transient) for answer in answers)
    assert batches == [list(range(8))]


async def test_a_database_that_goes_away_while_a_batch_is_split_fails_who_is_left(
    notes: Notes,
) -> None:
    async def flush(numbers: Sequence[int]) -> list[str]:
        if numbers == [3]:
            raise Transient("The database is away.")
        return await notes.flush(numbers)

    async with GroupCommit(flush, name="notes").running() as commits:
        answers = await asyncio.gather(
            *(commits.submit(number) for number in (1, 2, 3, -4)), return_exceptions=True
        )
    assert answers[:2] == ["wrote 1", "wrote 2"]
    assert isinstance(answers[2], Transient)
    assert isinstance(answers[3], asyncpg.CheckViolationError)


async def test_closing_flushes_what_waits(notes: Notes) -> None:
    async with committing(notes, max_batch=2).running() as commits:
        notes.gate.clear()
        futures = [commits.put(number) for number in range(5)]
        await notes.reached.wait()
        notes.gate.set()
    assert [future.result() for future in futures] == [f"wrote {number}" for number in range(5)]
    assert await notes.written() == list(range(5))


async def test_leaving_over_an_error_flushes_what_waits_as_well(notes: Notes) -> None:
    futures: list[asyncio.Future[str]] = []

    async def leave() -> None:
        async with committing(notes).running() as commits:
            futures.extend(commits.put(number) for number in range(5))
            raise LookupError("something else")

    with pytest.raises(ExceptionGroup) as error:
        await leave()
    assert error.group_contains(LookupError)
    assert [future.result() for future in futures] == [f"wrote {number}" for number in range(5)]


async def test_nothing_is_taken_once_it_is_closing(notes: Notes) -> None:
    async with committing(notes).running() as commits:
        pass
    with pytest.raises(Transient):
        await commits.submit(1)


async def test_whoever_still_waits_when_flushing_is_cut_off_is_told(notes: Notes) -> None:
    commits = committing(notes, max_batch=1)
    notes.gate.clear()

    async def run() -> None:
        async with commits.running():
            await asyncio.Event().wait()

    running = asyncio.create_task(run())
    under_way = commits.put(1)
    waiting = commits.put(2)
    await notes.reached.wait()
    running.cancel()  # Leaves, and would flush first.
    await asyncio.sleep(0)
    running.cancel()  # Nobody waits that long.
    await asyncio.wait([running])
    assert running.cancelled()
    assert under_way.cancelled()
    assert isinstance(waiting.exception(), Transient)


async def test_a_caller_who_is_cancelled_does_not_hurt_the_others(notes: Notes) -> None:
    async with committing(notes).running() as commits:
        notes.gate.clear()
        first = asyncio.create_task(commits.submit(0))
        await notes.reached.wait()
        tasks = [asyncio.create_task(commits.submit(number)) for number in range(1, 4)]
        await asyncio.sleep(0)
        first.cancel()
        tasks[1].cancel()
        await asyncio.wait([first, tasks[1]])
        notes.gate.set()
        assert await tasks[0] == "wrote 1"
        assert await tasks[2] == "wrote 3"
    assert first.cancelled()
    assert tasks[1].cancelled()


async def test_too_many_who_wait_are_turned_away(notes: Notes) -> None:
    async with committing(notes, max_waiting=2).running() as commits:
        notes.gate.clear()
        under_way = commits.put(0)
        await notes.reached.wait()
        waiting = [commits.put(1), commits.put(2)]
        with pytest.raises(Transient):
            await commits.submit(3)
        notes.gate.set()
        assert await asyncio.gather(under_way, *waiting) == ["wrote 0", "wrote 1", "wrote 2"]
    assert await notes.written() == [0, 1, 2]


async def test_lingering_waits_for_company(notes: Notes) -> None:
    async with committing(notes, linger=timedelta(milliseconds=20)).running() as commits:
        first = commits.put(1)
        await asyncio.sleep(0)
        second = commits.put(2)
        await asyncio.gather(first, second)
    assert notes.flushed == [[1, 2]]


async def test_workers_who_linger_together_flush_no_empty_batch(notes: Notes) -> None:
    linger = timedelta(milliseconds=5)
    async with committing(notes, linger=linger).running(workers=3) as commits:
        await asyncio.gather(commits.put(1), commits.put(2))
    assert [batch for batch in notes.flushed if not batch] == []


async def test_several_workers_commit_side_by_side(notes: Notes) -> None:
    both = asyncio.Barrier(2)

    async def flush(numbers: Sequence[int]) -> list[str]:
        await both.wait()
        return await notes.flush(numbers)

    async with (
        asyncio.timeout(10),
        GroupCommit(flush, name="notes", max_batch=1).running(workers=2) as commits,
    ):
        await asyncio.gather(commits.put(1), commits.put(2))
    assert await notes.written() == [1, 2]


async def test_a_flush_with_too_few_results_fails_its_callers_and_not_the_others() -> None:
    async def flush(items: Sequence[int]) -> list[int]:
        return [item for item in items if item >= 0]

    async with GroupCommit(flush, name="notes").running() as commits:
        wrong = await asyncio.gather(commits.put(1), commits.put(-1), return_exceptions=True)
        assert [str(error) for error in wrong] == ["1 results for 2 items of notes"] * 2
        assert await commits.submit(2) == 2
