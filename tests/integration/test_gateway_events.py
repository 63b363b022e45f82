"""The event log: nothing is missed, whoever writes and whoever waits."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import asyncpg
import orjson
import pytest
from prometheus_client import CollectorRegistry

from services.gateway.loops.forgetting import Forget
from services.gateway.metrics import GatewayMetrics
from services.gateway.store import events
from services.gateway.store.events import NewEvent
from shared.contracts import events as contracts
from shared.contracts.content import Identity
from shared.contracts.envelope import Emitted
from shared.contracts.events import InstanceConnected, MessageSent
from shared.contracts.model import Event
from shared.db.database import Database
from shared.db.tables.grants import role
from shared.ids import new_id
from shared.messaging.outbox import event, outgoing
from shared.security.sealing import Key, KeyRing
from tests.support.builders import an_instance
from tests.support.customer import Answer
from tests.support.eventually import eventually
from tests.support.gateway import Gateway, Sender, running
from tests.support.keys import RING


def an_event(gateway: Gateway, sender: Sender, made: Event | None = None) -> Emitted:
    now = gateway.clock.now()
    sent = MessageSent.model_validate(
        {
            "messageId": str(new_id()),
            "from": "+12025550000",
            "to": "+12025550199",
            "messageType": "text",
            "timestamp": now,
            "identity": Identity(chat_id="12025550199@s.whatsapp.net"),
        }
    )
    return Emitted(
        id=new_id(),
        event=made or sent,
        tenant_id=sender.tenant,
        instance_id=sender.instance,
        time=now,
        subject="x",
        partition_key="x",
    )


async def publish(gateway: Gateway, *emitted: Emitted) -> None:
    """As an outbox does: returns once the log has them."""
    await gateway.broker.publish(outgoing([event(one) for one in emitted]))


async def page(sender: Sender, query: str = "", after: str = "") -> Answer:
    given = f"&after={after}" if after else ""
    answer = await sender.customer.get(f"/api/events?{query}{given}")
    assert answer.status == 200, answer.body
    return answer


def ids(answer: Answer) -> list[str]:
    return [one["id"] for one in answer.data]


async def test_an_event_is_logged_as_subscribers_get_it(gateway: Gateway, sender: Sender) -> None:
    emitted = an_event(gateway, sender)
    await publish(gateway, emitted)
    [logged] = (await page(sender)).data
    assert logged["id"] == str(emitted.id)
    assert logged["type"] == "dev.waypost.message.sent.v1"
    assert logged["data"]["to"] == "+12025550199"
    assert logged["tenantid"] == str(sender.tenant)


async def test_an_event_that_comes_twice_is_logged_once(gateway: Gateway, sender: Sender) -> None:
    first, second = an_event(gateway, sender), an_event(gateway, sender)
    await publish(gateway, first, first)
    await publish(gateway, first, second)
    assert ids(await page(sender)) == [str(first.id), str(second.id)]


async def test_a_subscriber_goes_on_from_its_cursor(gateway: Gateway, sender: Sender) -> None:
    emitted = [an_event(gateway, sender) for _ in range(5)]
    await publish(gateway, *emitted)
    first = await page(sender, "limit=2")
    assert ids(first) == [str(one.id) for one in emitted[:2]]
    assert first.body["pagination"]["hasMore"] is True
    rest = await page(sender, "limit=3", first.body["pagination"]["nextCursor"])
    assert ids(rest) == [str(one.id) for one in emitted[2:]]
    end = rest.body["pagination"]
    assert end["hasMore"] is False
    empty = await page(sender, "", end["nextCursor"])
    assert empty.data == []
    assert empty.body["pagination"]["nextCursor"] == end["nextCursor"]
    later = an_event(gateway, sender)
    await publish(gateway, later)
    assert ids(await page(sender, "", end["nextCursor"])) == [str(later.id)]


async def test_filters_take_names_families_and_instances(gateway: Gateway, sender: Sender) -> None:
    sent = an_event(gateway, sender)
    connected = an_event(gateway, sender, InstanceConnected())
    tested = an_event(gateway, sender, contracts.Test(message="x"))
    await publish(gateway, sent, connected, tested)
    everything = [str(one.id) for one in (sent, connected, tested)]
    for query, expected in (
        ("", everything),
        ("types=*", everything),
        ("types=message.*", [str(sent.id)]),
        ("types=message.sent,test", [str(sent.id), str(tested.id)]),
        ("types=instance.*&types=test", everything[1:]),
        (f"instanceId={sender.instance}", everything),
        (f"instanceId={new_id()}", []),
    ):
        assert sorted(ids(await page(sender, query))) == sorted(expected), query
    for wrong in ("types=message.snet", "after=abc", "wait=31", "limit=1001"):
        refused = await sender.customer.get(f"/api/events?{wrong}")
        assert (refused.status, refused.code) == (422, "VALIDATION_FAILED")
        assert set(refused.body["error"]["data"]["fields"]) <= {wrong.partition("=")[0], "types.0"}


async def test_a_key_reads_the_events_of_its_instance_alone(
    gateway: Gateway, sender: Sender
) -> None:
    other = Sender(sender.customer, await an_instance(gateway.sql, sender.tenant), sender.tenant)
    own, foreign = an_event(gateway, sender), an_event(gateway, other)
    await publish(gateway, own, foreign)
    assert ids(await page(sender)) == [str(own.id)]


async def test_whoever_waits_is_answered_when_something_comes(
    gateway: Gateway, sender: Sender
) -> None:
    started = gateway.clock.monotonic()
    waiting = asyncio.create_task(page(sender, "wait=30"))
    emitted = an_event(gateway, sender)
    await publish(gateway, emitted)
    assert ids(await waiting) == [str(emitted.id)]
    assert gateway.clock.monotonic() - started < 5


async def test_whoever_waits_in_vain_gets_an_empty_page(gateway: Gateway, sender: Sender) -> None:
    assert (await page(sender, "wait=0.05")).data == []


async def test_what_another_replica_logged_is_found_while_waiting(
    gateway: Gateway, sender: Sender
) -> None:
    """Even if nobody says so: the log is looked at twice a second, for all who wait."""
    waiting = asyncio.create_task(page(sender, "wait=30"))
    await joined(gateway)
    started = gateway.clock.monotonic()
    await events.append(gateway.database, RING, [a_row(gateway, sender)])
    assert len((await waiting).data) == 1
    assert gateway.clock.monotonic() - started < 2


async def test_whoever_waits_hears_only_of_what_they_asked_for(
    gateway: Gateway, sender: Sender
) -> None:
    waiting = asyncio.create_task(page(sender, "wait=30&types=instance.*"))
    await joined(gateway)
    await publish(gateway, an_event(gateway, sender))
    connected = an_event(gateway, sender, InstanceConnected())
    await publish(gateway, connected)
    assert ids(await waiting) == [str(connected.id)]


async def test_whoever_waits_is_told_that_an_event_cannot_be_read(
    gateway: Gateway, sender: Sender
) -> None:
    waiting = asyncio.create_task(sender.customer.get("/api/events?wait=30"))
    await joined(gateway)
    started = gateway.clock.monotonic()
    await events.append(gateway.database, KeyRing([Key.new("lost")]), [a_row(gateway, sender)])
    refused = await waiting
    assert (refused.status, refused.code) == (503, "ENGINE_UNAVAILABLE")
    assert gateway.clock.monotonic() - started < 5


async def test_so_many_wait_and_no_more(database_url: str) -> None:
    async with running(database_url, event_waiters=2, event_waiters_tenant=1) as gateway:
        one, two, three = [await gateway.sender() for _ in range(3)]
        first = asyncio.create_task(page(one, "wait=30"))
        await joined(gateway, 1)
        greedy = await one.customer.get("/api/events?wait=30")
        assert (greedy.status, greedy.code) == (429, "RATE_LIMIT_EXCEEDED")
        second = asyncio.create_task(page(two, "wait=30"))
        await joined(gateway, 2)
        refused = await three.customer.get("/api/events?wait=30")
        assert (refused.status, refused.code) == (503, "ENGINE_UNAVAILABLE")
        assert int(refused.headers["Retry-After"]) >= 1
        assert (await page(three)).data == []
        for sender, waiting in ((one, first), (two, second)):
            await publish(gateway, an_event(gateway, sender))
            assert len((await waiting).data) == 1
        again = asyncio.create_task(page(one, "wait=30", await end_of(one)))
        await joined(gateway, 1)
        await publish(gateway, an_event(gateway, one))
        assert len((await again).data) == 1


async def test_nobody_waits_beyond_the_end_of_the_process(database_url: str) -> None:
    async with running(database_url) as gateway:
        sender = await gateway.sender()
        waiting = asyncio.create_task(page(sender, "wait=30"))
        await joined(gateway)
        started = gateway.clock.monotonic()
        await gateway.app.shutdown()
        assert (await waiting).data == []
        assert gateway.clock.monotonic() - started < 5


async def end_of(sender: Sender) -> str:
    """The cursor that leads to what comes next."""
    cursor: str = (await page(sender)).body["pagination"]["nextCursor"]
    return cursor


async def joined(gateway: Gateway, many: int = 1) -> None:
    """Return once so many requests wait."""

    async def waiting() -> bool:
        return gateway.waiting() == many

    await eventually(waiting, every=timedelta(milliseconds=5))


def a_row(gateway: Gateway, sender: Sender) -> NewEvent:
    return NewEvent(
        id=new_id(),
        tenant_id=sender.tenant,
        instance_id=sender.instance,
        type="test",
        time=gateway.clock.now(),
        body=b"{}",
    )


async def test_a_lower_number_never_appears_after_a_higher_one(
    database_url: str, gateway: Gateway, sender: Sender
) -> None:
    """Two writers, of which the first commits late, and a reader in between."""
    first = await asyncpg.connect(database_url)
    try:
        transaction = first.transaction()
        await transaction.start()
        # As ``append`` does, up to just before its commit.
        await first.execute("SELECT pg_advisory_xact_lock($1)", events._LOG_LOCK)
        await first.execute(
            "INSERT INTO gateway.events (sequence, id, tenant_id, instance_id, type, time, body)"
            " SELECT coalesce(max(sequence), 0) + 1, $1, $2, $3, 'test', $4, '{}'::bytea"
            " FROM gateway.events",
            new_id(),
            sender.tenant,
            sender.instance,
            gateway.clock.now(),
        )
        async with Database.open(database_url, role=role("gateway"), name="second") as database:
            second = asyncio.create_task(events.append(database, RING, [a_row(gateway, sender)]))
            await eventually(
                lambda: gateway.sql.fetchval(
                    "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
                )
            )
            assert (await page(sender)).data == []
            await transaction.commit()
            await second
    finally:
        await first.close()
    rows = await gateway.sql.fetch("SELECT sequence FROM gateway.events ORDER BY sequence")
    assert [sequence for (sequence,) in rows] == [1, 2]
    assert len((await page(sender)).data) == 2


async def test_a_reader_who_follows_many_writers_misses_nothing(
    database_url: str, gateway: Gateway, sender: Sender
) -> None:
    rounds, size = 15, 4
    written: set[UUID] = set()
    seen: list[int] = []

    async def write(database: Database) -> None:
        for _ in range(rounds):
            batch = [a_row(gateway, sender) for _ in range(size)]
            await events.append(database, RING, batch)
            written.update(row.id for row in batch)

    async def follow() -> None:
        cursor = 0
        while len(seen) < 3 * rounds * size:
            rows = await gateway.sql.fetch(
                "SELECT sequence FROM gateway.events WHERE sequence > $1 ORDER BY sequence", cursor
            )
            seen.extend(sequence for (sequence,) in rows)
            cursor = seen[-1] if seen else 0

    async with (
        Database.open(database_url, role=role("gateway"), name="one") as one,
        Database.open(database_url, role=role("gateway"), name="two") as two,
        asyncio.timeout(30),
        asyncio.TaskGroup() as group,
    ):
        for database in (one, two, gateway.database):
            group.create_task(write(database))
        group.create_task(follow())
    assert len(written) == len(set(seen)) == 3 * rounds * size
    assert seen == sorted(seen)


def forgetting(gateway: Gateway) -> Forget:
    """What forgets events a week after they were logged."""
    return Forget(
        database=gateway.database,
        clock=gateway.clock,
        metrics=GatewayMetrics(CollectorRegistry()),
        events_kept=timedelta(days=7),
        audit_kept=timedelta(days=365),
    )


async def test_what_was_said_long_ago_is_kept_from_when_it_was_logged(
    gateway: Gateway, sender: Sender
) -> None:
    """An instance was offline for longer than events are kept, and gets its messages now."""
    await publish(gateway, an_event(gateway, sender))
    cursor = await end_of(sender)
    long_ago = gateway.clock.now() - timedelta(days=8)
    late = [replace(an_event(gateway, sender), time=long_ago) for _ in range(3)]
    await publish(gateway, *late, an_event(gateway, sender))
    assert await forgetting(gateway).step() == 0
    assert ids(await page(sender, "", cursor))[:3] == [str(one.id) for one in late]


async def test_nothing_is_forgotten_behind_what_is_kept(gateway: Gateway, sender: Sender) -> None:
    """The database's clock was set back, or a row came with a backup: no cursor dies of it."""
    emitted = [an_event(gateway, sender) for _ in range(5)]
    await publish(gateway, *emitted)
    await gateway.sql.execute(
        "UPDATE gateway.events SET logged_at = now() - interval '8 days' WHERE sequence IN (1, 3)"
    )
    forget = forgetting(gateway)
    assert await forget.step() == 1
    assert await forget.step() == 0
    assert ids(await page(sender)) == [str(one.id) for one in emitted[1:]]
    assert await gateway.sql.fetchval("SELECT forgotten_through FROM gateway.event_log") == 1


