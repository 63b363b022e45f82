"""Who counts on a file that came with a message, whatever happens at the same time."""

import asyncio
from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from services.gateway.store import media
from services.gateway.store.media import NewMedia
from shared.ids import new_id
from tests.support.eventually import eventually
from tests.support.gateway import Gateway, Sender


def a_file(sender: Sender, *, held: bool = True) -> NewMedia:
    return NewMedia(
        id=new_id(),
        tenant_id=sender.tenant,
        instance_id=sender.instance,
        uploaded_by=None,
        sha256="0" * 64,
        size=1,
        mime_type="image/png",
        filename=None,
        created_at=datetime.now(UTC),
        held=held,
    )


async def let_go(tx: AsyncConnection, new: NewMedia) -> None:
    await media.let_go(tx, new.tenant_id, new.id, now=new.created_at)


async def there(gateway: Gateway, new: NewMedia) -> bool:
    found = await gateway.sql.fetchval("SELECT deleted_at FROM gateway.media WHERE id = $1", new.id)
    return found is None


async def test_a_file_goes_with_the_last_who_holds_it(gateway: Gateway, sender: Sender) -> None:
    new = a_file(sender)
    async with gateway.database.tx() as tx:
        assert await media.add(tx, new)
        assert not await media.add(tx, new)
        await let_go(tx, new)
    assert await there(gateway, new)
    async with gateway.database.tx() as tx:
        await let_go(tx, new)
    assert not await there(gateway, new)
    async with gateway.database.tx() as tx:
        assert await media.add(tx, new)
        assert not await media.name(tx, new.tenant_id, new_id())
        await let_go(tx, new)
        assert not await media.name(tx, new.tenant_id, new.id)


async def test_who_brings_a_file_that_is_being_let_go_holds_it_all_the_same(
    gateway: Gateway, sender: Sender
) -> None:
    new = a_file(sender)
    async with gateway.database.tx() as tx:
        await media.add(tx, new)

    async def again() -> bool:
        async with gateway.database.tx() as tx:
            return await media.add(tx, new)

    async def leave() -> None:
        async with gateway.database.tx() as tx:
            await let_go(tx, new)

    async with asyncio.TaskGroup() as tasks, gateway.database.tx() as tx:
        await let_go(tx, new)
        added = tasks.create_task(again(), name="again")
        await waiting(gateway)
    assert added.result(), "what was gone came back"
    assert await there(gateway, new)
    async with asyncio.TaskGroup() as tasks, gateway.database.tx() as tx:
        assert not await media.add(tx, new)
        tasks.create_task(leave(), name="leave")
        await waiting(gateway)
    assert await there(gateway, new)


async def test_a_file_that_was_uploaded_by_itself_or_named_stays(
    gateway: Gateway, sender: Sender
) -> None:
    uploaded, named = a_file(sender, held=False), a_file(sender)
    async with gateway.database.tx() as tx:
        await media.add(tx, uploaded)
        await media.add(tx, named)
        assert await media.name(tx, named.tenant_id, named.id)
        for new in (uploaded, named):
            await media.add(tx, new)
            await let_go(tx, new)
            await let_go(tx, new)
    assert await there(gateway, uploaded)
    assert await there(gateway, named)


async def waiting(gateway: Gateway) -> None:
    """Return once somebody waits for a row that another transaction has changed."""

    async def blocked() -> bool:
        found: int = await gateway.sql.fetchval(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return found > 0

    await eventually(blocked)
