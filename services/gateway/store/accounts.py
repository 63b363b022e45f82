"""Organizations, the people in them, and their refresh tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import ARRAY, Uuid, any_, delete, func, insert, literal, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.gateway.domain.auditing import SYSTEM, Entry
from services.gateway.domain.permissions import Role
from services.gateway.domain.team import PLATFORM, PLATFORM_NAME
from services.gateway.store import audit
from shared.db.tables.dispatcher import ErasureRow
from shared.db.tables.gateway import (
    AssignmentRow,
    InstanceRow,
    InvitationRow,
    OrganizationRow,
    PhoneMappingRow,
    RefreshTokenRow,
    UserRow,
)
from shared.ids import new_id


@dataclass(frozen=True, slots=True)
class Organization:
    """A tenant, and what it wants done with what its messages say."""

    id: UUID
    name: str
    timezone: str
    plan: str
    created_at: datetime
    suspended_at: datetime | None = None
    suspended_reason: str | None = None
    content_storage: str = "none"
    content_storage_since: datetime | None = None
    retention_days: int = 0
    pii_masking: bool = False


@dataclass(frozen=True, slots=True)
class User:
    """A person who signs in. Without ``password_hash`` they have yet to choose a password."""

    id: UUID
    tenant_id: UUID
    email: str
    name: str
    role: str
    active: bool
    created_at: datetime
    password_hash: str | None
    joined_at: datetime | None = None
    manager_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Person:
    """For whom a login or a user key stands, with what is true of them now.

    ``assigned`` is what they see if they do not see all. ``suspended``: their organization is;
    ``masking``: it hides numbers from some of its people.
    """

    user_id: UUID
    tenant_id: UUID
    role: str
    suspended: bool
    masking: bool
    assigned: frozenset[UUID]


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """One refresh token, as found by its digest."""

    id: UUID
    family_id: UUID
    user_id: UUID
    expires_at: datetime
    spent_at: datetime | None
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class Erasure:
    """The erasing of a history after the choice of ``since``, in messages."""

    since: datetime
    erased: int
    started_at: datetime
    finished_at: datetime | None


_USER = (
    UserRow.id,
    UserRow.tenant_id,
    UserRow.email,
    UserRow.name,
    UserRow.role,
    UserRow.active,
    UserRow.created_at,
    UserRow.password_hash,
    UserRow.joined_at,
    UserRow.manager_id,
)
_NAMES = tuple(User.__dataclass_fields__)
_ORGANIZATION = (
    OrganizationRow.id,
    OrganizationRow.name,
    OrganizationRow.timezone,
    OrganizationRow.plan,
    OrganizationRow.created_at,
    OrganizationRow.suspended_at,
    OrganizationRow.suspended_reason,
    OrganizationRow.content_storage,
    OrganizationRow.content_storage_since,
    OrganizationRow.retention_days,
    OrganizationRow.pii_masking,
)


async def add_organization(tx: AsyncConnection, organization: Organization) -> None:
    """Store a new organization."""
    await tx.execute(
        insert(OrganizationRow).values(
            id=organization.id,
            name=organization.name,
            timezone=organization.timezone,
            plan=organization.plan,
            created_at=organization.created_at,
        )
    )


async def add_operator(tx: AsyncConnection, user: User) -> bool:
    """Store somebody who operates the platform, and the platform itself if they are the first.

    Whatever ``user`` says, they belong to the platform and have that role. False if somebody has
    the address already.
    """
    await tx.execute(
        upsert(OrganizationRow)
        .values(
            id=PLATFORM,
            name=PLATFORM_NAME,
            timezone="UTC",
            plan="basic",
            created_at=user.created_at,
        )
        .on_conflict_do_nothing(index_elements=[OrganizationRow.id])
    )
    return await add_user(tx, replace(user, tenant_id=PLATFORM, role=Role.OPERATOR))


async def add_user(tx: AsyncConnection, user: User) -> bool:
    """Store a new user; false if somebody has the address already.

    An invitation that nobody has accepted in time keeps nobody else from the address. Whoever has
    ever logged in has it for good. Whose member that was reads in the audit log that they are gone.
    """
    waiting = select(InvitationRow.user_id).where(InvitationRow.expires_at > user.created_at)
    logged_in = select(RefreshTokenRow.id).where(RefreshTokenRow.user_id == UserRow.id)
    gone = await tx.execute(
        delete(UserRow)
        .where(
            UserRow.email == user.email,
            UserRow.joined_at.is_(None),
            UserRow.password_hash.is_(None),
            UserRow.id.not_in(waiting),
            ~logged_in.exists(),
            # Whoever stands for a number at an instance is deleted by their own people only.
            UserRow.id.not_in(select(PhoneMappingRow.user_id)),
        )
        .returning(UserRow.id, UserRow.tenant_id, UserRow.name, UserRow.role)
    )
    for member_id, tenant_id, name, role in gone.all():
        removed = Entry(
            id=new_id(),
            at=user.created_at,
            tenant_id=tenant_id,
            actor=SYSTEM,
            action="member.removed",
            resource_type="member",
            resource_id=str(member_id),
            before={"email": user.email, "name": name, "role": role},
        )
        await audit.add(tx, removed)
    added = await tx.execute(
        upsert(UserRow)
        .values(
            id=user.id,
            tenant_id=user.tenant_id,
            email=user.email,
            name=user.name,
            password_hash=user.password_hash,
            role=user.role,
            active=user.active,
            created_at=user.created_at,
            joined_at=user.joined_at,
            manager_id=user.manager_id,
        )
        .on_conflict_do_nothing(index_elements=[UserRow.email])
        .returning(UserRow.id)
    )
    return added.first() is not None


async def user_by_email(tx: AsyncConnection, email: str) -> User | None:
    """The user with this address, in lower case."""
    row = (await tx.execute(select(*_USER).where(UserRow.email == email))).first()
    return None if row is None else User(**dict(zip(_NAMES, row, strict=True)))


async def user(tx: AsyncConnection, user_id: UUID, *, lock: bool = False) -> User | None:
    """The user with this id; with ``lock`` their logins neither begin nor end until the commit.

    Whoever makes a token or a key for somebody, or ends them, locks the user first and looks then:
    so none can be made unseen while they are all being ended.
    """
    query = select(*_USER).where(UserRow.id == user_id)
    # Not against references to the row: those are made by whoever holds this lock.
    row = (await tx.execute(query.with_for_update(key_share=True) if lock else query)).first()
    return None if row is None else User(**dict(zip(_NAMES, row, strict=True)))


async def set_password(
    tx: AsyncConnection, user_id: UUID, password_hash: str, *, instead_of: str | None
) -> bool:
    """Store the hash of a user's password; false if it is another by now, and stays that."""
    stored = await tx.execute(
        update(UserRow)
        .where(UserRow.id == user_id, UserRow.password_hash == instead_of)
        .values(password_hash=password_hash)
    )
    return stored.rowcount > 0


