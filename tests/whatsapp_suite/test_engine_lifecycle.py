"""What a linked device goes through: codes, refusals, bans, breaks, silence, other owners."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest

from services.sessions.engines.port import (
    Banned,
    Connected,
    Deaf,
    Disconnected,
    Failed,
    Hindered,
    LoggedOut,
    MessageReceived,
    Paired,
    Qr,
    Replaced,
    SessionDown,
)
from shared.contracts.questions import PairByCode, PairingCode
from shared.errors import Conflict
from tests.support.linked_devices import CONTACT, Town, a_number, environment, words
from tests.support.sink import PATIENCE


@pytest.fixture
async def town(database_url: str, tmp_path: Path) -> AsyncIterator[Town]:
    async with Town.running(database_url, tmp_path) as made:
        yield made


def shown_of(pid: int) -> bytes:
    """What others on the machine may see of a process."""
    return b"".join(Path(f"/proc/{pid}/{name}").read_bytes() for name in ("cmdline", "environ"))


async def test_a_phone_links_the_device_by_a_code(town: Town) -> None:
    number = a_number()
    await town.whatsapp.add_phone(number)
    town.scanning.scan = False
    async with town.engine() as engine:
        opening = await town.opening(device_name="Front desk")
        await engine.open(opening)
        shown = await town.sink.first(Qr, opening.instance_id)
        assert shown.expires_at - shown.at == timedelta(seconds=60)
        given = await engine.ask(opening.instance_id, PairByCode(phone_number=f"+{number}"))
        assert isinstance(given, PairingCode)
        await town.whatsapp.enter(number, given.code)
        await town.sink.first(Connected, opening.instance_id)
        paired = await town.sink.first(Paired, opening.instance_id)
        assert paired.phone_number == f"+{number}"
        assert paired.device_info["name"] == "Front desk"
        with pytest.raises(Conflict):
            await engine.ask(opening.instance_id, PairByCode(phone_number=f"+{number}"))
    (device,) = (await town.whatsapp.phone(number))["devices"]
    assert device["name"] == "Front desk"


async def test_without_a_session_nobody_can_be_asked_for_a_code(town: Town) -> None:
    async with town.engine() as engine:
        opening = await town.opening()
        with pytest.raises(SessionDown):
            await engine.ask(opening.instance_id, PairByCode(phone_number="+4915100000001"))


async def test_a_device_is_stored_before_it_is_told_of(town: Town) -> None:
    async with town.engine() as engine:
        opening = await town.opened(engine)
        async with town.database.hot() as connection:
            row = await connection.fetchrow("SELECT * FROM sessions.devices")
        assert row is not None
        assert row["address"] == f"{town.number(opening)}:1@s.whatsapp.net"
        assert (row["shard"], row["epoch"]) == (opening.lease.shard, opening.lease.epoch)


@pytest.mark.parametrize(
    ("fault", "ending", "reason"),
    [
        ("401", LoggedOut, "logged_out"),
        ("403", Banned, "banned"),
        ("405", Failed, "client_outdated"),
        ("402", Banned, "banned"),
    ],
)
async def test_a_refused_login_ends_the_session_with_its_reason(
    town: Town,
    fault: str,
    ending: type[LoggedOut] | type[Banned] | type[Failed],
    reason: str,
) -> None:
    async with town.engine() as engine:
        opening = await town.opened(engine)
        await engine.close(opening.instance_id)
        await town.whatsapp.fault(fault, phone=town.number(opening), expire=3600)
        await engine.open(opening)
        event = await town.sink.first(ending, opening.instance_id)
        assert event.reason == reason
        if isinstance(event, Banned) and fault == "402":
            assert event.until is not None
            assert event.until - event.at == timedelta(hours=1)
        with pytest.raises(SessionDown):
            await engine.transmit(opening.instance_id, words(CONTACT))
        async with town.database.hot() as connection:
            kept = await connection.fetchval("SELECT count(*) FROM sessions.devices")
        assert kept == (1 if fault in {"402", "405"} else 0)


async def test_a_phone_that_unlinks_the_device_ends_the_session(town: Town) -> None:
    async with town.engine() as engine:
        opening = await town.opened(engine)
        await town.whatsapp.unlink(town.number(opening), 1)
        event = await town.sink.first(LoggedOut, opening.instance_id)
        assert event.reason == "device_removed"
        await engine.open(opening)
        await town.sink.nth(Connected, opening.instance_id, 2)
        assert len(town.sink.of(Qr, opening.instance_id)) == 2


async def test_a_device_that_was_logged_out_unseen_must_be_linked_again(town: Town) -> None:
    """Its keys are gone, and the process that erased them did not live to say so."""
    async with town.engine() as engine:
        opening = await town.opened(engine)
        await engine.close(opening.instance_id)
        async with town.database.hot() as connection:
            await connection.execute("DELETE FROM whatsmeow.whatsmeow_device")
        await engine.open(opening)
        event = await town.sink.first(LoggedOut, opening.instance_id)
        assert event.reason == "logged_out"


async def test_a_connection_that_breaks_comes_back(town: Town) -> None:
    async with town.engine() as engine:
        opening = await town.opened(engine)
        for count, fault in enumerate(("503", "drop"), start=2):
            await town.whatsapp.fault(fault, phone=town.number(opening))
            lost = await town.sink.nth(Disconnected, opening.instance_id, count - 1)
            assert (lost.reason, lost.will_retry) == ("connection_lost", True)
            await town.sink.nth(Connected, opening.instance_id, count)
        await town.contact()
        await engine.transmit(opening.instance_id, words(CONTACT))


async def test_whoever_connects_again_waits_for_a_turn(town: Town) -> None:
    asked, granted = asyncio.Event(), asyncio.Event()

    async def turn() -> None:
        asked.set()
        await granted.wait()

    async with town.engine(login=turn) as engine:
        opening = await town.opened(engine)
        await town.whatsapp.fault("drop", phone=town.number(opening))
        async with asyncio.timeout(PATIENCE):
            await asked.wait()
        logins = len(await town.whatsapp.connections())
        granted.set()
        await town.sink.nth(Connected, opening.instance_id, 2)
        assert len(await town.whatsapp.connections()) == logins + 1


async def test_the_stores_address_is_not_to_be_seen(town: Town) -> None:
    async with town.engine() as engine:
        await town.opened(engine)
        (pid,) = engine.processes
        assert b"postgres" not in shown_of(pid)


async def test_the_same_device_elsewhere_replaces_this_one(town: Town) -> None:
    async with town.engine() as engine:
        opening = await town.opened(engine)
        async with town.engine() as other:
            await other.open(opening)
            await town.sink.first(Replaced, opening.instance_id)
            await town.sink.nth(Connected, opening.instance_id, 2)
            with pytest.raises(SessionDown):
                await engine.transmit(opening.instance_id, words(CONTACT))


async def test_a_connection_that_hears_nothing_is_made_anew(town: Town) -> None:
    async with town.engine(deaf_after=timedelta(seconds=4)) as engine:
        opening = await town.opened(engine)
        await town.whatsapp.fault("blackhole", phone=town.number(opening))
        deaf = await town.sink.first(Deaf, opening.instance_id)
        assert deaf.last_heard_at is not None
        assert deaf.last_heard_at < deaf.at
        lost = await town.sink.first(Disconnected, opening.instance_id)
        assert (lost.reason, lost.will_retry) == ("deaf", True)
        await town.sink.nth(Connected, opening.instance_id, 2)


async def test_a_start_without_a_network_is_tried_again_until_it_works(town: Town) -> None:
    async with town.engine() as engine:
        opening = await town.opened(engine)
    nowhere = {**environment(town.whatsapp), "HTTPS_PROXY": "http://127.0.0.1:9"}
    async with town.engine(environment=nowhere) as engine:
        await engine.open(opening)
        hindered = await town.sink.nth(Hindered, opening.instance_id, 2)
        assert hindered.reason == "unreachable"
        await engine.close(opening.instance_id)
    await town.whatsapp.fault("refuse_connections")
    async with town.engine() as engine:
        await engine.open(opening)
        await town.sink.nth(Hindered, opening.instance_id, 3)
        await town.whatsapp.clear_faults()
        await town.sink.nth(Connected, opening.instance_id, 2)


async def test_forgetting_unlinks_the_device_at_whatsapp_too(town: Town) -> None:
    async with town.engine() as engine:
        for connected in (True, False):
            opening = await town.opened(engine)
            number = town.number(opening)
            if not connected:
                await engine.close(opening.instance_id)
            await engine.forget(opening)
            assert (await town.whatsapp.phone(number))["devices"] == []
        async with town.database.hot() as connection:
            for table in ("sessions.devices", "whatsmeow.whatsmeow_device"):
                assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 0


async def test_what_waited_while_nobody_was_connected_comes_in_order(town: Town) -> None:
    async with town.engine() as engine:
        opening = await town.opened(engine)
        await engine.close(opening.instance_id)
        for number in range(20):
            await town.write(opening, str(number))
        await engine.open(opening)
        await town.sink.nth(MessageReceived, opening.instance_id, 20)
        got = town.sink.of(MessageReceived, opening.instance_id)
        said = [getattr(event.content, "text", None) for event in got]
        assert said == [str(number) for number in range(20)]


async def test_a_session_does_not_miss_connections_to_the_database_that_were_ended(
    town: Town,
) -> None:
    """As PostgreSQL does with those that have been idle for a while."""
    async with town.engine() as engine:
        opening = await town.opened(engine)
        await town.contact()
        owner = await asyncpg.connect(town.url)
        ended = await owner.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'waypost-whatsmeow' AND datname = current_database()"
        )
        await owner.close()
        assert ended
        await engine.transmit(opening.instance_id, words(CONTACT))
