"""The sandbox's groups: who is in them, and who may change that."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256
from typing import Final, Literal
from uuid import UUID

import orjson
from asyncpg import Record

from services.sessions.domain.addresses import PERSON, canonical, digits
from services.sessions.domain.lease import Lease
from services.sessions.engines.port import Refused
from services.sessions.engines.sandbox.numbers import First, behaviour
from services.sessions.store import fence as fences
from services.sessions.store.fence import Fence
from shared.contracts.content import Identity
from shared.contracts.questions import ChangedMember, ChangeMembers, GroupMember
from shared.contracts.questions import Group as Told
from shared.db.database import Database
from shared.errors import Fenced, Rejected
from shared.ids import new_id

GROUP: Final = "@g.us"
Role = Literal["member", "admin", "owner"]

_COLUMNS: Final = "id, name, members, invite, created_at"


class NoSuchGroup(Rejected):
    """There is no such group, or the account is not in it: WhatsApp does not tell which."""

    code = "NOT_FOUND"


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A group. ``members`` maps digits of numbers to roles; ``invite`` ends the link to join by."""

    id: str
    name: str
    members: Mapping[str, Role]
    invite: str
    created_at: datetime

    def told(self) -> Told:
        """The group as the account sees it."""
        return Told(
            id=self.id,
            name=self.name,
            created_at=self.created_at,
            size=len(self.members),
            members=tuple(
                GroupMember(
                    identity=Identity(phone=f"+{number}", chat_id=number + PERSON), role=role
                )
                for number, role in self.members.items()
            ),
        )


def founded(name: str, by: str, members: Sequence[str], *, now: datetime) -> Group:
    """A new group of ``by`` and of those who are on WhatsApp."""
    seed = new_id().int
    joined: dict[str, Role] = {
        number: "member" for one in members if (number := _joinable(one)) is not None
    }
    id_ = f"120363{seed % 10**12:012d}{GROUP}"
    return Group(
        id=id_,
        name=name,
        members={**joined, by: "owner"},
        invite=_invite(id_, ""),
        created_at=now,
    )


def changed(group: Group, asked: ChangeMembers, *, by: str) -> tuple[Group, list[ChangedMember]]:
    """The group after a change, and what became of it for each member."""
    if group.members[by] == "member":
        raise Refused("Only a group's admins may change its members.")
    members = dict(group.members)
    outcomes: list[ChangedMember] = []
    for address in asked.members:
        number = digits(address) or ""
        error = _hindrance(members, asked.change, number)
        if error is None:
            match asked.change:
                case "remove":
                    del members[number]
                case "promote":
                    members[number] = "admin"
                case "add" | "demote":
                    members[number] = "member"
        outcomes.append(ChangedMember(address=canonical(address), error=error))
    return replace(group, members=members), outcomes


def left(group: Group, by: str) -> Group:
    """The group without somebody. The first who is left runs it if nobody else does."""
    members = {number: role for number, role in group.members.items() if number != by}
    if members and set(members.values()) == {"member"}:
        members[min(members)] = "admin"
    return replace(group, members=members)


def renewed(group: Group) -> Group:
    """The group with another link to join by."""
    return replace(group, invite=_invite(group.id, group.invite))


class Groups:
    """Groups as the server keeps them: each tenant's its own."""

    def __init__(self, *, database: Database, fence: Fence) -> None:
        self._database = database
        self._fence = fence

    async def of(self, tenant_id: UUID, number: str) -> Sequence[Group]:
        """The groups that a number is in, oldest first."""
        async with self._database.hot() as connection:
            rows = await connection.fetch(
                f"""
                SELECT {_COLUMNS} FROM sessions.sandbox_groups
                WHERE tenant_id = $1 AND members ? $2 ORDER BY created_at, id
                """,  # noqa: S608 - constants of ours
                tenant_id,
                number,
            )
        return [_group(row) for row in rows]

    async def one(self, tenant_id: UUID, group_id: str, *, number: str) -> Group:
        """A group that a number is in. Raises ``NoSuchGroup``."""
        async with self._database.hot() as connection:
            row = await connection.fetchrow(
                f"SELECT {_COLUMNS} FROM sessions.sandbox_groups WHERE tenant_id = $1 AND id = $2",  # noqa: S608 - constants of ours
                tenant_id,
                group_id,
            )
        return _entered(row, number)

    async def found(self, tenant_id: UUID, group: Group, *, lease: Lease) -> None:
        """Keep a new group. Raises ``Fenced``."""
        async with self._fence.tx() as connection:
            if not await fences.hold(connection, [lease]):
                raise Fenced("Another process owns this connection now.")
            await connection.execute(
                f"""
                INSERT INTO sessions.sandbox_groups (tenant_id, {_COLUMNS})
                VALUES ($1, $2, $3, $4::jsonb, $5, $6)
                """,  # noqa: S608 - constants of ours
                tenant_id,
                group.id,
                group.name,
                orjson.dumps(group.members).decode(),
                group.invite,
                group.created_at,
            )

    async def change(
        self,
        tenant_id: UUID,
        group_id: str,
        decide: Callable[[Group], Group],
        *,
        number: str,
        lease: Lease,
    ) -> Group:
        """Change a group that a number is in. Raises ``NoSuchGroup``, or ``Fenced``."""
        async with self._fence.tx() as connection:
            if not await fences.hold(connection, [lease]):
                raise Fenced("Another process owns this connection now.")
            row = await connection.fetchrow(
                f"""
                SELECT {_COLUMNS} FROM sessions.sandbox_groups
                WHERE tenant_id = $1 AND id = $2 FOR UPDATE
                """,  # noqa: S608 - constants of ours
                tenant_id,
                group_id,
            )
            group = decide(_entered(row, number))
            await connection.execute(
                """
                UPDATE sessions.sandbox_groups SET members = $3::jsonb, invite = $4
                WHERE tenant_id = $1 AND id = $2
                """,
                tenant_id,
                group_id,
                orjson.dumps(group.members).decode(),
                group.invite,
            )
        return group


def _entered(row: Record | None, number: str) -> Group:
    group = None if row is None else _group(row)
    if group is None or number not in group.members:
        raise NoSuchGroup("The account is in no such group.")
    return group


def _group(row: Record) -> Group:
    return Group(
        id=row["id"],
        name=row["name"],
        members=orjson.loads(row["members"]),
        invite=row["invite"],
        created_at=row["created_at"],
    )


def _joinable(address: str) -> str | None:
    number = digits(address)
    return None if behaviour(number).first is First.NOT_ON_WHATSAPP else number


def _hindrance(members: Mapping[str, Role], change: str, number: str) -> str | None:
    if change == "add":
        if number in members:
            return "is in the group already"
        return "is not on WhatsApp" if _joinable(number) is None else None
    if number not in members:
        return "is not in the group"
    return "owns the group" if members[number] == "owner" else None


def _invite(group_id: str, before: str) -> str:
    return sha256(f"{group_id} {before}".encode()).hexdigest()[:22]
