"""Whatever dies at whatever moment: every delivery is made, under the same id."""

import asyncio
import random
from datetime import timedelta

import asyncpg
import pytest
from aiohttp import web

from shared.clock import SystemClock
from shared.contracts import envelope
from shared.contracts.envelope import Carried, Emitted
from tests.support.clock import HandClock
from tests.support.webhooks import Receiver, World, receiver, world

__all__ = ["receiver", "world"]


def carried(*events: Emitted) -> list[Carried]:
    return envelope.carried_batch(envelope.join([envelope.encode(event) for event in events]))


async def lapse_claims(world: World) -> None:
    """A lease runs on the database's clock, so that is where its time is made to pass."""
    await world.sql.execute(
        "UPDATE webhooks.deliveries SET claim_until = clock_timestamp() - interval '1 second'"
        " WHERE state = 'claimed'"
    )


async def run_once(world: World, event: Emitted) -> None:
    async with world.running() as parts:
        await world.happen(event)
        await parts.worker.quiet()


async def test_a_worker_that_dies_before_it_posts_is_replaced(
    world: World, receiver: Receiver
) -> None:
    event = world.sent()
    await world.endpoint(receiver.url)
    async with world.dead() as dead:
        await dead.consumers.events(carried(event))
    assert await world.states() == ["claimed"]
    async with world.running() as parts:
        await parts.repairs.step()
        assert await world.states() == ["claimed"]  # the lease holds
        await lapse_claims(world)
        await parts.repairs.step()
        await world.post(parts)
    assert receiver.ids == [str(event.id)]
    assert await world.states() == ["delivered"]


async def test_a_post_that_was_not_written_down_is_repeated_under_the_same_id(
    world: World, receiver: Receiver
) -> None:
    event = world.sent()
    await world.endpoint(receiver.url)
    await world.sql.execute("REVOKE UPDATE ON webhooks.deliveries FROM waypost_webhooks")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await run_once(world, event)
    await world.sql.execute("GRANT UPDATE ON webhooks.deliveries TO waypost_webhooks")
    assert receiver.ids == [str(event.id)]
    assert await world.states() == ["claimed"]
    await lapse_claims(world)
    async with world.running() as parts:
        await parts.repairs.step()
        await world.post(parts)
    assert receiver.ids == [str(event.id)] * 2
    assert receiver.got[0].body == receiver.got[1].body
    assert (await world.delivery(event))["state"] == "delivered"


async def test_a_worker_that_is_stopped_finishes_what_it_has_begun(
    world: World, receiver: Receiver
) -> None:
    gate = asyncio.Event()

    async def slowly(_request: web.Request) -> web.Response:
        asyncio.get_running_loop().call_soon(gate.set)
        await gate.wait()
        return web.Response()

    receiver.answering = slowly
    async with world.running(drain=10):
        await world.endpoint(receiver.url)
        await world.happen(world.sent())
        await receiver.has(1)
    assert await world.states() == ["delivered"]


async def test_a_worker_that_is_stopped_gives_back_what_it_cannot_finish(
    world: World, receiver: Receiver
) -> None:
    gate = asyncio.Event()

    async def never(_request: web.Request) -> web.Response:
        await gate.wait()
        return web.Response()

    receiver.answering = never
    events = [world.sent() for _ in range(5)]
    async with world.running(drain=0.05, endpoint_slots=1):
        await world.endpoint(receiver.url)
        await world.happen(*events)
        await receiver.has(1)
    gate.set()
    assert await world.states() == ["pending"] * 5
    assert await world.sql.fetchval("SELECT sum(attempts) FROM webhooks.deliveries") == 0
    receiver.answering = None
    async with world.running() as parts:
        await world.post(parts)
    assert set(receiver.ids) == {str(event.id) for event in events}
    assert set(await world.states()) == {"delivered"}


@pytest.mark.parametrize(("status", "state"), [(200, "delivered"), (500, "claimed")])
async def test_a_late_answer_counts_only_if_it_is_a_success(
    world: World, receiver: Receiver, status: int, state: str
) -> None:
    async def taken_over(_request: web.Request) -> web.Response:
        await world.sql.execute("UPDATE webhooks.deliveries SET claimed_by = 'another'")
        return web.Response(status=status)

    receiver.answering = taken_over
    event = world.sent()
    async with world.running() as parts:
        await world.endpoint(receiver.url)
        await world.post(parts, event)
    assert (await world.delivery(event))["state"] == state


