"""Who owns a linked device when processes die, freeze or lose what they depend on.

Twenty devices over two session processes; both sides talk all the while. Each message is said
once and heard once, and no device is connected twice for longer than WhatsApp takes to replace it.
"""

import asyncio
import signal
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support import fleet as fleets
from tests.support.fleet import Fleet
from tests.support.invariants import violations

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

OUTAGE = 20.0
BEFORE = AFTER = 3.0  # Seconds of talk on either side of what breaks.


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet(
    contacts_installed: None, tmp_path_factory: pytest.TempPathFactory, module_database_url: str
) -> AsyncIterator[Fleet]:
    folder = tmp_path_factory.mktemp("fleet")
    async with fleets.running(folder, module_database_url) as running:
        yield running
        assert await running.whatsapp.unknown() == []
        found = await violations(module_database_url)
        assert {name: broken for name, broken in found.items() if broken} == {}


async def for_a_while(seconds: float) -> None:
    """Let the talk go on: what these tests measure is time itself."""
    try:
        async with asyncio.timeout(seconds):
            await asyncio.Event().wait()
    except TimeoutError:
        return


async def test_a_rolling_restart_loses_and_doubles_nothing(fleet: Fleet) -> None:
    async with fleet.talking() as talk:
        await for_a_while(BEFORE)
        for process in fleet.sessions:
            assert await process.stop() == 0
            await process.start()
            await fleet.ready()
        await for_a_while(AFTER)
    await fleet.settled(talk)
    assert not talk.refused
    assert await fleet.wrongs(talk) == []


async def test_a_session_process_that_is_killed_loses_and_doubles_nothing(fleet: Fleet) -> None:
    async with fleet.talking() as talk:
        await for_a_while(BEFORE)
        await fleet.sessions[0].kill()
        await fleet.ready()
        await fleet.sessions[0].start()
        await for_a_while(AFTER)
    await fleet.settled(talk)
    assert await fleet.wrongs(talk) == []


async def test_a_session_process_that_freezes_loses_and_doubles_nothing(fleet: Fleet) -> None:
    async with fleet.talking() as talk:
        await for_a_while(BEFORE)
        fleet.sessions[1].send(signal.SIGSTOP)
        await for_a_while(OUTAGE)
        fleet.sessions[1].send(signal.SIGCONT)
        await fleet.ready()
        await for_a_while(AFTER)
    await fleet.settled(talk)
    assert await fleet.wrongs(talk) == []


async def test_without_the_database_for_a_while_nothing_is_lost_or_doubled(fleet: Fleet) -> None:
    async with fleet.talking() as talk:
        await for_a_while(BEFORE)
        await fleet.postgres.refuse()
        await for_a_while(OUTAGE)
        await fleet.postgres.heal()
        await fleet.ready()
        await for_a_while(AFTER)
    await fleet.settled(talk)
    assert await fleet.wrongs(talk) == []


async def test_without_the_broker_for_a_while_nothing_is_lost_or_doubled(fleet: Fleet) -> None:
    async with fleet.talking() as talk:
        await for_a_while(BEFORE)
        fleet.broker.kill()
        await for_a_while(OUTAGE)
        await fleet.broker.start()
        await fleet.ready()
        await for_a_while(AFTER)
    await fleet.settled(talk)
    assert not talk.refused
    assert await fleet.wrongs(talk) == []
