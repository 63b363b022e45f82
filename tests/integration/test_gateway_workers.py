"""Workers: who sees what, and what operators may tell them."""

from datetime import timedelta
from typing import Any

import pytest

from shared.ids import new_id
from tests.support.builders import a_message_row, an_instance
from tests.support.customer import Customer
from tests.support.gateway import Gateway

PATH = "/api/workers"


async def a_worker(gateway: Gateway, service: str = "dispatcher", **given: Any) -> str:
    """A process that has sent a heartbeat."""
    row = {
        "name": f"{service}@here",
        "state": "running",
        "pausable": True,
        "restartable": True,
        "ago": timedelta(0),
        **given,
    }
    await gateway.sql.execute(
        f"INSERT INTO {service}.workers (id, name, state, processing, completed, failed,"
        " throughput, memory, pausable, restartable, started_at, beat_at)"
        " VALUES ($1, $2, $3, 1, 20, 3, 12.34, 1000, $4, $5, now() - interval '1 day',"
        " now() - $6::interval)",
        new_id(),
        row["name"],
        row["state"],
        row["pausable"],
        row["restartable"],
        row["ago"],
    )
    return str(row["name"])


async def orders(gateway: Gateway) -> dict[tuple[str, str], Any]:
    """What is wanted of whom."""
    rows = await gateway.sql.fetch("SELECT * FROM gateway.worker_orders")
    return {(row["service"], row["worker"]): row for row in rows}


async def told(operator: Customer, action: str, worker: str | None = None) -> Any:
    """What is answered to an order."""
    body = {"action": action} if worker is None else {"action": action, "worker": worker}
    return await operator.post(PATH, body)


async def test_an_operator_sees_every_process_and_which_is_lost(gateway: Gateway) -> None:
    _, account = await gateway.register("ada@example.com")
    tenant = account["organization"]["id"]
    instance = await an_instance(gateway.sql, tenant)
    await a_message_row(gateway.sql, tenant, instance, status="queued")
    await a_worker(gateway)
    await a_worker(gateway, "stats", ago=timedelta(seconds=16))
    await a_worker(gateway, "webhooks", state="paused")
    operator = await gateway.operator()
    for path in (PATH, f"{PATH}/whatsapp"):
        listed = await operator.get(path)
        assert listed.body["pagination"] == {"limit": 3, "nextCursor": None, "hasMore": False}
        rows = {row["service"]: row for row in listed.data}
        assert {name: row["state"] for name, row in rows.items()} == {
            "dispatcher": "running",
            "stats": "lost",
            "webhooks": "paused",
        }
        mine = rows["dispatcher"]
        assert (mine["name"], mine["queueSize"], mine["processing"]) == ("dispatcher@here", 1, 1)
        assert (mine["completed"], mine["failed"], mine["throughput"]) == (20, 3, 12.3)
        assert mine["memory"] == 1000
        assert mine["started"] < mine["lastHeartbeat"]
        assert rows["stats"]["queueSize"] is None


async def test_a_process_that_is_lost_is_shown_for_an_hour(gateway: Gateway) -> None:
    await a_worker(gateway, name="dispatcher@shown", ago=timedelta(minutes=59))
    await a_worker(gateway, name="dispatcher@past", ago=timedelta(minutes=61))
    operator = await gateway.operator()
    assert [row["name"] for row in (await operator.get(PATH)).data] == ["dispatcher@shown"]
    assert (await told(operator, "restart", "dispatcher@past")).status == 404


async def test_an_administrator_sees_what_waits_of_their_own_and_no_process(
    gateway: Gateway,
) -> None:
    ada, account = await gateway.register("ada@example.com")
    bob, _ = await gateway.register("bob@example.com")
    tenant = account["organization"]["id"]
    instance = await an_instance(gateway.sql, tenant)
    for status in ("queued", "retrying", "sent"):
        await a_message_row(gateway.sql, tenant, instance, status=status)
    await gateway.sql.execute(
        "INSERT INTO stats.daily_counters VALUES ($1, $2, $3, 'failed', 4)",
        tenant,
        gateway.clock.now().date(),
        instance,
    )
    await a_worker(gateway)
    for who, waiting, failed in ((ada, 2, 4), (bob, 0, 0)):
        rows = {row["name"]: row for row in (await who.get(PATH)).data}
        assert set(rows) == {"dispatcher", "sessions", "webhooks"}
        mine = rows["dispatcher"]
        assert (mine["queueSize"], mine["processing"], mine["failed"]) == (waiting, 0, failed)
        assert (mine["state"], rows["webhooks"]["state"]) == ("running", "lost")
        for hidden in ("started", "lastHeartbeat", "completed", "throughput", "memory"):
            assert mine[hidden] is None
    assert (await told(ada, "restart")).code == "FORBIDDEN"
    assert (await gateway.stranger().get(PATH)).status == 401


async def test_what_is_wanted_of_all_counts_for_each(gateway: Gateway) -> None:
    operator = await gateway.operator()
    name = await a_worker(gateway)
    await a_worker(gateway, "webhooks")
    await a_worker(gateway, "gateway", pausable=False)
    one = await told(operator, "pause", name)
    assert (one.status, one.data) == (202, {"action": "pause", "workers": [name]})
    assert (await orders(gateway))["dispatcher", name]["paused"] is True
    everybody = await told(operator, "resume")
    assert everybody.data["workers"] == [name, "webhooks@here"]
    wanted = await orders(gateway)
    assert wanted["dispatcher", name]["paused"] is None
    assert wanted["dispatcher", ""]["paused"] is False
    assert ("gateway", "") not in wanted


@pytest.mark.parametrize(
    ("action", "column"), [("restart", "restart_at"), ("clear_failed", "cleared_at")]
)
async def test_a_service_is_told_as_a_whole(gateway: Gateway, action: str, column: str) -> None:
    operator = await gateway.operator()
    await a_worker(gateway, name="dispatcher@one")
    await a_worker(gateway, name="dispatcher@two")
    answer = await told(operator, action, "dispatcher")
    assert answer.data["workers"] == ["dispatcher@one", "dispatcher@two"]
    first = (await orders(gateway))["dispatcher", ""][column]
    assert first is not None
    await told(operator, action, "dispatcher")
    assert (await orders(gateway))["dispatcher", ""][column] > first


async def test_orders_that_nobody_could_follow_are_refused(gateway: Gateway) -> None:
    operator = await gateway.operator()
    await a_worker(gateway, "stats", pausable=False, restartable=False)
    for action, worker, status in (
        ("pause", "stats", 409),
        ("restart", "stats@here", 409),
        ("pause", "stats@nowhere", 404),
        ("pause", "post office", 404),
        ("burn", None, 422),
        ("pause", "", 422),
    ):
        assert (await told(operator, action, worker)).status == status, (action, worker)
    assert await orders(gateway) == {}
