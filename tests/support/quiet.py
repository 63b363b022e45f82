"""Waiting until a system has nothing left to do."""

from datetime import timedelta

import asyncpg

from tests.support.eventually import eventually
from tests.support.invariants import violations

_BUSY = {
    "messages": "SELECT count(*) FROM dispatcher.messages WHERE status IN"
    " ('scheduled', 'queued', 'sending', 'retrying', 'unconfirmed')",
    "stanzas": "SELECT count(*) FROM sessions.sandbox_stanzas",
    "outboxes": "SELECT (SELECT count(*) FROM gateway.outbox)"
    " + (SELECT count(*) FROM dispatcher.outbox) + (SELECT count(*) FROM sessions.outbox)"
    " + (SELECT count(*) FROM webhooks.outbox)",
    "deliveries": "SELECT count(*) FROM webhooks.deliveries WHERE state IN ('pending', 'claimed')",
}


async def quiet(database_url: str, *, within: timedelta = timedelta(seconds=60)) -> None:
    """Return once nothing is under way; then what is counted and logged has a moment to settle."""
    sql = await asyncpg.connect(database_url)
    try:

        async def idle() -> bool:
            busy = {name: await sql.fetchval(query) for name, query in _BUSY.items()}
            assert not any(busy.values()), busy
            return True

        await eventually(idle, within=within, every=timedelta(milliseconds=250))
    finally:
        await sql.close()


async def all_guarantees_hold(database_url: str) -> None:
    """Every invariant, once consumers that are a moment behind have caught up."""

    async def hold() -> bool:
        broken = {name: found for name, found in (await violations(database_url)).items() if found}
        assert not broken, broken
        return True

    await eventually(hold, within=timedelta(seconds=20), every=timedelta(milliseconds=500))
