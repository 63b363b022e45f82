"""What every engine promises to the session service, whatever it speaks to."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from tempfile import TemporaryDirectory
from typing import Protocol
from uuid import UUID

import pytest

from services.sessions.domain.lease import Lease
from services.sessions.engines.port import (
    Connected,
    Engine,
    MessageReceived,
    NotOnWhatsApp,
    Opening,
    Outgoing,
    Paired,
    Qr,
    Refused,
    Retryable,
    SessionDown,
    StatusChanged,
)
from services.sessions.engines.port import Sink as EngineSink
from services.sessions.engines.sandbox.engine import SandboxEngine
from services.sessions.store.fence import Fence
from shared.clock import SystemClock
from shared.contracts.capabilities import Capability
from shared.contracts.commands import WriteFromSandboxContact
from shared.contracts.content import Text
from shared.db.database import Database
from shared.db.tables.grants import role
from shared.errors import Fenced, Throttled, Transient
from shared.ids import new_id
from shared.media.settings import MediaSettings
from shared.media.store import MediaStore
from tests.contract.cloud_api_trial import cloud_api
from tests.support.leases import take_shard
from tests.support.sessions import engine_id
from tests.support.sink import Sink


class Trial(Protocol):
    """An engine on trial, with power over the WhatsApp that it speaks to."""

    engine: Engine
    ordinary: str
    """An address that gets what it is sent, and reads it."""
    refusing: Mapping[str, type[Exception]]
    """Addresses that do not take a first message, and what that raises."""

    def settings(self, instance_id: UUID) -> Mapping[str, object]:
        """What an instance is opened with."""
        ...

    async def owned(self) -> Lease:
        """A lease that is valid, on a shard that had none."""
        ...

    async def taken_over(self, lease: Lease) -> Lease:
        """Another process has taken the shard over."""
        ...

    def watched(self, sink: EngineSink) -> EngineSink:
        """The sink to give to the engine, so that new devices are linked as they ask for it."""
        ...

    async def write(self, instance_id: UUID, text: str) -> None:
        """Have somebody write to an instance."""
        ...

    async def silenced(self, instance_id: UUID) -> str:
        """An address where what an instance sends is never acknowledged."""
        ...


class SandboxTrial:
    """The sandbox, which is its own WhatsApp."""

    ordinary = "12025550142@s.whatsapp.net"

    def __init__(self, database: Database, store: MediaStore) -> None:
        self.refusing: Mapping[str, type[Exception]] = {
            "12025550101@s.whatsapp.net": NotOnWhatsApp,
            "12025550102@s.whatsapp.net": Refused,
            "12025550103@s.whatsapp.net": Retryable,
            "12025550112@s.whatsapp.net": Throttled,
        }
        self._database = database
        self.sandbox = SandboxEngine(
            database=database, fence=Fence(database), store=store, clock=SystemClock()
        )
        self.engine: Engine = self.sandbox

    def settings(self, instance_id: UUID) -> Mapping[str, object]:
        return {}

    def watched(self, sink: EngineSink) -> EngineSink:
        return sink

    async def owned(self) -> Lease:
        return await take_shard(self._database)

    async def taken_over(self, lease: Lease) -> Lease:
        return await take_shard(self._database, owner="them", shard=lease.shard)

    async def silenced(self, instance_id: UUID) -> str:
        return "12025550105@s.whatsapp.net"

    async def write(self, instance_id: UUID, text: str) -> None:
        await self.sandbox.write(
            WriteFromSandboxContact(
                instance_id=instance_id,
                from_="+12025550142",
                engine_message_id=engine_id(new_id()),
                content=Text(text=text),
            ),
            cause=str(new_id()),
        )


@asynccontextmanager
async def sandbox(database_url: str) -> AsyncIterator[Trial]:
    with TemporaryDirectory(prefix="waypost-tests-") as folder:
        store = MediaStore.of(
            MediaSettings.model_validate(
                {
                    "database_url": database_url,
                    "amqp_url": "amqp://memory.invalid",
                    "media_store": folder,
                }
            )
        )
        async with Database.open(database_url, role=role("sessions")) as database:
            yield SandboxTrial(database, store)


ENGINES: dict[str, Callable[[str], AbstractAsyncContextManager[Trial]]] = {
    "sandbox": sandbox,
    "cloud_api": cloud_api,
}


def codes(trial: Trial) -> int:
    """How many codes a new instance shows."""
    return 1 if Capability.QR in trial.engine.capabilities else 0


@pytest.fixture(params=ENGINES)
async def trial(request: pytest.FixtureRequest, database_url: str) -> AsyncIterator[Trial]:
    async with ENGINES[request.param](database_url) as made:
        yield made


@pytest.fixture
async def sink(trial: Trial) -> AsyncIterator[Sink]:
    sink = Sink()
    async with trial.engine.events(trial.watched(sink)):
        yield sink


async def opened(trial: Trial, sink: Sink, lease: Lease | None = None) -> Opening:
    """A session that is connected."""
    instance_id = new_id()
    opening = Opening(
        instance_id=instance_id,
        tenant_id=new_id(),
        lease=lease or await trial.owned(),
        phone_number=None,
        settings=trial.settings(instance_id),
    )
    await trial.engine.open(opening)
    await sink.first(Connected, opening.instance_id)
    return opening


def words(to: str, text: str = "Hello") -> Outgoing:
    return Outgoing(engine_message_id=engine_id(new_id()), to=to, content=Text(text=text))


async def test_a_new_device_shows_a_code_then_pairs_then_connects(trial: Trial, sink: Sink) -> None:
    opening = await opened(trial, sink)
    kinds = [type(event) for event in sink.got if event.instance_id == opening.instance_id]
    # What has no device has nothing to pair.
    assert kinds == ([Qr, Paired, Connected] if codes(trial) else [Connected])


async def test_a_known_device_connects_without_a_code(trial: Trial, sink: Sink) -> None:
    opening = await opened(trial, sink)
    await trial.engine.close(opening.instance_id)
    await trial.engine.open(opening)
    await sink.until(lambda: len(sink.of(Connected, opening.instance_id)) == 2)
    assert len(sink.of(Qr, opening.instance_id)) == codes(trial)


async def test_a_device_that_was_forgotten_must_pair_again(trial: Trial, sink: Sink) -> None:
    opening = await opened(trial, sink)
    await trial.engine.forget(opening)
    await trial.engine.open(opening)
    await sink.until(lambda: len(sink.of(Connected, opening.instance_id)) == 2)
    assert len(sink.of(Qr, opening.instance_id)) == 2 * codes(trial)


async def test_who_has_lost_the_lease_forgets_nothing(trial: Trial, sink: Sink) -> None:
    opening = await opened(trial, sink)
    lease = await trial.taken_over(opening.lease)
    with pytest.raises(Fenced):
        await trial.engine.forget(opening)
    with pytest.raises(SessionDown):
        await trial.engine.transmit(opening.instance_id, words(trial.ordinary))
    await trial.engine.open(replace(opening, lease=lease))
    await sink.until(lambda: len(sink.of(Connected, opening.instance_id)) == 2)
    assert len(sink.of(Qr, opening.instance_id)) == codes(trial)


async def test_opening_what_is_open_does_nothing(trial: Trial, sink: Sink) -> None:
    opening = await opened(trial, sink)
    await trial.engine.open(opening)
    await trial.engine.transmit(opening.instance_id, words(trial.ordinary))
    assert len(sink.of(Connected, opening.instance_id)) == 1


async def test_a_message_is_accepted_and_its_receipts_follow(trial: Trial, sink: Sink) -> None:
    opening = await opened(trial, sink)
    message = words(trial.ordinary)
    done = await trial.engine.transmit(opening.instance_id, message)
    if Capability.CLIENT_MESSAGE_ID in trial.engine.capabilities:
        assert done.engine_message_id == message.engine_message_id
    await sink.until(lambda: len(sink.of(StatusChanged, opening.instance_id)) == 2)
    receipts = sink.of(StatusChanged, opening.instance_id)
    assert [receipt.status for receipt in receipts] == ["delivered", "read"]
    assert {receipt.engine_message_id for receipt in receipts} == {done.engine_message_id}


async def test_the_same_message_again_is_accepted_and_not_said_twice(
    trial: Trial, sink: Sink
) -> None:
    opening = await opened(trial, sink)
    if Capability.CLIENT_MESSAGE_ID not in trial.engine.capabilities:
        # Then whoever hands it over twice gets two, and can tell by their ids.
        message = words(trial.ordinary)
        done = [await trial.engine.transmit(opening.instance_id, message) for _ in range(2)]
        assert len({one.engine_message_id for one in done}) == 2
        return
    message, other = words(trial.ordinary), words(trial.ordinary)
    await trial.engine.transmit(opening.instance_id, message)
    await trial.engine.transmit(opening.instance_id, message)
    await trial.engine.transmit(opening.instance_id, other)
    await sink.until(
        lambda: (
            [
                receipt.status
                for receipt in sink.of(StatusChanged, opening.instance_id)
                if receipt.engine_message_id == other.engine_message_id
            ]
            == ["delivered", "read"]
        )
    )
    assert len(sink.of(StatusChanged, opening.instance_id)) == 4


async def test_what_is_not_taken_says_whether_to_try_again(trial: Trial, sink: Sink) -> None:
    opening = await opened(trial, sink)
    for address, error in trial.refusing.items():
        with pytest.raises(error):
            await trial.engine.transmit(opening.instance_id, words(address))


async def test_without_a_connection_nothing_is_handed_over(trial: Trial, sink: Sink) -> None:
    opening = await opened(trial, sink)
    await trial.engine.close(opening.instance_id)
    with pytest.raises(SessionDown):
        await trial.engine.transmit(opening.instance_id, words(trial.ordinary))


async def test_a_message_that_is_not_acknowledged_keeps_its_caller_waiting(
    trial: Trial, sink: Sink
) -> None:
    opening = await opened(trial, sink)
    silent = await trial.silenced(opening.instance_id)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await trial.engine.transmit(opening.instance_id, words(silent))


async def test_a_lost_lease_keeps_messages_from_the_wire(trial: Trial, sink: Sink) -> None:
    opening = await opened(trial, sink)
    await trial.taken_over(opening.lease)
    with pytest.raises(Fenced):
        await trial.engine.transmit(opening.instance_id, words(trial.ordinary))


async def test_a_session_can_be_opened_again_under_a_new_lease(trial: Trial, sink: Sink) -> None:
    opening = await opened(trial, sink)
    lease = await trial.taken_over(opening.lease)
    await trial.engine.open(replace(opening, lease=lease))
    await sink.until(lambda: len(sink.of(Connected, opening.instance_id)) == 2)
    await trial.engine.transmit(opening.instance_id, words(trial.ordinary))


async def test_what_is_written_comes_in_order(trial: Trial, sink: Sink) -> None:
    opening = await opened(trial, sink)
    for text in ("one", "two", "three"):
        await trial.write(opening.instance_id, text)
    await sink.until(lambda: len(sink.of(MessageReceived, opening.instance_id)) == 3)
    got = sink.of(MessageReceived, opening.instance_id)
    assert [event.content for event in got] == [Text(text=t) for t in ("one", "two", "three")]
    assert len({event.stanza_key for event in got}) == 3


async def test_what_was_not_committed_is_offered_again(trial: Trial, sink: Sink) -> None:
    opening = await opened(trial, sink)
    sink.closed = True
    await trial.write(opening.instance_id, "Hello?")
    await sink.until(lambda: sink.refused > 0)
    sink.closed = False
    await sink.first(MessageReceived, opening.instance_id)
    assert len(sink.of(MessageReceived, opening.instance_id)) == 1


async def test_what_comes_while_nobody_is_connected_waits(trial: Trial, sink: Sink) -> None:
    opening = await opened(trial, sink)
    await trial.engine.close(opening.instance_id)
    await trial.write(opening.instance_id, "Later")
    await trial.engine.open(opening)
    await sink.first(MessageReceived, opening.instance_id)


async def test_after_closing_nothing_is_offered(trial: Trial, sink: Sink) -> None:
    closed, other = await opened(trial, sink), await opened(trial, sink)
    await trial.engine.close(closed.instance_id)
    before = len(sink.got)
    await trial.write(closed.instance_id, "Too late")
    await trial.write(other.instance_id, "In time")
    await sink.first(MessageReceived, other.instance_id)
    assert {event.instance_id for event in sink.got[before:]} == {other.instance_id}


async def test_an_engine_that_is_not_at_work_opens_nothing(trial: Trial) -> None:
    instance_id = new_id()
    opening = Opening(
        instance_id=instance_id,
        tenant_id=new_id(),
        lease=await trial.owned(),
        phone_number=None,
        settings=trial.settings(instance_id),
    )
    with pytest.raises(Transient):
        await trial.engine.open(opening)
