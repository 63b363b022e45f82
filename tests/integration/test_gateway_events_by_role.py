"""Who is told of which events: by the log, while waiting, and live; also when that changes."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest

from services.gateway.domain.access import Needs
from shared.contracts.envelope import Emitted
from tests.support.customer import Answer
from tests.support.events import an_event, publish
from tests.support.eventually import eventually
from tests.support.gateway import Gateway
from tests.support.houses import BESIDE, Builder, Caller, House
from tests.support.live import LiveClient
from tests.support.matrix import WHO


@dataclass
class Street:
    """Two houses, and everybody who calls for one of them."""

    gateway: Gateway
    house: House
    other: House
    operator: Caller

    def caller(self, name: str) -> Caller:
        """Somebody of the first house."""
        return next(one for one in self.house.callers if one.name == name)

    async def tell(self, instance: UUID | None, house: House | None = None) -> Emitted:
        """Something happens."""
        emitted = an_event((house or self.house).tenant, instance)
        await publish(self.gateway.broker, emitted)
        return emitted

    async def assign(self, who: Caller, instance: UUID, *, method: str = "POST") -> None:
        """Let an administrator give somebody an instance, or take it (``DELETE``)."""
        path = f"/api/team/members/{who.user_id}/instances/{instance}"
        answer = await self.caller("admin").customer.call(method, path)
        assert answer.status == 200, answer.body

    async def waiting(self, who: Caller, after: str) -> "asyncio.Task[Answer]":
        """A request that waits for events."""
        before = self.gateway.waiting()
        asking = asyncio.create_task(
            who.customer.get(f"/api/events?wait=30&after={after}"), name="waiting for events"
        )

        async def waits() -> bool:
            return self.gateway.waiting() == before + 1

        await eventually(waits)
        return asking


@pytest.fixture
async def street(gateway: Gateway) -> Street:
    builder = Builder(gateway)
    house, other = await builder.house("one"), await builder.house("two")
    [operator, *_] = (await builder.platform()).callers
    return Street(gateway, house, other, operator)


def ids(answer: Answer) -> list[str]:
    return [one["id"] for one in answer.data]


async def head(who: Caller) -> str:
    """A cursor to what happens from now on."""
    cursor: str = (await who.customer.get("/api/events")).body["pagination"]["nextCursor"]
    return cursor


def may_see(caller: Caller, house: House, emitted: Emitted) -> bool:
    """As the contract has it: people see all instances or those assigned, a key sees its own."""
    if emitted.tenant_id != house.tenant:
        return False
    if caller.role in {"admin", "manager"}:
        return True
    if caller.name.endswith("viewer without assignment"):
        return False
    return emitted.instance_id == (house.instance if caller.sees else house.other)


async def test_everybody_reads_the_events_of_what_they_see_and_no_others(street: Street) -> None:
    after = await head(street.caller("admin"))
    told = [
        await street.tell(instance, house)
        for house in (street.house, street.other)
        for instance in (house.instance, house.other, None)
    ]
    read = WHO[Needs.READ]
    asked = 0
    for house in (street.house, street.other):
        for caller in house.callers:
            if caller.out or (caller.grants is not None and read.key not in caller.grants):
                continue
            asked += 1
            expected = [str(one.id) for one in told if may_see(caller, house, one)]
            got = await caller.customer.get(f"/api/events?after={after}")
            assert ids(got) == expected, f"{caller.name} of {house.tenant}"
            for instance in (house.instance, house.other):
                named = [str(one.id) for one in told if one.instance_id == instance]
                got = await caller.customer.get(f"/api/events?after={after}&instanceId={instance}")
                assert ids(got) == [one for one in expected if one in named], caller.name
    assert asked > 20
    assert ids(await street.operator.customer.get(f"/api/events?after={after}")) == []


async def test_whoever_waits_is_woken_by_what_they_see_alone(street: Street) -> None:
    agent, house = street.caller("agent"), street.house
    waiting = await street.waiting(agent, await head(agent))
    await street.tell(house.other)
    await street.tell(None)
    await street.tell(street.other.instance, street.other)
    seen = await street.tell(house.instance)
    assert ids(await waiting) == [str(seen.id)]


@pytest.mark.parametrize("name", ["agent", "viewer", "user key of agent"])
async def test_who_loses_an_instance_while_waiting_is_not_told_of_it(
    street: Street, name: str
) -> None:
    agent, house = street.caller(name), street.house
    await street.assign(agent, house.other)
    waiting = await street.waiting(agent, await head(agent))
    await street.assign(agent, house.instance, method="DELETE")
    await street.tell(house.instance)
    seen = await street.tell(house.other)
    assert ids(await waiting) == [str(seen.id)]


async def test_who_is_let_go_while_waiting_is_told_nothing(street: Street) -> None:
    agent = street.caller("agent")
    waiting = await street.waiting(agent, await head(agent))
    path = f"/api/team/members/{agent.user_id}"
    gone = await street.caller("admin").customer.call("PUT", path, json={"active": False})
    assert gone.status == 200
    await street.tell(street.house.instance)
    answer = await waiting
    assert (answer.status, answer.code) == (401, "UNAUTHORIZED")


async def test_an_assignment_counts_from_the_next_request_on(street: Street) -> None:
    agent, house = street.caller(BESIDE), street.house
    after = await head(agent)
    first, beside = await street.tell(house.instance), await street.tell(house.other)
    assert ids(await agent.customer.get(f"/api/events?after={after}")) == [str(beside.id)]
    await street.assign(agent, house.instance)
    both = [str(first.id), str(beside.id)]
    assert ids(await agent.customer.get(f"/api/events?after={after}")) == both
    await street.assign(agent, house.other, method="DELETE")
    assert ids(await agent.customer.get(f"/api/events?after={after}")) == [str(first.id)]


def auth(caller: Caller, **more: Any) -> dict[str, Any]:
    token = caller.customer.headers.get("Authorization", "").removeprefix("Bearer ")
    return {"token": token or caller.customer.headers["X-API-Key"], **more}


async def test_live_clients_hear_what_they_see_and_no_more(street: Street) -> None:
    house = street.house
    names = ("admin", "agent", "viewer", BESIDE, "viewer without assignment")
    async with AsyncExitStack() as stack:
        clients = {
            name: await stack.enter_async_context(
                LiveClient.connected(street.gateway.url, auth(street.caller(name)))
            )
            for name in names
        }
        told = [
            await street.tell(house.instance),
            await street.tell(house.other),
            await street.tell(None),
            await street.tell(street.other.instance, street.other),
        ]
        # The last that is for all who see anything: behind it there is nothing on its way.
        last = [await street.tell(house.instance), await street.tell(house.other)]
        for name, client in clients.items():
            seen = [one for one in [*told, *last] if may_see(street.caller(name), house, one)]
            for one in seen:
                assert (await client.event())["id"] == str(one.id), name
            assert client.heard() == [], name
        denied = await clients["agent"].say("subscribe", {"instances": [str(house.other)]})
        unknown = await clients["agent"].say("subscribe", {"instances": [str(house.tenant)]})
        assert denied["error"]["code"] == unknown["error"]["code"] == "NOT_FOUND"


async def test_a_live_client_that_loses_an_instance_connects_again_without_it(
    street: Street,
) -> None:
    agent, house = street.caller("agent"), street.house
    async with LiveClient.connected(street.gateway.url, auth(agent)) as client:
        await street.assign(agent, house.other)
        assert (await client.event("closing"))["code"] == "SCOPE_CHANGED"
        await client.next("connect")
        await street.assign(agent, house.instance, method="DELETE")
        assert (await client.event("closing"))["code"] == "SCOPE_CHANGED"
        await client.next("connect")
        await street.tell(house.instance)
        seen = await street.tell(house.other)
        assert (await client.event())["id"] == str(seen.id)
        after = await head(street.caller("admin"))
        await street.tell(house.instance)
        with_cursor = auth(agent, after=after)
        async with LiveClient.connected(street.gateway.url, with_cursor) as again:
            last = await street.tell(house.other)
            assert (await again.event())["id"] == str(last.id)