async def organization(
    tx: AsyncConnection, tenant_id: UUID, *, lock: bool = False
) -> Organization | None:
    """The organization; with ``lock`` nobody else counts against its plan until the commit."""
    query = select(*_ORGANIZATION).where(OrganizationRow.id == tenant_id)
    row = (await tx.execute(query.with_for_update() if lock else query)).first()
    return None if row is None else Organization(*row)


async def update_organization(
    tx: AsyncConnection, tenant_id: UUID, changes: Mapping[str, object]
) -> None:
    """Store what has changed."""
    if changes:
        await tx.execute(
            update(OrganizationRow).where(OrganizationRow.id == tenant_id).values(**changes)
        )


async def retentions(
    tx: AsyncConnection, *, shorter_than: timedelta
) -> list[tuple[UUID, timedelta]]:
    """Tenants that keep messages for less than this, and for how long."""
    rows = await tx.execute(
        select(OrganizationRow.id, OrganizationRow.retention_days)
        .where(OrganizationRow.retention_days > 0)
        .where(OrganizationRow.retention_days < shorter_than.days)
        .order_by(OrganizationRow.id)
    )
    return [(tenant_id, timedelta(days=days)) for tenant_id, days in rows]


async def erasure(tx: AsyncConnection, tenant_id: UUID) -> Erasure | None:
    """How far the erasing of the organization's history is; ``None`` if none was begun."""
    row = (
        await tx.execute(
            select(
                ErasureRow.since, ErasureRow.erased, ErasureRow.started_at, ErasureRow.finished_at
            ).where(ErasureRow.tenant_id == tenant_id)
        )
    ).first()
    return None if row is None else Erasure(*row)


async def add_refresh_token(
    tx: AsyncConnection, token: RefreshToken, *, digest: bytes, now: datetime
) -> None:
    """Store a new refresh token."""
    await tx.execute(
        insert(RefreshTokenRow).values(
            id=token.id,
            family_id=token.family_id,
            user_id=token.user_id,
            token_hash=digest,
            created_at=now,
            expires_at=token.expires_at,
        )
    )


