"""The way out of a linked device: its own proxy, or one of a pool that it keeps."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from services.sessions.engines.port import Connected, Disconnected, Hindered
from shared.errors import Rejected
from tests.support.eventually import eventually
from tests.support.linked_devices import CONTACT, Town, environment, words
from tests.support.proxies import silent
from tests.support.sink import PATIENCE


@pytest.fixture
async def town(database_url: str, tmp_path: Path) -> AsyncIterator[Town]:
    async with Town.running(database_url, tmp_path) as made:
        yield made


def working(town: Town, user: str = "") -> str:
    return f"http://{user}127.0.0.1:{town.whatsapp.ready.proxy}"


def directly(town: Town) -> dict[str, str]:
    """An environment without a proxy."""
    return {k: v for k, v in environment(town.whatsapp).items() if k != "HTTPS_PROXY"}


async def test_a_session_goes_through_its_own_proxy(town: Town) -> None:
    async with town.engine(environment=directly(town)) as engine:
        await town.opened(engine, proxy=working(town, "alice:secret@"))
        asked = await town.whatsapp.happenings("proxied", user="alice")
        assert asked[0]["target"] == "web.whatsapp.com:443"


async def test_a_device_is_linked_by_its_own_proxy_among_its_tenants_alone(town: Town) -> None:
    async with town.engine() as engine:
        await town.opened(engine)
        (shared,) = engine.processes
        opening = await town.opened(engine, proxy=working(town, "alice:secret@"))
        same = await town.opening(proxy=working(town))
        await engine.open(replace(same, tenant_id=opening.tenant_id))
        await town.sink.first(Connected, same.instance_id)
        assert len(engine.processes) == 2
        # From the next time on they are among the others, and their worker goes with the last.
        for one in (opening, same):
            await engine.close(one.instance_id)
        await engine.open(opening)
        await town.sink.nth(Connected, opening.instance_id, 2)

        async def together() -> bool:
            return list(engine.processes) == [shared]

        await eventually(together)


@pytest.mark.parametrize("known", [False, True], ids=["to-be-linked", "linked"])
async def test_a_tenants_proxy_that_stalls_holds_up_nobody_else(town: Town, *, known: bool) -> None:
    """It has agreed to connect, and then nothing comes any more."""
    async with silent(agrees=True) as proxy, town.engine() as engine:
        neighbour = await town.opened(engine)
        (shared,) = engine.processes
        stalled = await (town.opened(engine) if known else town.opening())
        await engine.close(stalled.instance_id)
        stalled = replace(stalled, proxy=proxy.url)
        await engine.open(stalled)
        await proxy.counted_on(PATIENCE)
        # Whoever comes and goes meanwhile does so as if nothing were the matter.
        other = await town.opened(engine)
        async with asyncio.timeout(PATIENCE / 3):
            await engine.close(other.instance_id)
            await engine.close(stalled.instance_id)
        await town.contact()
        await engine.transmit(neighbour.instance_id, words(CONTACT))
        assert shared in engine.processes
        assert town.sink.of(Disconnected, neighbour.instance_id) == []


async def test_a_proxy_that_does_not_lead_to_whatsapp_never_gets_to_a_worker(town: Town) -> None:
    async with silent(agrees=False) as proxy, town.engine() as engine:
        opening = await town.opening(proxy=proxy.url)
        await engine.open(opening)
        hindered = await town.sink.first(Hindered, opening.instance_id)
        assert hindered.reason == "unreachable"
        assert engine.processes == []


async def test_a_device_is_unlinked_by_its_own_proxy_and_in_turn(town: Town) -> None:
    turns: list[str] = []

    async def turn() -> None:
        turns.append("login")

    async with town.engine(environment=directly(town), login=turn) as engine:
        opening = await town.opened(engine, proxy=working(town, "alice:secret@"))
        await engine.close(opening.instance_id)
        before, turns[:] = await town.whatsapp.last(), []
        await engine.forget(opening)
        assert (await town.whatsapp.phone(town.number(opening)))["devices"] == []
        await town.whatsapp.happening("proxied", after=before, user="alice")
        assert turns == ["login"]


async def test_a_proxy_inside_is_not_dialled_for_a_tenant(town: Town) -> None:
    async with town.engine(environment=directly(town), permits=lambda _: False) as engine:
        opening = await town.opening(proxy=working(town))
        await engine.open(opening)
        hindered = await town.sink.first(Hindered, opening.instance_id)
        assert hindered.reason == "unreachable"
        assert await town.whatsapp.happenings("proxied") == []


async def test_a_proxy_of_no_known_kind_is_refused_at_once(town: Town) -> None:
    async with town.engine() as engine:
        with pytest.raises(Rejected):
            await engine.open(await town.opening(proxy="ftp://proxy.example.com"))


async def test_sessions_share_the_pool_and_keep_their_proxy(town: Town) -> None:
    pool = [working(town, "one:x@"), f"http://two:x@localhost:{town.whatsapp.ready.proxy}"]
    async with town.engine(environment=directly(town), proxies=pool) as engine:
        first, _ = await town.opened(engine), await town.opened(engine)
        async with town.database.hot() as connection:
            rows = await connection.fetch(
                "SELECT instance_id, proxy, failures FROM sessions.proxies"
            )
        kept = {row["instance_id"]: row["proxy"] for row in rows}
        assert len(set(kept.values())) == 2
        assert not any("x@" in proxy for proxy in kept.values())
        await engine.close(first.instance_id)
        await engine.open(first)
        await town.sink.nth(Connected, first.instance_id, 2)
        async with town.database.hot() as connection:
            again = await connection.fetchval(
                "SELECT proxy FROM sessions.proxies WHERE instance_id = $1", first.instance_id
            )
        assert again == kept[first.instance_id]


async def test_a_session_whose_proxy_fails_gets_another(town: Town) -> None:
    pool = ["http://127.0.0.1:9", working(town)]
    async with town.engine(environment=directly(town), proxies=pool) as engine:
        opening = await town.opened(engine)
        async with town.database.hot() as connection:
            row = await connection.fetchrow("SELECT proxy, failures FROM sessions.proxies")
        assert row is not None
        assert row["proxy"] == working(town)
        assert len(town.sink.of(Hindered, opening.instance_id)) == row["failures"]
