"""Those who call in the tests of the whole surface: an administrator, an instance key, an operator,
and a tenant that none of them may ever hear of.
"""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
import asyncpg

from services.gateway.domain.team import PLATFORM
from tests.support.customer import Customer
from tests.support.system import System

PASSWORD = "an example passphrase"


@dataclass(frozen=True)
class Callers:
    """Headers that show a credential, by who shows it; words that only a stranger's data hold.

    ``strangers`` is the id of the organization that ``stranger`` calls for.
    """

    headers: dict[str, dict[str, str]]
    stranger: dict[str, str]
    strangers: str
    spare: dict[str, str]
    instance: str
    foreign: tuple[str, ...]


@asynccontextmanager
async def called(system: System) -> AsyncIterator[Callers]:
    """Accounts in a running system."""
    async with Customer.of(system.url) as admin, Customer.of(system.url) as stranger:
        instance = await admin.instance()
        marks = tuple(f"foreign-{secrets.token_hex(8)}" for _ in range(2))
        hidden = await stranger.post("/api/instances", {"name": marks[0], "engine": "sandbox"})
        await stranger.call("PUT", "/api/organization", json={"name": marks[1]})
        operator = await _operator(system, stranger)
        yield Callers(
            headers={
                "admin": admin.headers,
                "key": {"X-API-Key": instance["key"]},
                "operator": operator,
            },
            stranger=stranger.headers,
            strangers=(await stranger.get("/api/organization")).data["id"],
            spare=await _spare(stranger),
            instance=instance["id"],
            foreign=(*marks, hidden.data["id"]),
        )


async def _spare(anybody: Customer) -> dict[str, str]:
    """An account for what ends a login."""
    login = {"email": f"{secrets.token_hex(8)}@example.com", "password": PASSWORD}
    (await anybody.post("/api/auth/register", {**login, "name": "Spare"})).data  # noqa: B018 - asserts success
    return login


async def _operator(system: System, anybody: Customer) -> dict[str, str]:
    email = f"{secrets.token_hex(8)}@example.com"
    login = {"email": email, "password": PASSWORD}
    (await anybody.post("/api/auth/register", {**login, "name": "Grace"})).data  # noqa: B018 - asserts success
    sql = await asyncpg.connect(system.database_url)
    try:
        await sql.execute(
            "INSERT INTO gateway.organizations (id, name, timezone, plan, created_at)"
            " VALUES ($1, 'Platform', 'UTC', 'basic', now()) ON CONFLICT DO NOTHING",
            PLATFORM,
        )
        await sql.execute(
            "UPDATE gateway.users SET role = 'operator', tenant_id = $2 WHERE email = $1",
            email,
            PLATFORM,
        )
    finally:
        await sql.close()
    async with aiohttp.ClientSession() as http:
        answer = await Customer(http, system.url).post("/api/auth/login", login)
    return {"Authorization": f"Bearer {answer.data['token']}"}
