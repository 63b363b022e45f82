"""Two organizations alike in everything, and everybody who might call for one of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from services.gateway.domain.permissions import KeyPermission
from services.gateway.domain.team import PLATFORM
from shared.ids import new_id
from shared.security.tokens import AccessTokens, KeyKind, issue_key
from tests.support.builders import NOON, a_message_row, an_instance, an_organization
from tests.support.customer import Customer
from tests.support.events import an_event, publish
from tests.support.gateway import ALL, SECRET, Gateway

LATER: Final = datetime(2036, 1, 1, tzinfo=UTC)
PICTURE: Final = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA"
    "60e6kgAAAABJRU5ErkJggg=="
)
GROUP: Final = "120363000000000001@g.us"
BESIDE: Final = "agent of the other instance"


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Somebody who calls. ``role`` is a person's; ``grants`` what an instance key may.

    ``sees`` says whether the first instance of their organization is theirs to see. ``out`` is how
    everything is answered to whom nothing is open at all.
    """

    name: str
    customer: Customer
    role: str | None = None
    login: bool = False
    grants: frozenset[str] | None = None
    sees: bool = True
    user_id: UUID | None = None
    foreign: bool = False
    out: int | None = None


@dataclass
class House:
    """An organization with two instances; everything that a request can name is the first one's."""

    tenant: UUID
    instance: UUID
    other: UUID
    callers: list[Caller] = field(default_factory=list)
    people: dict[str, UUID] = field(default_factory=dict)
    named: dict[str, str] = field(default_factory=dict)

    def marks(self) -> set[str]:
        """What of this organization nobody else may ever see."""
        mine = {self.tenant, self.instance, self.other, *self.people.values()}
        return {str(one) for one in mine} | {
            value for name, value in self.named.items() if name != "group"
        }


