"""An endpoint that fails is tried again, until it answers or is given up."""

from datetime import timedelta

from aiohttp import web

from services.webhooks.domain.schedule import SCHEDULE
from services.webhooks.store.deliveries import UNREADABLE
from shared.contracts.events import WebhookDisabled, WebhookRecovered
from tests.support.keys import answered
from tests.support.webhooks import Receiver, World, receiver, world

__all__ = ["receiver", "world"]

LONGEST_JITTER = 1.2


async def test_an_endpoint_that_was_down_gets_the_event_when_it_is_up(
    world: World, receiver: Receiver
) -> None:
    receiver.status = 500
    event = world.sent()
    async with world.running() as parts:
        await world.endpoint(receiver.url)
        await world.post(parts, event)
        assert (await world.delivery(event))["state"] == "pending"
        receiver.status = 204
        await world.post(parts)
        assert len(receiver.got) == 1  # it is not due yet
        world.clock.move(timedelta(seconds=5) * LONGEST_JITTER)
        await world.post(parts)
    assert receiver.ids == [str(event.id)] * 2
    assert receiver.got[0].body == receiver.got[1].body
    assert [row["status_code"] for row in await world.attempts(event)] == [500, 204]
    assert (await world.delivery(event))["state"] == "delivered"


async def test_each_attempt_is_signed_anew_under_the_same_id(
    world: World, receiver: Receiver
) -> None:
    receiver.status = 500
    async with world.running() as parts:
        await world.endpoint(receiver.url)
        await world.post(parts, world.sent())
        world.clock.move(timedelta(seconds=10))
        await world.post(parts)
    first, second = (got.headers for got in receiver.got)
    assert first["webhook-id"] == second["webhook-id"]
    assert int(second["webhook-timestamp"]) - int(first["webhook-timestamp"]) == 10
    assert first["webhook-signature"] != second["webhook-signature"]


async def test_a_retry_survives_a_restart(world: World, receiver: Receiver) -> None:
    receiver.status = 500
    event = world.sent()
    async with world.running() as parts:
        await world.endpoint(receiver.url)
        await world.post(parts, event)
    receiver.status = 200
    world.clock.move(timedelta(seconds=10))
    async with world.running() as parts:
        await world.post(parts)
    assert receiver.ids == [str(event.id)] * 2
    assert (await world.delivery(event))["state"] == "delivered"


async def test_the_twelfth_failure_is_the_last(world: World, receiver: Receiver) -> None:
    receiver.status = 500
    event = world.sent()
    async with world.running() as parts:
        await world.endpoint(receiver.url)
        await world.post(parts, event)
        for delay in SCHEDULE:
            assert (await world.delivery(event))["state"] == "pending"
            world.clock.move(delay * LONGEST_JITTER)
            await world.post(parts)
    assert len(receiver.got) == 12
    delivery = await world.delivery(event)
    assert (delivery["state"], delivery["attempts"]) == ("exhausted", 12)
    assert delivery["done_at"] is not None


async def test_retry_after_is_honoured_within_bounds(world: World, receiver: Receiver) -> None:
    receiver.status = 429
    hints = {"120": timedelta(minutes=2), "999999": timedelta(hours=6)}
    async with world.running() as parts:
        await world.endpoint(receiver.url)
        for hint, wait in hints.items():
            receiver.headers["Retry-After"] = hint
            event = world.sent()
            await world.post(parts, event)
            assert (await world.delivery(event))["next_at"] - world.clock.now() == wait


async def test_retry_after_never_makes_us_come_sooner(world: World, receiver: Receiver) -> None:
    receiver.status = 503
    receiver.headers["Retry-After"] = "0"
    event = world.sent()
    async with world.running() as parts:
        await world.endpoint(receiver.url)
        await world.post(parts, event)
        wait = (await world.delivery(event))["next_at"] - world.clock.now()
    assert timedelta(seconds=4) <= wait <= timedelta(seconds=6)


async def test_a_redirect_is_a_failure_and_not_followed(world: World, receiver: Receiver) -> None:
    receiver.status = 307
    receiver.headers["Location"] = receiver.url.replace("hook", "elsewhere")
    event = world.sent()
    async with world.running() as parts:
        await world.endpoint(receiver.url)
        await world.post(parts, event)
    assert [got.path for got in receiver.got] == ["/hook"]
    assert (await world.delivery(event))["state"] == "pending"
    (attempt,) = await world.attempts(event)
    assert attempt["status_code"] == 307


async def test_410_disables_the_endpoint_and_ends_what_waits_for_it(
    world: World, receiver: Receiver
) -> None:
    receiver.status = 500
    waiting, last, after = world.sent(), world.sent(), world.sent()
    async with world.running() as parts:
        endpoint_id = await world.endpoint(receiver.url)
        await world.post(parts, waiting)
        receiver.status = 410
        await world.post(parts, last)
        world.clock.move(timedelta(seconds=1))
        await world.post(parts, after)
    assert len(receiver.got) == 2
    assert await world.states() == ["disabled", "disabled"]
    health = await world.health(endpoint_id)
    assert health["disabled_reason"] == "It answered 410 Gone."
    (told,) = await world.told()
    assert isinstance(told.event, WebhookDisabled)
    assert told.event.webhook_id == str(endpoint_id)
    assert told.tenant_id == world.tenant


