"""Accounts and the organization."""

from uuid import UUID

from pydantic import Field

from services.gateway.api.schemas.fields import Email, Name, Password, TimeZone
from services.gateway.store.accounts import Organization, User
from shared.web.schemas import ApiModel, ApiView, Instant


class Registration(ApiModel):
    """A new account; it starts an organization of its own."""

    email: Email
    password: Password
    name: Name = Field(examples=["Ada Lovelace"])
    organization_name: Name | None = Field(
        default=None, description="The user's name if left out.", examples=["Analytical Engines"]
    )


class Credentials(ApiModel):
    """Who wants to log in."""

    email: Email
    password: str = Field(max_length=256, repr=False, examples=["correct horse battery"])


class Refresh(ApiModel):
    """The refresh token of the answer before; it works once."""

    refresh_token: str = Field(max_length=512, repr=False, examples=["rt_…"])


class PasswordChange(ApiModel):
    """The password as it is, and as it is to be."""

    current_password: str = Field(max_length=256, repr=False)
    new_password: Password


class OrganizationChange(ApiModel):
    """What is to change; what is left out stays."""

    name: Name | None = Field(default=None, examples=["Analytical Engines"])
    timezone: TimeZone | None = None


class UserView(ApiView):
    """A person in an organization."""

    id: UUID
    email: str
    name: str
    role: str
    organization_id: UUID
    created_at: Instant

    @classmethod
    def of(cls, user: User) -> "UserView":
        return cls(
            id=user.id,
            email=user.email,
            name=user.name,
            role=user.role,
            organization_id=user.tenant_id,
            created_at=user.created_at,
        )


class OrganizationView(ApiView):
    """An organization."""

    id: UUID
    name: str
    timezone: str
    plan: str
    created_at: Instant

    @classmethod
    def of(cls, organization: Organization) -> "OrganizationView":
        return cls(
            id=organization.id,
            name=organization.name,
            timezone=organization.timezone,
            plan=organization.plan,
            created_at=organization.created_at,
        )


class Login(ApiView):
    """A login. ``expiresIn`` is how many seconds the token is good for."""

    token: str = Field(repr=False, examples=["eyJhbGciOiJIUzI1NiIs…"])
    refresh_token: str = Field(repr=False, examples=["rt_…"])
    expires_in: int = Field(examples=[900])
    user: UserView


class Registered(Login):
    """A new account, logged in."""

    organization: OrganizationView


class Me(ApiView):
    """Who is calling."""

    user: UserView
    organization: OrganizationView
    permissions: list[str]


class LoggedOut(ApiView):
    """The login has ended."""

    logged_out: bool = True


class Unlocked(ApiView):
    """Whose failed logins were forgotten."""

    id: UUID
    unlocked: bool = True


class PasswordChanged(ApiView):
    """How many other logins have ended with the old password."""

    other_logins_ended: int


class Quota(ApiView):
    """What of the plan is used."""

    used: int
    limit: int
    remaining: int


class MessageQuota(Quota):
    """Messages accepted in this calendar month of the organization's time zone.

    Reactions, edits and revocations are not counted, nor is what sandbox instances send.
    """

    resets_at: Instant


class Usage(ApiView):
    """What of the plan is used."""

    instances: Quota
    messages: MessageQuota


class OrganizationDetails(OrganizationView):
    """An organization, with what of its plan is used."""

    usage: Usage