class Builder:
    """Fills a gateway's database with houses and platform people."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._houses = 0
        self._tokens = AccessTokens(secrets=[SECRET], lifetime=timedelta(days=300))

    async def house(self, name: str) -> House:
        """A whole organization, and everybody who calls for it."""
        sql = self._gateway.sql
        tenant = await an_organization(sql, name=f"House {name}", plan="max")
        self._houses += 1
        number = f"+120255501{self._houses}"
        house = House(
            tenant,
            await an_instance(sql, tenant, phone_number=f"{number}1"),
            await an_instance(sql, tenant, phone_number=f"{number}2"),
        )
        house.named = {"sender": f"{number}1", "contact": f"{number}3"}
        for role in ("admin", "manager"):
            await self._person(house, role, role)
        for role in ("agent", "viewer"):
            await self._person(house, role, role, assigned=house.instance)
        await self._person(house, BESIDE, "agent", assigned=house.other, sees=False)
        await self._person(house, "viewer without assignment", "viewer", sees=False)
        await self._person(house, "deactivated admin", "admin", active=False, out=401)
        await sql.execute(
            "UPDATE gateway.users SET manager_id = $1 WHERE id = $2",
            house.people["manager"],
            house.people["agent"],
        )
        await self._keys(house)
        await self._things(house)
        return house

    async def platform(self) -> House:
        """Who operates it all."""
        await an_organization(self._gateway.sql, id=PLATFORM, name="Platform")
        house = House(PLATFORM, new_id(), new_id())
        await self._person(house, "operator", "operator")
        return house

    async def suspended(self) -> House:
        """An organization of which nobody gets in."""
        sql = self._gateway.sql
        tenant = await an_organization(sql, name="House suspended")
        house = House(tenant, await an_instance(sql, tenant), new_id())
        await self._person(house, "admin of a suspended house", "admin", out=403)
        customer, _ = await self._gateway.key(house.instance, tenant)
        house.callers.append(
            Caller(name="key of a suspended house", customer=customer, grants=frozenset(), out=403)
        )
        await sql.execute(
            "UPDATE gateway.organizations SET suspended_at = $2 WHERE id = $1", tenant, NOON
        )
        return house

    async def _person(
        self,
        house: House,
        name: str,
        role: str,
        *,
        assigned: UUID | None = None,
        sees: bool = True,
        active: bool = True,
        out: int | None = None,
    ) -> None:
        """A login of somebody, and a key of theirs."""
        sql, user_id, session = self._gateway.sql, new_id(), new_id()
        house.people[name] = user_id
        await sql.execute(
            "INSERT INTO gateway.users (id, tenant_id, email, name, password_hash, role, active,"
            " created_at, joined_at) VALUES ($1, $2, $3, $4, 'none', $5, $6, $7, $7)",
            user_id,
            house.tenant,
            f"{user_id.hex}@example.com",
            name,
            role,
            active,
            NOON,
        )
        await sql.execute(
            "INSERT INTO gateway.refresh_tokens (id, family_id, user_id, token_hash, created_at,"
            " expires_at) VALUES ($1, $2, $3, $4, $5, $6)",
            new_id(),
            session,
            user_id,
            session.bytes,
            NOON,
            LATER,
        )
        if assigned is not None:
            await sql.execute(
                "INSERT INTO gateway.assignments (user_id, instance_id, assigned_at)"
                " VALUES ($1, $2, $3)",
                user_id,
                assigned,
                NOON,
            )
        token = self._tokens.issue(
            user_id=user_id,
            organization_id=house.tenant,
            role=role,
            session_id=session,
            now=self._gateway.clock.now(),
        )
        caller = Caller(
            name=name,
            customer=self._gateway.with_token(token),
            role=role,
            login=True,
            sees=sees,
            user_id=user_id,
            out=out,
        )
        key = await self._user_key(house, user_id)
        house.callers += [
            caller,
            replace(caller, name=f"user key of {name}", login=False, customer=key),
        ]

    async def _user_key(self, house: House, user_id: UUID) -> Customer:
        issued, key_id = issue_key(KeyKind.USER), new_id()
        await self._gateway.sql.execute(
            "INSERT INTO gateway.user_keys (id, tenant_id, user_id, name, key_hash, hint,"
            " rate_limit, created_at, expires_at) VALUES ($1, $2, $3, 'x', $4, $5, $6, $7, $8)",
            key_id,
            house.tenant,
            user_id,
            issued.digest,
            issued.hint,
            1_000_000,
            NOON,
            LATER,
        )
        return Customer(self._gateway.http, self._gateway.url, {"X-API-Key": issued.text})

    async def _keys(self, house: House) -> None:
        """Instance keys: with everything, with nothing, and with each permission alone."""
        everything = frozenset(KeyPermission)
        wanted: Mapping[str, tuple[frozenset[str], bool]] = {
            "key with everything": (everything, True),
            "key with nothing": (frozenset(), True),
            "key of the other instance": (everything, False),
            **{f"key with {one} alone": (frozenset({one}), True) for one in KeyPermission},
        }
        for name, (grants, sees) in wanted.items():
            instance = house.instance if sees else house.other
            customer, _ = await self._gateway.key(instance, house.tenant, permissions=_map(grants))
            house.callers.append(Caller(name=name, customer=customer, grants=grants, sees=sees))

    async def _things(self, house: House) -> None:
        """What paths and bodies name."""
        sql = self._gateway.sql
        uploader = next(one for one in house.callers if one.name == "key with everything")
        media = await uploader.customer.post("/api/media", {"base64": PICTURE})
        for instance in (house.instance, house.other):
            await sql.execute(
                "INSERT INTO gateway.webhooks (id, tenant_id, instance_id, is_primary, url, events,"
                " secret, active, created_at, updated_at)"
                " VALUES ($1, $2, $3, true, 'http://127.0.0.1:9/', '{*}', 'x', true, $4, $4)",
                new_id(),
                house.tenant,
                instance,
                NOON,
            )
        house.named |= {
            "organization": str(house.tenant),
            "instance": str(house.instance),
            "message": await self._message(house),
            "media": media.data["id"],
            "member": str(house.people["agent"]),
            "manager": str(house.people["manager"]),
            "instance key": await self._id_of("instance_keys", "instance_id", house.instance),
            "user key": await self._id_of("user_keys", "user_id", house.people["manager"]),
            "group": GROUP,
            "dead letter": await self._dead_letter(house),
            "phone mapping": await self._mapping(house, "+12025550188"),
        }
        await self._more(house, uploader.customer)

    async def _more(self, house: House, uploader: Customer) -> None:
        """A second one of what is listed newest first, so that cursors lead to the first ones."""
        await self._message(house)
        (await uploader.post("/api/media", {"base64": PICTURE})).data  # noqa: B018 - asserts success
        await self._dead_letter(house)
        await self._mapping(house, "+12025550187")
        await publish(self._gateway.broker, an_event(house.tenant, house.instance))
        for _ in range(2):
            await self._gateway.sql.execute(
                "INSERT INTO gateway.audit_logs (id, at, tenant_id, actor_type, user_id, action,"
                " resource_type, resource_id, times) VALUES ($1, $2, $3, 'user', $4,"
                " 'instance.changed', 'instance', $5, 1)",
                new_id(),
                NOON,
                house.tenant,
                house.people["agent"],
                str(house.instance),
            )

    async def _message(self, house: House) -> str:
        sql, contact = self._gateway.sql, house.named["contact"].removeprefix("+")
        chat = f"{contact}@s.whatsapp.net"
        id_ = await a_message_row(sql, house.tenant, house.instance, chat=chat)
        await sql.execute(
            "UPDATE dispatcher.messages SET sender = $1 WHERE id = $2", house.named["sender"], id_
        )
        return str(id_)

    async def _dead_letter(self, house: House) -> str:
        id_ = new_id()
        await self._gateway.sql.execute(
            "INSERT INTO gateway.dead_letters (id, queue, message_id, kind, type, tenant_id,"
            " reason, why, size, times, first_died_at, died_at, sealed) VALUES ($1,"
            " 'gateway.events', $2, 'event', 'test', $3, 'rejected', 'a test', 1, 1, $4, $4, 'x')",
            id_,
            new_id(),
            house.tenant,
            NOON,
        )
        return str(id_)

    async def _mapping(self, house: House, number: str) -> str:
        id_ = new_id()
        await self._gateway.sql.execute(
            "INSERT INTO gateway.phone_mappings (id, tenant_id, instance_id, phone_number, user_id,"
            " created_at) VALUES ($1, $2, $3, $4, $5, $6)",
            id_,
            house.tenant,
            house.instance,
            number,
            house.people["agent"],
            NOON,
        )
        return str(id_)

    async def _id_of(self, table: str, column: str, value: UUID) -> str:
        found = await self._gateway.sql.fetchval(
            f"SELECT id FROM gateway.{table} WHERE {column} = $1 ORDER BY id LIMIT 1", value
        )
        return str(found)


def _map(grants: frozenset[str]) -> dict[str, Any]:
    return {
        group: {name: f"{group}.{name}" in grants for name in members}
        for group, members in ALL.items()
    }