async def test_old_events_are_forgotten_but_numbers_are_never_given_again(
    gateway: Gateway, sender: Sender
) -> None:
    await publish(gateway, *(an_event(gateway, sender) for _ in range(3)))
    cursor = (await page(sender)).body["pagination"]["nextCursor"]
    gateway.clock.move(timedelta(days=8))
    forget = forgetting(gateway)
    assert await forget.step() == 2
    assert await forget.step() == 0
    later = an_event(gateway, sender)
    await publish(gateway, later)
    assert ids(await page(sender, "", cursor)) == [str(later.id)]


async def test_a_cursor_that_is_too_old_is_refused_instead_of_skipping(
    gateway: Gateway, sender: Sender
) -> None:
    old, other = await gateway.sender(), await gateway.sender()
    await publish(gateway, an_event(gateway, old))
    stale = await end_of(old)
    await publish(gateway, *(an_event(gateway, other) for _ in range(3)))
    idle = await end_of(old)
    gateway.clock.move(timedelta(days=8))
    await publish(gateway, kept := an_event(gateway, old))
    assert await forgetting(gateway).step() == 4
    refused = await old.customer.get(f"/api/events?after={stale}")
    assert (refused.status, refused.code) == (400, "BAD_REQUEST")
    told = refused.body["error"]["data"]
    assert told["reason"] == "cursor_expired"
    assert ids(await page(old, "", told["oldestCursor"])) == [str(kept.id)]
    # Where nothing happened in between, the cursor of an empty page has moved along.
    assert ids(await page(old, "", idle)) == [str(kept.id)]