async def test_an_endpoint_that_fails_for_five_days_is_disabled(
    world: World, receiver: Receiver
) -> None:
    receiver.status = 500
    async with world.running() as parts:
        endpoint_id = await world.endpoint(receiver.url)
        await world.post(parts, world.sent())
        world.clock.move(timedelta(hours=119))
        await world.post(parts, world.sent())
        assert (await world.health(endpoint_id))["disabled_at"] is None
        world.clock.move(timedelta(hours=1))
        await world.post(parts, world.sent())
    health = await world.health(endpoint_id)
    assert health["disabled_at"] == world.clock.now()
    assert set(await world.states()) == {"disabled"}
    assert [told.name for told in await world.told()] == ["webhook.disabled"]


async def test_a_disabled_endpoint_that_is_switched_on_again_has_a_new_chance(
    world: World, receiver: Receiver
) -> None:
    receiver.status = 410
    async with world.running() as parts:
        endpoint_id = await world.endpoint(receiver.url)
        await world.post(parts, world.sent())
        world.clock.move(timedelta(hours=1))
        await world.sql.execute(
            "UPDATE gateway.webhooks SET active = true, updated_at = $1", world.clock.now()
        )
        world.clock.move(timedelta(seconds=1))
        receiver.status = 200
        event = world.sent()
        await world.post(parts, event)
    assert receiver.ids[-1] == str(event.id)
    assert (await world.health(endpoint_id))["disabled_at"] is None
    recovered = (await world.told())[-1]
    assert isinstance(recovered.event, WebhookRecovered)
    assert recovered.event.webhook_id == str(endpoint_id)


async def test_recovery_is_told_once_and_only_after_repeated_failure(
    world: World, receiver: Receiver
) -> None:
    async with world.running() as parts:
        await world.endpoint(receiver.url)
        for status, number in ((500, 4), (200, 1), (500, 5), (200, 2)):
            receiver.status = status
            for _ in range(number):
                await world.post(parts, world.sent())
    assert [told.name for told in await world.told()] == ["webhook.recovered"]


async def test_what_waits_for_an_endpoint_that_is_gone_or_off_ends(
    world: World, receiver: Receiver
) -> None:
    receiver.status = 500
    async with world.running() as parts:
        deleted = await world.endpoint(receiver.url)
        off = await world.endpoint(receiver.url)
        await world.post(parts, world.sent())
        await world.sql.execute("DELETE FROM gateway.webhooks WHERE id = $1", deleted)
        await world.sql.execute("UPDATE gateway.webhooks SET active = false WHERE id = $1", off)
        await world.post(parts)
    assert await world.states() == ["disabled", "disabled"]


async def test_an_answer_without_end_counts_by_its_status(world: World, receiver: Receiver) -> None:
    written = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal written
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 65536)
            written += 65536

    receiver.answering = endless
    event = world.sent()
    async with world.running() as parts:
        await world.endpoint(receiver.url)
        await world.post(parts, event)
        assert (await world.delivery(event))["state"] == "delivered"
    assert written < 64 * 2**20  # what the sockets hold, not what it would have sent


async def test_an_answer_that_claims_a_gigabyte_is_not_waited_for(
    world: World, receiver: Receiver
) -> None:
    async def claims(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(2**30)})
        await response.prepare(request)
        await response.write(b"x" * 20_000)
        return response

    receiver.answering = claims
    event = world.sent()
    async with world.running() as parts:
        await world.endpoint(receiver.url)
        await world.post(parts, event)
    (attempt,) = await world.attempts(event)
    assert len(answered(world.tenant, attempt)) == 1024


async def test_a_body_is_erased_with_its_delivery_where_nobody_keeps_it(
    world: World, receiver: Receiver
) -> None:
    await world.sql.execute("UPDATE gateway.organizations SET content_storage = 'none'")
    receiver.status = 500
    event = world.sent()
    async with world.running() as parts:
        await world.endpoint(receiver.url)
        await world.post(parts, event)
        waiting = await world.delivery(event)
        assert (waiting["state"], waiting["body"] is None) == ("pending", False)
        receiver.status = 200
        world.clock.move(timedelta(hours=1))
        await world.post(parts)
    done = await world.delivery(event)
    assert (done["state"], done["body"]) == ("delivered", None)
    assert receiver.got[0].body == receiver.got[1].body


async def test_what_waits_for_an_endpoint_that_was_switched_off_is_erased(
    world: World, receiver: Receiver
) -> None:
    await world.sql.execute("UPDATE gateway.organizations SET content_storage = 'none'")
    receiver.status = 500
    event = world.sent()
    async with world.running() as parts:
        endpoint = await world.endpoint(receiver.url)
        await world.post(parts, event)
        await world.sql.execute(
            "UPDATE gateway.webhooks SET active = false WHERE id = $1", endpoint
        )
        await parts.claims.step()
    row = await world.delivery(event)
    assert (row["state"], row["body"]) == ("disabled", None)


async def test_what_no_key_opens_waits_and_holds_up_nobody_else(
    world: World, receiver: Receiver
) -> None:
    receiver.status = 500
    odd, even = world.sent(), world.sent()
    async with world.running() as parts:
        await world.endpoint(receiver.url)
        await world.post(parts, odd)
        await world.post(parts, even)
        sealed = (await world.delivery(odd))["body"]
        await world.sql.execute(
            "UPDATE webhooks.deliveries SET body = body || '0' WHERE event_id = $1", odd.id
        )
        receiver.status = 200
        world.clock.move(timedelta(hours=1))
        await world.post(parts)
        row = await world.delivery(odd)
        assert (row["state"], row["attempts"]) == ("pending", 1)
        assert (await world.delivery(even))["state"] == "delivered"
        await world.sql.execute(
            "UPDATE webhooks.deliveries SET body = $2 WHERE event_id = $1", odd.id, sealed
        )
        world.clock.move(UNREADABLE)
        await world.post(parts)
    assert (await world.delivery(odd))["state"] == "delivered"
