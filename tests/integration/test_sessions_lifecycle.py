"""What becomes of an instance's session: commands, lost commands, codes, restarts, other owners."""

from collections.abc import AsyncIterator
from uuid import UUID

import asyncpg
import pytest

from shared.contracts.commands import (
    ConnectInstance,
    DisconnectInstance,
    ScanSandboxQr,
    TransmissionOutcome,
    WriteFromSandboxContact,
)
from shared.contracts.content import Text
from shared.contracts.events import InstanceQr, InstanceStatus
from shared.pause import Pause
from tests.support import sessions
from tests.support.builders import an_instance, an_organization
from tests.support.sessions import Sessions, a_paired_instance, a_transmission


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[Sessions]:
    """A process that finds no lost command while a test runs."""
    async with sessions.running(database_url, reconcile_every=3600) as running:
        yield running


@pytest.fixture
async def tenant(world: Sessions) -> UUID:
    return await an_organization(world.sql)


async def want(world: Sessions, instance: UUID, connected: bool) -> None:
    await world.sql.execute(
        "UPDATE gateway.instances SET connected = $2, updated_at = clock_timestamp() WHERE id = $1",
        instance,
        connected,
    )


async def connected(world: Sessions, tenant: UUID, **given: object) -> UUID:
    instance = await a_paired_instance(world.sql, tenant, **given)
    await world.command(ConnectInstance(instance_id=instance))
    await world.ready(instance)
    return instance


def statuses(world: Sessions, instance: UUID) -> list[str]:
    events = [event.event for event in world.heard.named("instance.status", instance)]
    return [event.status for event in events if isinstance(event, InstanceStatus)]


async def status_of(sql: asyncpg.Connection, instance: UUID) -> str:
    return str(
        await sql.fetchval(
            "SELECT status FROM sessions.session_states WHERE instance_id = $1", instance
        )
    )


async def test_a_new_instance_shows_a_code_that_is_scanned_by_itself(
    world: Sessions, tenant: UUID
) -> None:
    instance = await an_instance(world.sql, tenant, status=None)
    await world.command(ConnectInstance(instance_id=instance))
    await world.ready(instance)
    assert statuses(world, instance) == ["connecting", "qr", "pairing", "ready"]
    state = await world.sql.fetchrow("SELECT * FROM sessions.session_states")
    assert state is not None
    assert (state["status"], state["qr_code"], state["shard"]) == ("ready", None, 7)
    assert state["phone_number"].startswith("+999")


async def test_without_auto_scan_a_command_scans_the_code(world: Sessions, tenant: UUID) -> None:
    instance = await an_instance(world.sql, tenant, status=None, settings={"autoScan": False})
    await world.command(ConnectInstance(instance_id=instance))
    shown = (await world.heard.event("instance.qr", instance)).event
    assert isinstance(shown, InstanceQr)
    stored = await world.sql.fetchval("SELECT qr_code FROM sessions.session_states")
    assert stored == shown.code
    await world.command(ScanSandboxQr(instance_id=instance))
    await world.ready(instance)


async def test_disconnecting_keeps_the_phone_linked(world: Sessions, tenant: UUID) -> None:
    instance = await connected(world, tenant)
    await want(world, instance, False)
    await world.command(DisconnectInstance(instance_id=instance))
    await world.heard.event("instance.disconnected", instance)
    assert await status_of(world.sql, instance) == "disconnected"
    refused = await world.send(instance)
    assert (refused.outcome, refused.code) == (TransmissionOutcome.RETRYABLE, "SESSION_DOWN")
    await want(world, instance, True)
    await world.command(ConnectInstance(instance_id=instance))
    await world.ready(instance, count=2)
    assert "qr" not in statuses(world, instance)


async def test_who_connects_again_before_the_end_is_written_down_is_connected(
    world: Sessions, tenant: UUID
) -> None:
    """The row says so since a moment before the session had ended; the command comes after it."""
    instance = await connected(world, tenant)
    await want(world, instance, False)
    await world.command(DisconnectInstance(instance_id=instance))
    await world.heard.event("instance.disconnected", instance)
    await world.sql.execute(
        "UPDATE gateway.instances i SET connected = true,"
        " updated_at = s.since - interval '100 milliseconds'"
        " FROM sessions.session_states s WHERE s.instance_id = i.id AND i.id = $1",
        instance,
    )
    await world.command(ConnectInstance(instance_id=instance))
    await world.ready(instance, count=2)
    assert (await world.send(instance)).outcome is TransmissionOutcome.ACCEPTED


async def test_a_command_that_the_row_does_not_confirm_does_nothing(
    world: Sessions, tenant: UUID
) -> None:
    instance = await connected(world, tenant)
    await world.command(DisconnectInstance(instance_id=instance))
    assert (await world.send(instance)).outcome is TransmissionOutcome.ACCEPTED
    assert await status_of(world.sql, instance) == "ready"


async def test_logging_out_forgets_the_phone(world: Sessions, tenant: UUID) -> None:
    instance = await connected(world, tenant)
    await want(world, instance, False)
    await world.command(DisconnectInstance(instance_id=instance, logout=True))
    assert await status_of(world.sql, instance) == "logged_out"
    assert await world.sql.fetchval("SELECT count(*) FROM sessions.sandbox_accounts") == 0


async def test_restarting_makes_a_new_connection(world: Sessions, tenant: UUID) -> None:
    instance = await connected(world, tenant)
    await world.command(ConnectInstance(instance_id=instance, restart=True))
    await world.ready(instance, count=2)
    assert statuses(world, instance) == [
        "connecting",
        "ready",
        "disconnected",
        "connecting",
        "ready",
    ]


