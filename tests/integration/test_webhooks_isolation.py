"""An endpoint that hangs slows nobody else, and no endpoint leads inside."""

import asyncio
from datetime import timedelta

import pytest
from aiohttp import web

from tests.support.builders import an_instance, an_organization
from tests.support.webhooks import Receiver, World, a_sent_event, receiver, world

__all__ = ["receiver", "world"]


async def test_an_endpoint_that_hangs_does_not_slow_the_others(
    world: World, receiver: Receiver
) -> None:
    gate = asyncio.Event()

    async def hang(_request: web.Request) -> web.Response:
        await gate.wait()
        return web.Response()

    async with Receiver.listening() as slow:
        slow.answering = hang
        async with world.running(slots=16, endpoint_slots=4) as parts:
            healthy = await world.endpoint(receiver.url)
            await world.endpoint(slow.url)
            await world.happen(*(world.sent() for _ in range(200)))
            await slow.has(4)
            await receiver.has(200)
            assert len(slow.got) == 4
            slow.answering = None
            gate.set()
            await parts.worker.quiet()
            while "pending" in await world.states():
                await world.post(parts)
    assert set(await world.states(healthy)) == {"delivered"}
    assert sorted(receiver.ids) == sorted(slow.ids)


async def test_a_tenant_whose_endpoints_all_hang_leaves_room_for_others(
    world: World, receiver: Receiver
) -> None:
    gate = asyncio.Event()

    async def hang(_request: web.Request) -> web.Response:
        await gate.wait()
        return web.Response()

    greedy = await an_organization(world.sql)
    greedy_instance = await an_instance(world.sql, greedy)
    async with Receiver.listening() as slow:
        slow.answering = hang
        async with world.running(slots=8, endpoint_slots=8) as parts:
            await world.endpoint(receiver.url)
            for _ in range(3):
                await world.endpoint(slow.url, tenant_id=greedy)
            await world.happen(
                *(a_sent_event(tenant_id=greedy, instance_id=greedy_instance) for _ in range(20))
            )
            await slow.has(4)
            await world.happen(*(world.sent() for _ in range(50)))
            await receiver.has(50)
            assert len(slow.got) == 4  # half of the slots
            slow.answering = None
            gate.set()
            await parts.worker.quiet()


async def test_the_breaker_opens_after_five_timeouts_and_uses_up_no_attempts(
    world: World, receiver: Receiver
) -> None:
    gate = asyncio.Event()

    async def hang(_request: web.Request) -> web.Response:
        await gate.wait()
        return web.Response()

    receiver.answering = hang
    async with world.running(timeout=0.1, endpoint_slots=1) as parts:
        endpoint_id = await world.endpoint(receiver.url)
        await world.happen(*(world.sent() for _ in range(12)))
        await parts.worker.quiet()
        health = await world.health(endpoint_id)
        assert health["opened"] == 1
        assert health["open_until"] == world.clock.now() + timedelta(seconds=30)
        tried = len(receiver.got)
        assert 5 <= tried <= 7  # one or two were under way while it was written down
        await world.post(parts, world.sent())
        assert len(receiver.got) == tried

        world.clock.move(timedelta(seconds=30))
        await world.post(parts)
        assert len(receiver.got) == tried + 1  # the probe, alone
        health = await world.health(endpoint_id)
        assert health["opened"] == 2
        assert health["open_until"] == world.clock.now() + timedelta(minutes=1)

        gate.set()
        receiver.answering = None
        world.clock.move(timedelta(minutes=1))
        await world.post(parts)
        assert (await world.health(endpoint_id))["opened"] == 0
        while "pending" in await world.states():
            world.clock.move(timedelta(minutes=1))
            await world.post(parts)
    assert set(await world.states()) == {"delivered"}
    attempts = await world.sql.fetchval("SELECT count(*) FROM webhooks.attempts")
    assert attempts == 13 + tried + 1
    assert "webhook.recovered" in [told.name for told in await world.told()]


async def test_two_workers_do_not_probe_the_same_endpoint(world: World, receiver: Receiver) -> None:
    async with world.running() as one, world.running() as other:
        endpoint_id = await world.endpoint(receiver.url)
        await world.sql.execute(
            "INSERT INTO webhooks.endpoint_health (endpoint_id, consecutive_failures,"
            " consecutive_unreachable, opened, open_until) VALUES ($1, 5, 5, 1, $2)",
            endpoint_id,
            world.clock.now(),
        )
        gate = asyncio.Event()

        async def hang(_request: web.Request) -> web.Response:
            await gate.wait()
            return web.Response()

        receiver.answering = hang
        await world.happen(*(world.sent() for _ in range(5)))
        await asyncio.gather(one.claims.step(), other.claims.step())
        await receiver.has(1)
        await asyncio.gather(one.claims.step(), other.claims.step())
        assert len(receiver.got) == 1
        gate.set()
        await one.worker.quiet()
        await other.worker.quiet()
    assert (await world.health(endpoint_id))["opened"] == 0


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{port}/hook",
        "http://[::ffff:127.0.0.1]:{port}/hook",
        "https://169.254.169.254/latest/meta-data/",
        "https://10.0.0.1/hook",
        "https://0x7f.1/hook",
        "http://example.com/hook",
        "https://user:password@example.com/hook",
        "gopher://example.com/hook",
        "nonsense",
    ],
)
async def test_no_endpoint_leads_inside(world: World, receiver: Receiver, url: str) -> None:
    port = receiver.url.rpartition(":")[2].partition("/")[0]
    event = world.sent()
    async with world.running(allowed_nets="") as parts:
        endpoint_id = await world.endpoint(url.format(port=port))
        await world.post(parts, event)
    assert receiver.got == []
    (attempt,) = await world.attempts(event)
    assert (attempt["status_code"], attempt["error"]) == (None, "refused")
    assert (await world.health(endpoint_id))["opened"] == 0


async def test_nobody_listening_is_an_attempt_like_any_other(world: World) -> None:
    async with Receiver.listening() as gone:
        url = gone.url
    event = world.sent()
    async with world.running() as parts:
        await world.endpoint(url)
        await world.post(parts, event)
    (attempt,) = await world.attempts(event)
    assert attempt["error"] == "connect"
    assert (await world.delivery(event))["state"] == "pending"


async def test_a_secret_that_is_none_fails_its_endpoint_only(
    world: World, receiver: Receiver
) -> None:
    event = world.sent()
    async with world.running() as parts:
        await world.endpoint(receiver.url, secret="nonsense")
        healthy = await world.endpoint(receiver.url)
        await world.post(parts, event)
    assert await world.states(healthy) == ["delivered"]
    assert receiver.ids == [str(event.id)]
