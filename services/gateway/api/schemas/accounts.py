"""Accounts and the organization."""

from typing import Literal
from uuid import UUID

from pydantic import Field

from services.gateway.api.schemas.fields import Email, Name, Password, TimeZone
from services.gateway.store.accounts import Erasure, Organization, User
from shared.web.schemas import ApiModel, ApiView, Instant

ContentStorage = Literal["none", "encrypted"]


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
    content_storage: ContentStorage | None = Field(
        default=None,
        description="Whether what messages say is kept, encrypted, to be shown and searched. `none`"
        " erases it once it is delivered, and what has been kept so far soon.",
    )
    retention_days: int | None = Field(
        default=None,
        ge=0,
        le=3650,
        description="Days after which messages are deleted, with all that is known of them; 0:"
        " never. Statistics stay.",
        examples=[90],
    )
    pii_masking: bool | None = Field(
        default=None,
        description="Whether agents and viewers see numbers masked, and viewers no content,"
        " wherever they look.",
    )


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
    content_storage: ContentStorage
    retention_days: int
    pii_masking: bool
    created_at: Instant

    @classmethod
    def of(cls, organization: Organization) -> "OrganizationView":
        return cls.model_validate(
            {
                "id": organization.id,
                "name": organization.name,
                "timezone": organization.timezone,
                "plan": organization.plan,
                "content_storage": organization.content_storage,
                "retention_days": organization.retention_days,
                "pii_masking": organization.pii_masking,
                "created_at": organization.created_at,
            }
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


class ErasureView(ApiView):
    """How far the erasing is of what was kept before."""

    state: Literal["waiting", "running", "done"]
    erased: int = Field(description="Messages whose content is erased so far.")
    started_at: Instant | None
    finished_at: Instant | None

    @classmethod
    def of(cls, organization: Organization, erasure: Erasure | None) -> "ErasureView | None":
        """Of an organization that keeps nothing since it has chosen so."""
        since = organization.content_storage_since
        if organization.content_storage != "none" or since is None:
            return None
        if erasure is None or erasure.since != since:
            return cls(state="waiting", erased=0, started_at=None, finished_at=None)
        return cls(
            state="running" if erasure.finished_at is None else "done",
            erased=erasure.erased,
            started_at=erasure.started_at,
            finished_at=erasure.finished_at,
        )


class OrganizationDetails(OrganizationView):
    """An organization, with what of its plan is used."""

    content_erasure: ErasureView | None = Field(
        description="Since `contentStorage` was changed to `none`; null before, and with"
        " `encrypted`."
    )
    usage: Usage