async def test_an_engine_that_is_not_here_fails_the_instance(world: Sessions, tenant: UUID) -> None:
    instance = await an_instance(world.sql, tenant, status=None, engine="carrier_pigeon")
    await world.command(ConnectInstance(instance_id=instance))
    assert await status_of(world.sql, instance) == "failed"


async def test_what_comes_while_it_is_offline_is_received_on_connecting(
    world: Sessions, tenant: UUID
) -> None:
    instance = await a_paired_instance(world.sql, tenant)
    await world.command(
        WriteFromSandboxContact(
            instance_id=instance,
            from_="+12025550150",
            engine_message_id="3EB0AA",
            content=Text(text="Anybody there?"),
        )
    )
    await world.command(ConnectInstance(instance_id=instance))
    await world.heard.event("message.received", instance)
    assert await world.sql.fetchval("SELECT count(*) FROM sessions.inbound") == 1


async def test_versions_of_a_state_grow_and_name_its_events(world: Sessions, tenant: UUID) -> None:
    instance = await connected(world, tenant)
    version = await world.sql.fetchval("SELECT version FROM sessions.session_states")
    assert version == 2
    ids = [event.id for event in world.heard.events]
    assert len(ids) == len(set(ids))
    assert statuses(world, instance) == ["connecting", "ready"]


async def test_lost_commands_are_made_good(database_url: str) -> None:
    async with sessions.running(database_url, reconcile_every=0.1) as world:
        tenant = await an_organization(world.sql)
        instance = await a_paired_instance(world.sql, tenant)
        await world.ready(instance)
        await want(world, instance, False)
        await world.heard.event("instance.disconnected", instance)
        await want(world, instance, True)
        await world.ready(instance, count=2)
        await world.sql.execute("UPDATE gateway.instances SET deleted_at = clock_timestamp()")
        await world.heard.event("instance.disconnected", instance, count=2)
        assert await status_of(world.sql, instance) == "logged_out"


async def test_the_next_process_goes_on_where_the_last_one_stopped(database_url: str) -> None:
    async with sessions.running(database_url) as world:
        tenant = await an_organization(world.sql)
        instance = await a_paired_instance(world.sql, tenant)
        await world.command(ConnectInstance(instance_id=instance))
        await world.ready(instance)
    async with sessions.running(database_url) as world:
        await world.ready(instance)
        assert (await world.send(instance)).outcome is TransmissionOutcome.ACCEPTED
        epochs = await world.sql.fetch("SELECT epoch FROM sessions.shards")
        assert {row[0] for row in epochs} == {2}


async def test_a_transmission_is_carried_out_once_however_often_it_comes(
    world: Sessions, tenant: UUID
) -> None:
    instance = await connected(world, tenant)
    transmission = a_transmission(instance)
    await world.transmit(transmission, transmission)
    await world.transmit(transmission)
    await world.heard.outcome(transmission)
    await world.transmit(transmission)
    assert (await world.send(instance)).outcome is TransmissionOutcome.ACCEPTED
    wire = await world.sql.fetchrow("SELECT count(*), sum(replays) FROM sessions.sandbox_wire")
    assert wire is not None
    assert tuple(wire) == (2, 0)
    outcomes = [s for s in world.heard.settled if s.message_id == transmission.message_id]
    assert len(outcomes) == 1


async def test_a_new_owner_settles_what_was_left_open_as_unknown(database_url: str) -> None:
    sql = await asyncpg.connect(database_url)
    tenant = await an_organization(sql)
    instance = await an_instance(
        sql, tenant, status=None, connected=False, settings={"unconfirmedAfter": 7}
    )
    left = a_transmission(instance)
    await sql.execute(
        "INSERT INTO sessions.handovers (transmission_id, message_id, tenant_id, instance_id,"
        " shard, epoch, engine_message_id, handed_over_at)"
        " VALUES ($1, $2, $3, $4, 7, 0, $5, clock_timestamp())",
        left.transmission_id,
        left.message_id,
        tenant,
        instance,
        left.engine_message_id,
    )
    await sql.close()
    async with sessions.running(database_url) as world:
        settled = await world.heard.outcome(left)
        assert settled.outcome is TransmissionOutcome.UNKNOWN
        assert settled.unconfirmed_after == 7


async def test_an_orderly_end_waits_for_what_is_in_flight(database_url: str) -> None:
    async with sessions.running(database_url) as world:
        tenant = await an_organization(world.sql)
        instance = await a_paired_instance(world.sql, tenant, settings={"unconfirmedAfter": 1})
        await world.command(ConnectInstance(instance_id=instance))
        await world.ready(instance)
        await world.transmit(a_transmission(instance, to="+12025550105"))
    sql = await asyncpg.connect(database_url)
    row = await sql.fetchrow("SELECT outcome FROM sessions.handovers")
    free = await sql.fetchval(
        "SELECT count(*) FROM sessions.shards WHERE lease_until <= clock_timestamp()"
    )
    await sql.close()
    assert row is not None
    assert (row["outcome"], free) == ("unknown", 64)


async def test_while_paused_nothing_is_transmitted_and_all_else_goes_on(database_url: str) -> None:
    pause = Pause()
    async with sessions.running(database_url, pause=pause, reconcile_every=3600) as world:
        tenant = await an_organization(world.sql)
        pause.hold()
        instance = await connected(world, tenant)
        transmission = a_transmission(instance)
        await world.transmit(transmission)
        assert await world.sql.fetchval("SELECT count(*) FROM sessions.handovers") == 0
        pause.go_on()
        # As the dispatcher does with whatever was not handed over.
        await world.transmit(transmission)
        settled = await world.heard.outcome(transmission)
        assert settled.outcome is TransmissionOutcome.ACCEPTED