async def keep_for(gateway: Gateway, whose: Sender, days: int) -> None:
    """Have a tenant choose for how long messages are kept."""
    await gateway.sql.execute(
        "UPDATE gateway.organizations SET retention_days = $2 WHERE id = $1", whose.tenant, days
    )


async def test_events_of_who_keeps_messages_for_less_go_then_and_nobody_else_misses_anything(
    gateway: Gateway, sender: Sender
) -> None:
    brief, other = await gateway.sender(), await gateway.sender()
    await keep_for(gateway, brief, 2)
    await keep_for(gateway, sender, 30)
    await publish(gateway, an_event(gateway, brief))
    stale, others = await end_of(brief), await end_of(other)
    told = [an_event(gateway, whose) for whose in (brief, other, brief, sender)]
    await publish(gateway, *told)
    gateway.clock.move(timedelta(days=2, minutes=1))
    await publish(gateway, kept := an_event(gateway, brief), last := an_event(gateway, other))
    await gateway.sql.execute(
        "UPDATE gateway.events SET logged_at = $2 WHERE id = ANY ($1::uuid[])",
        [kept.id, last.id],
        gateway.clock.now(),
    )
    forget = forgetting(gateway)
    assert await forget.step() == 3
    assert await forget.step() == 0
    refused = await brief.customer.get(f"/api/events?after={stale}")
    assert (refused.status, refused.code) == (400, "BAD_REQUEST")
    oldest = refused.body["error"]["data"]["oldestCursor"]
    assert ids(await page(brief, "", oldest)) == [str(kept.id)]
    assert ids(await page(other, "", others)) == [str(told[1].id), str(last.id)]
    assert ids(await page(sender)) == [str(told[3].id)]


