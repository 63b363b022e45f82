"""What instances answer: numbers, profiles, groups; and what callers ask about them."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field, StringConstraints

from services.gateway.api.schemas.fields import PhoneNumber, Recipient
from shared.contracts.content import Identity
from shared.contracts.questions import ChangedMember, Group, GroupMember, Profile
from shared.web.schemas import ApiModel, ApiView, Instant


class CheckedView(ApiView):
    """What is known of one number. Invalid ones are not asked about; `reason` says what is wrong
    with them.
    """

    input: str = Field(examples=["+49 151 12345678"])
    valid: bool
    on_whats_app: bool = Field(alias="onWhatsApp")
    jid: str | None = Field(examples=["4915112345678@s.whatsapp.net"])
    reason: str | None = None


class PersonView(ApiView):
    """Who somebody is, over the addresses that WhatsApp uses for them."""

    phone: str | None = Field(examples=["+4915112345678"])
    lid: str | None
    chat_id: str = Field(examples=["4915112345678@s.whatsapp.net"])
    push_name: str | None = Field(examples=["Ada"])

    @classmethod
    def of(cls, identity: Identity) -> "PersonView":
        return cls(
            phone=identity.phone,
            lid=identity.lid,
            chat_id=identity.chat_id,
            push_name=identity.push_name,
        )


class ProfileView(ApiView):
    """What others see of the account."""

    identity: PersonView
    about: str | None
    picture_url: str | None

    @classmethod
    def of(cls, profile: Profile) -> "ProfileView":
        return cls(
            identity=PersonView.of(profile.identity),
            about=profile.about,
            picture_url=profile.picture_url,
        )


class MemberView(ApiView):
    """Somebody in a group."""

    identity: PersonView
    role: Literal["member", "admin", "owner"]

    @classmethod
    def of(cls, member: GroupMember) -> "MemberView":
        return cls(identity=PersonView.of(member.identity), role=member.role)


class GroupView(ApiView):
    """A group as the account sees it. Lists may leave out the members; `size` says how many."""

    id: str = Field(examples=["120363000000000001@g.us"])
    name: str = Field(examples=["Support"])
    topic: str | None
    created_at: Instant | None
    announce_only: bool = Field(description="Whether only its admins may write.")
    size: int
    members: list[MemberView]

    @classmethod
    def of(cls, group: Group) -> "GroupView":
        return cls(
            id=group.id,
            name=group.name,
            topic=group.topic,
            created_at=group.created_at,
            announce_only=group.announce_only,
            size=group.size or len(group.members),
            members=[MemberView.of(member) for member in group.members],
        )


Members = Annotated[tuple[Recipient, ...], Field(min_length=1, max_length=256)]


class NewGroup(ApiModel):
    """A group that is to be made, of the account and these people."""

    name: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100)] = (
        Field(examples=["Support"])
    )
    members: Members


class MembersChange(ApiModel):
    """What is to become of these people in a group."""

    change: Literal["add", "remove", "promote", "demote"]
    members: Members


class ChangedMemberView(ApiView):
    """What became of one of them; `error` says why it was not done."""

    member: str = Field(examples=["4915112345678@s.whatsapp.net"])
    error: str | None

    @classmethod
    def of(cls, changed: ChangedMember) -> "ChangedMemberView":
        return cls(member=changed.address, error=changed.error)


class InviteLinkView(ApiView):
    """The link by which one joins a group."""

    url: str = Field(examples=["https://chat.whatsapp.com/0123456789ABCDEFGHIJKL"])


class LeftGroup(ApiView):
    """The group that the account has left."""

    id: str = Field(examples=["120363000000000001@g.us"])
    left: bool = True


class WantedCode(ApiModel):
    """For which phone a code is wanted."""

    phone_number: PhoneNumber


class PairingCodeView(ApiView):
    """Type this into the phone, in time: Linked devices, Link with phone number."""

    code: str = Field(examples=["ABCD-EFGH"])
    expires_at: Instant

    @classmethod
    def of(cls, code: str, expires_at: datetime) -> "PairingCodeView":
        return cls(code=code, expires_at=expires_at)


class MarkedView(ApiView):
    """Messages whose chats are being told that they were read."""

    instance_id: UUID
    message_ids: list[UUID]


class PresenceView(ApiView):
    """What a chat is being shown."""

    instance_id: UUID
    to: str = Field(examples=["+4915112345678"])
    state: Literal["typing", "recording", "paused"]
