"""What becomes of messages when workers die, leases go, or nothing can be committed."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.sessions.engines.port import (
    Connected,
    Disconnected,
    MessageReceived,
    Qr,
    SessionDown,
    StatusChanged,
)
from services.sessions.engines.whatsmeow.devices import Devices
from services.sessions.engines.whatsmeow.engine import WhatsmeowEngine
from services.sessions.engines.whatsmeow.wire import Link
from services.sessions.engines.whatsmeow.workers import MODULE
from services.sessions.store.fence import Fence
from shared.contracts.content import Text
from shared.errors import Fenced, Unconfirmed
from tests.support.leases import take_shard
from tests.support.linked_devices import CONTACT, Town, words
from tests.support.whatsapp import ROOT


@pytest.fixture
async def town(database_url: str, tmp_path: Path) -> AsyncIterator[Town]:
    async with Town.running(database_url, tmp_path) as made:
        yield made


def kill(engine: WhatsmeowEngine) -> None:
    """End all workers of an engine this instant."""
    for pid in engine.processes:
        os.kill(pid, signal.SIGKILL)


def texts(town: Town) -> list[str]:
    return [
        event.content.text
        for event in town.sink.got
        if isinstance(event, MessageReceived) and isinstance(event.content, Text)
    ]


async def test_nothing_is_confirmed_to_whatsapp_before_it_is_committed(town: Town) -> None:
    async with town.engine() as engine:
        opening = await town.opened(engine)
        town.sink.closed = True
        id_ = await town.write(opening, "Hello?")
        await town.sink.until(lambda: town.sink.refused > 0)
        phone = town.number(opening)
        assert await town.whatsapp.happenings("reached", phone=phone, id=id_) == []
        town.sink.closed = False
        await town.whatsapp.happening("reached", phone=phone, id=id_)
        assert texts(town) == ["Hello?"]


async def test_what_a_worker_took_down_with_it_comes_again_once(town: Town) -> None:
    async with town.engine() as engine:
        opening = await town.opened(engine)
        await town.write(opening, "before")
        await town.sink.first(MessageReceived, opening.instance_id)
        town.sink.closed = True
        for number in range(5):
            await town.write(opening, f"lost {number}")
        await town.sink.until(lambda: town.sink.refused >= 5)
        kill(engine)
        town.sink.closed = False
        await town.sink.nth(MessageReceived, opening.instance_id, 6)
        await town.write(opening, "after")
        await town.sink.nth(MessageReceived, opening.instance_id, 7)
        assert texts(town) == ["before", *(f"lost {number}" for number in range(5)), "after"]


async def test_what_was_committed_and_not_confirmed_is_not_asked_for_again(town: Town) -> None:
    """The process died between the two; WhatsApp delivers it once more."""
    async with town.engine() as engine:
        opening = await town.opened(engine)
        town.sink.away = True
        await town.write(opening, "recorded")
        await town.sink.until(lambda: town.sink.refused > 0)
        async with town.database.hot() as connection:
            chat = f"{CONTACT}@s.whatsapp.net"
            id_ = (await town.whatsapp.happenings("message", phone=CONTACT))[-1]["id"]
            await connection.execute(
                "INSERT INTO sessions.inbound (instance_id, stanza_key, seen_at)"
                " VALUES ($1, $2, clock_timestamp())",
                opening.instance_id,
                f"message|{chat}|{chat}|{id_}",
            )
    town.sink.away = False
    async with town.engine() as engine:
        await engine.open(opening)
        await town.whatsapp.happening("reached", phone=town.number(opening), id=id_)
        assert texts(town) == []


async def test_whoever_has_lost_the_lease_ends_no_session_with_a_contact(town: Town) -> None:
    """It may be told of an unreadable message after another process has taken the device over."""
    devices = Devices(database=town.database, fence=Fence(town.database))

    async def kept() -> int:
        async with town.database.hot() as connection:
            return int(
                await connection.fetchval("SELECT count(*) FROM whatsmeow.whatsmeow_sessions")
            )

    async with town.engine() as engine:
        opening = await town.opened(engine)
        await town.write(opening, "Hello")
        await town.sink.first(MessageReceived, opening.instance_id)
        address = await devices.of(opening.instance_id)
        async with town.database.hot() as connection:
            ids = await connection.fetch("SELECT their_id FROM whatsmeow.whatsmeow_sessions")
        assert address is not None
        assert [row["their_id"] for row in ids] != []
        user, _, number = str(ids[0]["their_id"]).partition(":")
        sender = f"{user.partition('_')[0]}:{number}@s.whatsapp.net"
        theirs = await take_shard(town.database, owner="them", shard=opening.lease.shard)
        before = await kept()
        with pytest.raises(Fenced):
            await devices.end_sessions_with(
                address, sender=sender, chat=sender, lease=opening.lease
            )
        assert await kept() == before
        await devices.end_sessions_with(address, sender=sender, chat=sender, lease=theirs)
        assert await kept() < before


async def test_another_process_goes_on_without_a_code_and_gets_what_was_not_committed(
    town: Town,
) -> None:
    async with town.engine() as engine:
        opening = await town.opened(engine)
        town.sink.closed = True
        await town.write(opening, "in between")
        await town.sink.until(lambda: town.sink.refused > 0)
    town.sink.closed = False
    async with town.engine() as engine:
        await engine.open(opening)
        await town.sink.nth(Connected, opening.instance_id, 2)
        await town.sink.first(MessageReceived, opening.instance_id)
        assert texts(town) == ["in between"]
        assert len(town.sink.of(Qr, opening.instance_id)) == 1


async def test_a_worker_that_dies_takes_no_other_with_it(town: Town) -> None:
    async with town.engine(sessions=1) as engine:
        first, second = await town.opened(engine), await town.opened(engine)
        await town.contact()
        assert len(engine.processes) == 2
        os.kill(engine.processes[0], signal.SIGKILL)
        gone = await town.sink.first(Disconnected, first.instance_id)
        assert (gone.reason, gone.will_retry) == ("worker_died", True)
        await engine.transmit(second.instance_id, words(CONTACT))
        await town.sink.nth(Connected, first.instance_id, 2)
        assert len(town.sink.of(Connected, second.instance_id)) == 1


async def test_what_was_on_the_wire_when_the_worker_died_is_unconfirmed(town: Town) -> None:
    async with town.engine() as engine:
        opening = await town.opened(engine)
        await town.contact()
        await town.whatsapp.fault("no_ack", phone=town.number(opening))
        sending = asyncio.create_task(engine.transmit(opening.instance_id, words(CONTACT)))
        await town.whatsapp.happening("message", phone=town.number(opening))
        kill(engine)
        with pytest.raises(Unconfirmed):
            await sending
        with pytest.raises(SessionDown):
            await engine.transmit(opening.instance_id, words(CONTACT))


async def test_a_receipt_finds_its_message_by_the_id_that_was_noted_before_the_wire(
    town: Town,
) -> None:
    async with town.engine() as engine:
        opening = await town.opened(engine)
        await town.contact()
        message = words(CONTACT)
        async with town.database.hot() as connection:
            await connection.execute(
                "INSERT INTO sessions.handovers (transmission_id, message_id, tenant_id,"
                " instance_id, shard, epoch, engine_message_id, handed_over_at)"
                " VALUES (gen_random_uuid(), gen_random_uuid(), $1, $2, $3, $4, $5, now())",
                opening.tenant_id,
                opening.instance_id,
                opening.lease.shard,
                opening.lease.epoch,
                message.engine_message_id,
            )
        await town.whatsapp.fault("no_ack", phone=town.number(opening))
        sending = asyncio.create_task(engine.transmit(opening.instance_id, message))
        receipt = await town.sink.first(StatusChanged, opening.instance_id)
        async with town.database.hot() as connection:
            noted = await connection.fetchval("SELECT engine_message_id FROM sessions.handovers")
        assert noted == receipt.engine_message_id != message.engine_message_id
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


async def test_a_message_of_a_lost_lease_never_reaches_the_wire(town: Town) -> None:
    async with town.engine() as engine:
        opening = await town.opened(engine)
        await town.contact()
        await take_shard(town.database, owner="them", shard=opening.lease.shard)
        with pytest.raises(Fenced):
            await engine.transmit(opening.instance_id, words(CONTACT))
        assert await town.whatsapp.messages(town.number(opening)) == []


async def test_a_message_that_is_not_acknowledged_does_not_hold_up_the_others_for_ever(
    town: Town,
) -> None:
    async with town.engine() as engine:
        opening = await town.opened(engine)
        await town.contact()
        await town.whatsapp.fault("no_ack", phone=town.number(opening), count=1)
        sending = asyncio.create_task(engine.transmit(opening.instance_id, words(CONTACT, "one")))
        await town.whatsapp.happening("message", phone=town.number(opening))
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        lost = await town.sink.first(Disconnected, opening.instance_id)
        assert lost.reason == "unacknowledged"
        await town.sink.nth(Connected, opening.instance_id, 2)
        await engine.transmit(opening.instance_id, words(CONTACT, "two"))
        said = await town.whatsapp.messages(town.number(opening))
        assert [message["sends"] for message in said] == [1, 1]


async def worker(silence: float) -> tuple[asyncio.subprocess.Process, Link]:
    """A worker without a supervisor."""
    ours, theirs = socket.socketpair()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", MODULE, str(theirs.fileno()), pass_fds=(theirs.fileno(),), cwd=ROOT
    )
    theirs.close()
    link = await Link.over(ours)
    link.say("hello", store="postgres://nowhere.invalid/", silence=silence, threads=2)
    return process, link


async def test_a_worker_ends_when_its_supervisor_is_silent() -> None:
    process, link = await worker(silence=0.5)
    async with asyncio.timeout(30):
        assert await process.wait() == 3
    link.close()


async def test_a_worker_ends_with_its_supervisor() -> None:
    process, link = await worker(silence=60)
    assert (await link.next())["do"] == "ready"
    link.close()
    async with asyncio.timeout(30):
        assert await process.wait() == 0