async def test_short_histories_are_forgotten_in_portions(
    gateway: Gateway, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Forget, "PORTION", 2)
    await keep_for(gateway, sender, 1)
    await publish(gateway, *(an_event(gateway, sender) for _ in range(6)))
    gateway.clock.move(timedelta(days=1, minutes=1))
    forget = forgetting(gateway)
    # The last of the log stays until there is another: the next goes on from its number.
    assert [await forget.step() for _ in range(4)] == [2, 2, 1, 0]


async def test_a_cursor_of_another_log_is_refused(gateway: Gateway, sender: Sender) -> None:
    await publish(gateway, an_event(gateway, sender))
    ahead = await end_of(sender)
    await gateway.sql.execute("TRUNCATE gateway.events")
    refused = await sender.customer.get(f"/api/events?after={ahead}")
    assert (refused.status, refused.code) == (400, "BAD_REQUEST")


async def test_a_late_commit_between_two_pages_is_on_the_second(
    database_url: str, gateway: Gateway, sender: Sender
) -> None:
    """Two replicas log at once; the one that was given the lower numbers commits last."""
    await publish(gateway, an_event(gateway, sender))
    first = await page(sender)
    late = await asyncpg.connect(database_url)
    try:
        transaction = late.transaction()
        await transaction.start()
        await late.execute("SELECT pg_advisory_xact_lock($1)", events._LOG_LOCK)
        row = a_row(gateway, sender)
        await late.execute(
            "INSERT INTO gateway.events (sequence, id, tenant_id, instance_id, type, time, body)"
            " SELECT coalesce(max(sequence), 0) + 1, $1, $2, $3, 'test', $4, $5"
            " FROM gateway.events",
            row.id,
            row.tenant_id,
            row.instance_id,
            row.time,
            orjson.dumps({"id": str(row.id)}),
        )
        async with running(database_url) as other:
            published = an_event(gateway, sender)
            publishing = asyncio.create_task(publish(other, published))
            await eventually(
                lambda: gateway.sql.fetchval(
                    "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
                )
            )
            second = await page(sender, "", first.body["pagination"]["nextCursor"])
            assert second.data == []
            await transaction.commit()
            await publishing
    finally:
        await late.close()
    third = await page(sender, "", second.body["pagination"]["nextCursor"])
    assert ids(third) == [str(row.id), str(published.id)]
