"""Teams: who is in an organization, how they come in, and which instances they see."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, Uuid, case, cast, delete, func, select, update
from sqlalchemy.dialects.postgresql import ARRAY, aggregate_order_by, array
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.gateway.domain.permissions import Role
from services.gateway.store import accounts
from shared.db.tables.gateway import (
    AssignmentRow,
    InstanceRow,
    InvitationRow,
    PhoneMappingRow,
    RefreshTokenRow,
    UserKeyRow,
    UserRow,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A person as their organization knows them.

    ``joined`` once they have accepted; ``invited_until`` while a token waits to be exchanged for a
    password.
    """

    id: UUID
    email: str
    name: str
    role: str
    active: bool
    joined: bool
    manager_id: UUID | None
    invited_until: datetime | None
    created_at: datetime
    instances: list[UUID]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Whom to list. ``manager``: only that one's people, and themselves."""

    manager: UUID | None = None
    role: str | None = None
    active: bool | None = None


_NAMES = tuple(Member.__dataclass_fields__)
_instances = (
    select(func.array_agg(aggregate_order_by(AssignmentRow.instance_id, AssignmentRow.instance_id)))
    .join(InstanceRow, InstanceRow.id == AssignmentRow.instance_id)
    .where(AssignmentRow.user_id == UserRow.id, InstanceRow.deleted_at.is_(None))
    .scalar_subquery()
)
_NO_INSTANCES = cast(array([]), ARRAY(Uuid))
_has_logged_in = select(RefreshTokenRow.id).where(RefreshTokenRow.user_id == UserRow.id).exists()
_COLUMNS = (
    UserRow.id,
    UserRow.email,
    UserRow.name,
    UserRow.role,
    UserRow.active,
    UserRow.joined_at.is_not(None) | UserRow.password_hash.is_not(None) | _has_logged_in,
    UserRow.manager_id,
    InvitationRow.expires_at,
    UserRow.created_at,
    func.coalesce(_instances, _NO_INSTANCES),
)
_MEMBERS = select(*_COLUMNS).outerjoin(InvitationRow, InvitationRow.user_id == UserRow.id)


async def find(
    tx: AsyncConnection, tenant_id: UUID, user_id: UUID, *, manager: UUID | None = None
) -> Member | None:
    """One of an organization's people; with ``manager`` only if that is theirs, or themselves."""
    query = _MEMBERS.where(UserRow.id == user_id, *_visible(tenant_id, manager))
    row = (await tx.execute(query)).first()
    return None if row is None else Member(**dict(zip(_NAMES, row, strict=True)))


async def page(
    tx: AsyncConnection, tenant_id: UUID, wanted: Wanted, *, after: UUID | None, limit: int
) -> list[Member]:
    """An organization's people, newest first."""
    query = (
        _MEMBERS.where(*_visible(tenant_id, wanted.manager))
        .order_by(UserRow.id.desc())
        .limit(limit)
    )
    if wanted.role is not None:
        query = query.where(UserRow.role == wanted.role)
    if wanted.active is not None:
        query = query.where(UserRow.active == wanted.active)
    if after is not None:
        query = query.where(UserRow.id < after)
    return [Member(**dict(zip(_NAMES, row, strict=True))) for row in await tx.execute(query)]


async def change(tx: AsyncConnection, user_id: UUID, changes: Mapping[str, object]) -> None:
    """Store what has changed."""
    if changes:
        await tx.execute(update(UserRow).where(UserRow.id == user_id).values(**changes))


async def others(tx: AsyncConnection, tenant_id: UUID, role: Role, *, than: UUID) -> int:
    """How many others of this role could log in now; the organization must be locked."""
    found = await tx.execute(
        select(func.count())
        .select_from(UserRow)
        .where(
            UserRow.tenant_id == tenant_id,
            UserRow.role == role,
            UserRow.active,
            UserRow.password_hash.is_not(None),
            UserRow.id != than,
        )
    )
    return found.scalar_one()


