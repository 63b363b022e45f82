"""Receipts find their message, also by an id that an engine chose and has not told yet."""

from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID

import pytest

from services.sessions.domain.lease import Lease
from services.sessions.store import handovers
from shared.contracts.commands import TransmissionOutcome
from shared.db.database import Database
from shared.ids import new_id
from tests.support import sessions
from tests.support.builders import NOON, a_settled, an_organization
from tests.support.eventually import eventually
from tests.support.sessions import Sessions, a_paired_instance, a_transmission

ACKNOWLEDGED_AFTER_5_S = "12025550104@s.whatsapp.net"
LEASE = Lease(7, 1, "me")


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[Sessions]:
    async with sessions.running(database_url, reconcile_every=0.1) as running:
        yield running


async def test_receipts_wait_for_the_handover_that_tells_which_message_they_are_about(
    world: Sessions,
) -> None:
    instance = await a_paired_instance(world.sql, await an_organization(world.sql))
    await world.ready(instance)
    transmission = a_transmission(instance, to=ACKNOWLEDGED_AFTER_5_S)
    await world.transmit(transmission)

    async def handed_over_under_another_id() -> bool:
        # As with an engine that names its own id only when WhatsApp has taken the message.
        done: str = await world.sql.execute(
            "UPDATE sessions.handovers SET engine_message_id = 'ALLOCATED' WHERE outcome IS NULL"
        )
        return done == "UPDATE 1"

    await eventually(handed_over_under_another_id)
    settled = await world.heard.outcome(transmission)
    assert settled.outcome is TransmissionOutcome.ACCEPTED
    assert await world.heard.receipts_of(transmission.message_id, count=2) == ["delivered", "read"]
    known = await world.sql.fetchval("SELECT engine_message_id FROM sessions.handovers")
    assert known == transmission.engine_message_id


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with Database.open(database_url, role="waypost_sessions") as opened:
        yield opened


async def handed_over(database: Database, instance: UUID, engine_id: str) -> UUID:
    """A handover that began at noon under a lease that is held; its transmission."""
    transmission = a_transmission(instance, engine_message_id=engine_id)
    async with database.hot_tx() as connection:
        await connection.execute(
            "UPDATE sessions.shards SET owner = 'me', epoch = 1,"
            " lease_until = clock_timestamp() + interval '1 hour' WHERE id = 7"
        )
        marked = await handovers.mark(connection, [(LEASE, transmission)], now=NOON)
    assert marked == {transmission.transmission_id}
    return transmission.transmission_id


async def settle(database: Database, transmission: UUID, engine_id: str | None) -> None:
    """The end of a handover."""
    settled = a_settled(
        TransmissionOutcome.ACCEPTED, transmission_id=transmission, engine_message_id=engine_id
    )
    async with database.hot_tx() as connection:
        assert await handovers.settle(connection, [(LEASE, settled)], now=NOON) == {transmission}


async def test_a_settled_handover_is_found_by_the_id_that_the_engine_used(
    database: Database,
) -> None:
    instance = new_id()
    first = await handed_over(database, instance, "3EB01")
    second = await handed_over(database, instance, "3EB02")
    await settle(database, first, "3AOWN")
    await settle(database, second, None)
    async with database.hot() as connection:
        keys = {(instance, id_) for id_ in ("3EB01", "3EB02", "3AOWN")}
        found = await handovers.messages_of(connection, keys)
    assert set(found) == {(instance, "3AOWN"), (instance, "3EB02")}


async def test_only_a_handover_that_began_before_can_decide_what_a_receipt_is_about(
    database: Database,
) -> None:
    instance, other = new_id(), new_id()
    transmission = await handed_over(database, instance, "3EB01")
    before, after = NOON - timedelta(seconds=1), NOON + timedelta(seconds=1)
    seen = {(instance, "A"): before, (instance, "B"): after, (other, "C"): after}
    async with database.hot() as connection:
        assert await handovers.undecided(connection, seen) == {(instance, "B")}
    await settle(database, transmission, "B")
    async with database.hot() as connection:
        assert await handovers.undecided(connection, seen) == set()