async def test_consumers_with_overlapping_batches_make_each_delivery_once(
    world: World, receiver: Receiver
) -> None:
    shuffled = random.Random(7)  # noqa: S311 - the same disorder every time
    events = [world.sent() for _ in range(120)]
    for _ in range(3):
        await world.endpoint(receiver.url)
    async with world.running() as one, world.running() as other:
        for _ in range(4):
            batches = [shuffled.sample(events, 100) for _ in range(4)]
            await asyncio.gather(
                *(
                    parts.consumers.events(carried(*batch))
                    for parts, batch in zip((one, other, one, other), batches, strict=True)
                )
            )
        await one.consumers.events(carried(*events))
        while {"pending", "claimed"} & {*await world.states()}:
            await asyncio.gather(world.post(one), world.post(other))
    assert sorted(receiver.ids) == sorted(str(event.id) for event in events * 3)
    assert await world.states() == ["delivered"] * 360


async def test_two_workers_never_claim_the_same_delivery(world: World, receiver: Receiver) -> None:
    events = [world.sent() for _ in range(200)]
    await world.endpoint(receiver.url)
    async with world.dead() as dead:
        await dead.consumers.events(carried(*events))
    await lapse_claims(world)
    async with world.running(endpoint_slots=8) as one, world.running(endpoint_slots=8) as other:
        await one.repairs.step()
        while {"pending", "claimed"} & {*await world.states()}:
            await asyncio.gather(one.claims.step(), other.claims.step())
            await one.worker.quiet()
            await other.worker.quiet()
    assert sorted(receiver.ids) == sorted(str(event.id) for event in events)


async def test_what_happened_while_the_database_was_away_is_written_when_it_is_back(
    world: World, receiver: Receiver
) -> None:
    async def cut_off(_request: web.Request) -> web.Response:
        await world.sql.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'waypost' AND datname = current_database()"
        )
        return web.Response()

    receiver.answering = cut_off
    event = world.sent()
    async with world.running() as parts:
        await world.endpoint(receiver.url)
        await world.happen(event)
        await parts.worker.quiet()
    assert receiver.ids == [str(event.id)]
    assert await world.states() == ["delivered"]


async def test_what_is_old_is_deleted_with_its_attempts(
    database_url: str, receiver: Receiver
) -> None:
    clock = HandClock(SystemClock().now())  # ids tell when they were made
    async with World.of(database_url, clock) as world, world.running() as parts:
        await world.endpoint(receiver.url)
        await world.post(parts, world.sent())
        clock.move(timedelta(days=30))
        assert await parts.forgetting.step() is False
        assert await world.states() == ["delivered"]
        clock.move(timedelta(seconds=10))
        await parts.forgetting.step()
        assert await world.states() == []
        assert await world.sql.fetchval("SELECT count(*) FROM webhooks.attempts") == 0


async def test_who_keeps_messages_for_less_has_deliveries_forgotten_sooner(
    database_url: str, receiver: Receiver
) -> None:
    clock = HandClock(SystemClock().now())
    async with World.of(database_url, clock) as world, world.running() as parts:
        await world.endpoint(receiver.url)
        receiver.status = 500
        await world.post(parts, world.sent())
        receiver.status = 200
        await world.post(parts, world.sent())
        clock.move(timedelta(days=2, seconds=10))
        await parts.forgetting.step()
        assert sorted(await world.states()) == ["delivered", "pending"]
        await world.sql.execute("UPDATE gateway.organizations SET retention_days = 40")
        await parts.forgetting.step()
        assert sorted(await world.states()) == ["delivered", "pending"]
        await world.sql.execute("UPDATE gateway.organizations SET retention_days = 2")
        await parts.forgetting.step()
        # What has still to be told is told first.
        assert await world.states() == ["pending"]
        left = await world.sql.fetch(
            "SELECT d.state FROM webhooks.attempts JOIN webhooks.deliveries d ON d.id = delivery_id"
        )
        assert {row[0] for row in left} == {"pending"}
