"""The way out of a linked device: its own proxy, or one of a pool that it keeps."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.sessions.engines.port import Connected, Hindered
from shared.errors import Rejected
from tests.support.linked_devices import Town, environment


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