async def refresh_token(tx: AsyncConnection, digest: bytes) -> RefreshToken | None:
    """The token with this digest, its user locked: of two who spend it, the second sees it spent.

    And of its family none is made while that is being revoked, since whoever revokes locks too.
    """
    whose = select(RefreshTokenRow.user_id).where(RefreshTokenRow.token_hash == digest)
    user_id = (await tx.execute(whose)).scalar_one_or_none()
    if user_id is None:
        return None
    # A statement of its own: one that also looked at the token would look before it waited.
    await user(tx, user_id, lock=True)
    row = (
        await tx.execute(
            select(
                RefreshTokenRow.id,
                RefreshTokenRow.family_id,
                RefreshTokenRow.user_id,
                RefreshTokenRow.expires_at,
                RefreshTokenRow.spent_at,
                RefreshTokenRow.revoked_at,
            ).where(RefreshTokenRow.token_hash == digest)
        )
    ).first()
    return None if row is None else RefreshToken(*row)


async def spend_refresh_token(tx: AsyncConnection, token_id: UUID, *, now: datetime) -> None:
    """Mark a token as used up."""
    await tx.execute(
        update(RefreshTokenRow).where(RefreshTokenRow.id == token_id).values(spent_at=now)
    )


async def stands(tx: AsyncConnection, family_id: UUID) -> bool:
    """Whether a login has not been ended."""
    query = select(RefreshTokenRow.id).where(
        RefreshTokenRow.family_id == family_id, RefreshTokenRow.revoked_at.is_(None)
    )
    return (await tx.execute(query.limit(1))).first() is not None


async def revoke_family(
    tx: AsyncConnection, family_id: UUID, *, user_id: UUID, now: datetime
) -> None:
    """End a login: none of its tokens works any more, nor one that is just being made."""
    await user(tx, user_id, lock=True)
    await tx.execute(
        update(RefreshTokenRow)
        .where(RefreshTokenRow.family_id == family_id, RefreshTokenRow.revoked_at.is_(None))
        .values(revoked_at=now)
    )


async def revoke_other_families(
    tx: AsyncConnection, user_id: UUID, *, keep: UUID | None, now: datetime
) -> list[UUID]:
    """End all logins of a user but one; returns those that ended."""
    await user(tx, user_id, lock=True)
    revoked = await tx.execute(
        update(RefreshTokenRow)
        .where(
            RefreshTokenRow.user_id == user_id,
            RefreshTokenRow.family_id.is_distinct_from(keep),
            RefreshTokenRow.revoked_at.is_(None),
        )
        .values(revoked_at=now)
        .returning(RefreshTokenRow.family_id)
    )
    return list({family for (family,) in revoked})


async def people_of_families(tx: AsyncConnection, families: Sequence[UUID]) -> dict[UUID, Person]:
    """Whose the logins are that still stand."""
    assigned = (
        select(func.array_agg(AssignmentRow.instance_id))
        .join(InstanceRow, InstanceRow.id == AssignmentRow.instance_id)
        .where(AssignmentRow.user_id == UserRow.id, InstanceRow.deleted_at.is_(None))
        .scalar_subquery()
    )
    rows = await tx.execute(
        select(
            RefreshTokenRow.family_id,
            UserRow.id,
            UserRow.tenant_id,
            UserRow.role,
            OrganizationRow.suspended_at.is_not(None),
            OrganizationRow.pii_masking,
            assigned,
        )
        .join(UserRow, UserRow.id == RefreshTokenRow.user_id)
        .join(OrganizationRow, OrganizationRow.id == UserRow.tenant_id)
        .where(
            RefreshTokenRow.family_id == any_(literal(list(families), ARRAY(Uuid))),
            RefreshTokenRow.revoked_at.is_(None),
            UserRow.active,
        )
        .distinct()
    )
    return {
        family: Person(user_id, tenant_id, role, suspended, masking, frozenset(instances or ()))
        for family, user_id, tenant_id, role, suspended, masking, instances in rows
    }


async def forget_refresh_tokens(tx: AsyncConnection, *, expired_before: datetime) -> int:
    """Delete tokens that expired long ago; returns how many."""
    gone = await tx.execute(
        delete(RefreshTokenRow).where(RefreshTokenRow.expires_at < expired_before)
    )
    return gone.rowcount