async def forget(tx: AsyncConnection, user_id: UUID) -> None:
    """Delete somebody who never came, with all that was meant for them."""
    await tx.execute(delete(PhoneMappingRow).where(PhoneMappingRow.user_id == user_id))
    await tx.execute(delete(UserRow).where(UserRow.id == user_id))


async def forget_password(tx: AsyncConnection, user_id: UUID) -> None:
    """Leave somebody without a password; who had one is remembered as having joined.

    Gateways of before there were invitations still write users who have only a password.
    """
    joined_at = case(
        (UserRow.password_hash.is_not(None), func.coalesce(UserRow.joined_at, UserRow.created_at)),
        else_=UserRow.joined_at,
    )
    await tx.execute(
        update(UserRow).where(UserRow.id == user_id).values(password_hash=None, joined_at=joined_at)
    )


async def end_logins(tx: AsyncConnection, user_id: UUID, *, now: datetime) -> int:
    """End all logins of somebody, and any invitation; returns how many tokens stopped working."""
    await accounts.user(tx, user_id, lock=True)
    ended = await tx.execute(
        update(RefreshTokenRow)
        .where(RefreshTokenRow.user_id == user_id, RefreshTokenRow.revoked_at.is_(None))
        .values(revoked_at=now)
    )
    await tx.execute(delete(InvitationRow).where(InvitationRow.user_id == user_id))
    return ended.rowcount


async def end_keys(tx: AsyncConnection, user_id: UUID, *, now: datetime) -> int:
    """Revoke all keys of somebody; returns how many."""
    await accounts.user(tx, user_id, lock=True)
    ended = await tx.execute(
        update(UserKeyRow)
        .where(UserKeyRow.user_id == user_id, UserKeyRow.revoked_at.is_(None))
        .values(revoked_at=now)
    )
    return ended.rowcount


async def invite(
    tx: AsyncConnection, user_id: UUID, *, digest: bytes, now: datetime, expires_at: datetime
) -> None:
    """Store by what somebody gets to choose a password; what they had for that is void."""
    values = {"token_hash": digest, "created_at": now, "expires_at": expires_at}
    await tx.execute(
        upsert(InvitationRow)
        .values(user_id=user_id, **values)
        .on_conflict_do_update(index_elements=[InvitationRow.user_id], set_=values)
    )


async def address_of_invited(tx: AsyncConnection, digest: bytes, *, now: datetime) -> str | None:
    """The address of whoever may choose a password by this token."""
    found = await tx.execute(
        select(UserRow.email)
        .join(InvitationRow, InvitationRow.user_id == UserRow.id)
        .where(InvitationRow.token_hash == digest, InvitationRow.expires_at > now)
    )
    return found.scalar_one_or_none()


async def invited(tx: AsyncConnection, digest: bytes, *, now: datetime) -> UUID | None:
    """Who may choose a password by this token, used up hereby: of two at once, one gets it."""
    row = (
        await tx.execute(
            delete(InvitationRow)
            .where(InvitationRow.token_hash == digest, InvitationRow.expires_at > now)
            .returning(InvitationRow.user_id)
        )
    ).first()
    return None if row is None else row[0]


async def assign(
    tx: AsyncConnection, user_id: UUID, instance_id: UUID, *, by: UUID | None, now: datetime
) -> bool:
    """Let somebody see an instance; false if they do already."""
    added = await tx.execute(
        upsert(AssignmentRow)
        .values(user_id=user_id, instance_id=instance_id, assigned_by=by, assigned_at=now)
        .on_conflict_do_nothing()
        .returning(AssignmentRow.user_id)
    )
    return added.first() is not None


async def unassign(tx: AsyncConnection, user_id: UUID, instance_id: UUID) -> bool:
    """Let somebody see an instance no longer; false if they did not."""
    gone = await tx.execute(
        delete(AssignmentRow).where(
            AssignmentRow.user_id == user_id, AssignmentRow.instance_id == instance_id
        )
    )
    return gone.rowcount > 0


def _visible(tenant_id: UUID, manager: UUID | None) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = [UserRow.tenant_id == tenant_id]
    if manager is not None:
        conditions.append((UserRow.manager_id == manager) | (UserRow.id == manager))
    return conditions
