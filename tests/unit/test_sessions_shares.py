"""Room that tenants share: who gets how much of it, who waits, and who is sent away."""

import asyncio
from contextlib import AsyncExitStack
from uuid import UUID

import pytest

from services.sessions.engines.port import Retryable
from services.sessions.shares import WAITING, Shares
from shared.ids import new_id


async def settle() -> None:
    """Let every task do what it can do now."""
    for _ in range(5):
        await asyncio.sleep(0)


class Users:
    """Tasks that take room and keep it until they are let go."""

    def __init__(self, shares: Shares) -> None:
        self.inside: list[UUID] = []
        self.refused = 0
        self.let_go = asyncio.Event()
        self.tasks: list[asyncio.Task[None]] = []
        self._shares = shares

    def come(self, tenant_id: UUID, count: int) -> None:
        self.tasks += [asyncio.create_task(self._use(tenant_id)) for _ in range(count)]

    async def _use(self, tenant_id: UUID) -> None:
        try:
            async with self._shares.room(tenant_id):
                self.inside.append(tenant_id)
                await self.let_go.wait()
        except Retryable:
            self.refused += 1


@pytest.fixture
def users() -> Users:
    return Users(Shares(16))


async def test_a_tenant_that_is_slow_leaves_room_for_others(users: Users) -> None:
    slow, other = new_id(), new_id()
    users.come(slow, 16)
    await settle()
    users.come(other, 2)
    await settle()
    assert users.inside == [slow] * 4 + [other] * 2
    users.let_go.set()
    await asyncio.gather(*users.tasks)
    assert users.inside.count(slow) == 16


async def test_all_tenants_together_have_no_more_than_there_is(users: Users) -> None:
    for _ in range(6):
        users.come(new_id(), 4)
    await settle()
    assert len(users.inside) == 16
    users.let_go.set()
    await asyncio.gather(*users.tasks)
    assert len(users.inside) == 24


async def test_there_is_an_end_to_what_waits_for_one_tenant(users: Users) -> None:
    flooding, other = new_id(), new_id()
    users.come(flooding, 4 * (1 + WAITING) + 3)
    await settle()
    assert users.refused == 3
    users.come(other, 1)
    await settle()
    assert users.inside[-1] == other
    users.let_go.set()
    await asyncio.gather(*users.tasks)
    assert users.refused == 3


async def test_who_gives_up_waiting_leaves_nothing_behind() -> None:
    shares, tenant = Shares(1), new_id()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(shares.room(tenant))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0), shares.room(tenant):
                pass
    async with asyncio.timeout(1), shares.room(tenant):
        pass
