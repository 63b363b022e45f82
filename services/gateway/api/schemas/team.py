"""Teams: members, invitations, assignments and user keys."""

from typing import Literal
from uuid import UUID

from pydantic import Field

from services.gateway.api.schemas.accounts import UserView
from services.gateway.api.schemas.fields import Email, Name, Password
from services.gateway.domain.permissions import Role
from services.gateway.store.team import Member
from services.gateway.store.user_keys import UserKey
from shared.web.pagination import PageQuery
from shared.web.schemas import ApiModel, ApiView, Instant


class NewMember(ApiModel):
    """Somebody who is invited."""

    email: Email
    name: Name = Field(examples=["Grace Hopper"])
    role: Role = Field(default=Role.AGENT, description="A manager gives `agent` and `viewer`.")
    manager_id: UUID | None = Field(
        default=None,
        description="By whom they are managed beside the administrators; who is invited by a "
        "manager is managed by that one.",
    )
    instances: list[UUID] = Field(
        default=[],
        max_length=100,
        description="What they see, if their role does not see all: assigned from the start.",
    )


class MemberChange(ApiModel):
    """What is to change; what is left out stays."""

    name: Name | None = None
    role: Role | None = None
    manager_id: UUID | None = Field(default=None, description="`null` takes the manager away.")
    active: bool | None = Field(
        default=None, description="`false` ends all logins and keys of theirs at once."
    )


class MembersQuery(PageQuery):
    """Whom to list, newest first."""

    role: Role | None = None
    active: bool | None = None


class MemberView(ApiView):
    """A person of the organization. `instances` is what is assigned to them."""

    id: UUID
    email: str = Field(examples=["grace@example.com"])
    name: str = Field(examples=["Grace Hopper"])
    role: Role
    status: Literal["invited", "active", "deactivated"]
    active: bool
    manager_id: UUID | None
    invited_until: Instant | None = Field(
        description="Until when their token can be exchanged for a password, if they have one."
    )
    instances: list[UUID]
    created_at: Instant

    @classmethod
    def of(cls, member: Member) -> "MemberView":
        status: Literal["invited", "active", "deactivated"] = "deactivated"
        if member.active:
            status = "active" if member.joined else "invited"
        return cls(
            id=member.id,
            email=member.email,
            name=member.name,
            role=Role(member.role),
            status=status,
            active=member.active,
            manager_id=member.manager_id,
            invited_until=member.invited_until,
            instances=member.instances,
            created_at=member.created_at,
        )


class InvitationView(ApiView):
    """What a person exchanges for a password: the only time that ``token`` is seen."""

    token: str = Field(repr=False, examples=["inv_…"])
    expires_at: Instant


class InvitedMember(MemberView):
    """Somebody who is invited. Give them the token: no e-mail is sent."""

    invitation: InvitationView


class Acceptance(ApiModel):
    """By what somebody was invited, and the password that they choose."""

    token: str = Field(max_length=512, repr=False, examples=["inv_…"])
    password: Password
    name: Name | None = Field(default=None, description="As invited if left out.")


class OwnDeactivation(ApiModel):
    """The password, since this cannot be undone by whoever does it."""

    current_password: str = Field(max_length=256, repr=False)


class Deactivated(ApiView):
    """Who cannot log in any more."""

    user: UserView
    deactivated: bool = True


class AssignmentView(ApiView):
    """Whether somebody sees an instance by assignment."""

    user_id: UUID
    instance_id: UUID
    assigned: bool


class NewUserKey(ApiModel):
    """A key that acts as whoever makes it."""

    name: Name = Field(examples=["Reports"])
    rate_limit: int = Field(
        default=1000, ge=1, le=1_000_000, description="Requests an hour, in a sliding window."
    )
    expires_in_days: int = Field(default=365, ge=1, le=3650)


class UserKeysQuery(PageQuery):
    """Whose keys: administrators see everybody's, others their own."""

    user_id: UUID | None = None


class UserKeyView(ApiView):
    """A key, without the key itself; ``hint`` is how to recognise it."""

    id: UUID
    user_id: UUID
    name: str = Field(examples=["Reports"])
    hint: str = Field(examples=["sk_…x7Qa"])
    rate_limit: int
    created_at: Instant
    expires_at: Instant
    last_used_at: Instant | None

    @classmethod
    def of(cls, key: UserKey) -> "UserKeyView":
        return cls(
            id=key.id,
            user_id=key.user_id,
            name=key.name,
            hint=key.hint,
            rate_limit=key.rate_limit,
            created_at=key.created_at,
            expires_at=key.expires_at,
            last_used_at=key.last_used_at,
        )


class CreatedUserKey(ApiView):
    """A new key: the only time that ``key`` is seen."""

    id: UUID
    name: str = Field(examples=["Reports"])
    key: str = Field(repr=False, examples=["sk_…"])
    rate_limit: int
    expires_at: Instant
