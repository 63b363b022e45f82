"""Organizations, the people in them, and their refresh tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import ARRAY, Uuid, any_, delete, insert, literal, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.db.tables.gateway import OrganizationRow, RefreshTokenRow, UserRow


@dataclass(frozen=True, slots=True)
class Organization:
    """A tenant."""

    id: UUID
    name: str
    timezone: str
    plan: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class User:
    """A person who signs in."""

    id: UUID
    tenant_id: UUID
    email: str
    name: str
    role: str
    active: bool
    created_at: datetime
    password_hash: str


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """One refresh token, as found by its digest."""

    id: UUID
    family_id: UUID
    user_id: UUID
    expires_at: datetime
    spent_at: datetime | None
    revoked_at: datetime | None


_USER = (
    UserRow.id,
    UserRow.tenant_id,
    UserRow.email,
    UserRow.name,
    UserRow.role,
    UserRow.active,
    UserRow.created_at,
    UserRow.password_hash,
)
_ORGANIZATION = (
    OrganizationRow.id,
    OrganizationRow.name,
    OrganizationRow.timezone,
    OrganizationRow.plan,
    OrganizationRow.created_at,
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


async def add_user(tx: AsyncConnection, user: User) -> bool:
    """Store a new user; false if somebody has the address already."""
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
        )
        .on_conflict_do_nothing(index_elements=[UserRow.email])
        .returning(UserRow.id)
    )
    return added.first() is not None


async def user_by_email(tx: AsyncConnection, email: str) -> User | None:
    """The user with this address, in lower case."""
    row = (await tx.execute(select(*_USER).where(UserRow.email == email))).first()
    return None if row is None else User(*row)


async def user(tx: AsyncConnection, user_id: UUID) -> User | None:
    """The user with this id."""
    row = (await tx.execute(select(*_USER).where(UserRow.id == user_id))).first()
    return None if row is None else User(*row)


async def set_password(tx: AsyncConnection, user_id: UUID, password_hash: str) -> None:
    """Store the hash of a user's password."""
    await tx.execute(
        update(UserRow).where(UserRow.id == user_id).values(password_hash=password_hash)
    )


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
    """The token with this digest, locked: of two who spend it at once, the second sees it spent."""
    row = (
        await tx.execute(
            select(
                RefreshTokenRow.id,
                RefreshTokenRow.family_id,
                RefreshTokenRow.user_id,
                RefreshTokenRow.expires_at,
                RefreshTokenRow.spent_at,
                RefreshTokenRow.revoked_at,
            )
            .where(RefreshTokenRow.token_hash == digest)
            .with_for_update()
        )
    ).first()
    return None if row is None else RefreshToken(*row)


async def spend_refresh_token(tx: AsyncConnection, token_id: UUID, *, now: datetime) -> None:
    """Mark a token as used up."""
    await tx.execute(
        update(RefreshTokenRow).where(RefreshTokenRow.id == token_id).values(spent_at=now)
    )


async def revoke_family(tx: AsyncConnection, family_id: UUID, *, now: datetime) -> None:
    """End a login: none of its tokens works any more."""
    await tx.execute(
        update(RefreshTokenRow)
        .where(RefreshTokenRow.family_id == family_id, RefreshTokenRow.revoked_at.is_(None))
        .values(revoked_at=now)
    )


async def revoke_other_families(
    tx: AsyncConnection, user_id: UUID, *, keep: UUID | None, now: datetime
) -> list[UUID]:
    """End all logins of a user but one; returns those that ended."""
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


async def users_of_families(tx: AsyncConnection, families: Sequence[UUID]) -> dict[UUID, User]:
    """The users of those logins that still stand, with what is true of them now."""
    rows = await tx.execute(
        select(*_USER, RefreshTokenRow.family_id)
        .join(RefreshTokenRow, RefreshTokenRow.user_id == UserRow.id)
        .where(
            RefreshTokenRow.family_id == any_(literal(list(families), ARRAY(Uuid))),
            RefreshTokenRow.revoked_at.is_(None),
            UserRow.active,
        )
        .distinct()
    )
    return {row[-1]: User(*row[:-1]) for row in rows}


async def forget_refresh_tokens(tx: AsyncConnection, *, expired_before: datetime) -> int:
    """Delete tokens that expired long ago; returns how many."""
    gone = await tx.execute(
        delete(RefreshTokenRow).where(RefreshTokenRow.expires_at < expired_before)
    )
    return gone.rowcount
