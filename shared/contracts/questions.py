"""What can be asked of a connected instance while somebody waits for the answer.

An answer is news of that moment and nothing is kept of it. Questions that change something say so;
whoever loses the answer to such a one finds out by asking again how things stand.
"""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from shared.contracts.content import Identity
from shared.contracts.model import Contract


class PairByCode(Contract):
    """A code of eight characters, for a phone to link this device by. ``phone_number`` has a ``+``.

    Changes something: the code before is void.
    """

    kind: Literal["pair_by_code"] = "pair_by_code"
    phone_number: str


class CheckNumbers(Contract):
    """Which of these are on WhatsApp? Digits only, at most 50."""

    kind: Literal["check_numbers"] = "check_numbers"
    numbers: tuple[str, ...]


class TellProfile(Contract):
    """What do others see of the account?"""

    kind: Literal["tell_profile"] = "tell_profile"


class ListGroups(Contract):
    """Which groups is the account in?"""

    kind: Literal["list_groups"] = "list_groups"


class TellGroup(Contract):
    """What is so with this group?"""

    kind: Literal["tell_group"] = "tell_group"
    group: str


class CreateGroup(Contract):
    """Makes a group of the account and these addresses. Changes something."""

    kind: Literal["create_group"] = "create_group"
    name: str
    members: tuple[str, ...]


class ChangeMembers(Contract):
    """Adds, removes, promotes or demotes members of a group. Changes something."""

    kind: Literal["change_members"] = "change_members"
    group: str
    change: Literal["add", "remove", "promote", "demote"]
    members: tuple[str, ...]


class TellInviteLink(Contract):
    """By which link does one join this group? With ``renew``, the one before is void."""

    kind: Literal["tell_invite_link"] = "tell_invite_link"
    group: str
    renew: bool = False


class LeaveGroup(Contract):
    """Takes the account out of a group. Changes something."""

    kind: Literal["leave_group"] = "leave_group"
    group: str


Question = Annotated[
    PairByCode
    | CheckNumbers
    | TellProfile
    | ListGroups
    | TellGroup
    | CreateGroup
    | ChangeMembers
    | TellInviteLink
    | LeaveGroup,
    Field(discriminator="kind"),
]


class PairingCode(Contract):
    """Type this into the phone: ``ABCD-EFGH``."""

    kind: Literal["pairing_code"] = "pairing_code"
    code: str
    expires_at: datetime


class CheckedNumber(Contract):
    """Whether one number is on WhatsApp, and under which address. ``number`` is as it was asked."""

    number: str
    on_whatsapp: bool
    address: str | None = None


class CheckedNumbers(Contract):
    """What became of ``CheckNumbers``: one for each, in the same order."""

    kind: Literal["checked_numbers"] = "checked_numbers"
    numbers: tuple[CheckedNumber, ...]


class Profile(Contract):
    """What others see of the account."""

    kind: Literal["profile"] = "profile"
    identity: Identity
    about: str | None = None
    picture_url: str | None = None


class GroupMember(Contract):
    """Somebody in a group."""

    identity: Identity
    role: Literal["member", "admin", "owner"] = "member"


class Group(Contract):
    """A group as the account sees it. ``members`` may be left out of lists."""

    kind: Literal["group"] = "group"
    id: str
    name: str
    topic: str | None = None
    created_at: datetime | None = None
    announce_only: bool = False
    size: int = 0
    members: tuple[GroupMember, ...] = ()


class Groups(Contract):
    """What became of ``ListGroups``."""

    kind: Literal["groups"] = "groups"
    groups: tuple[Group, ...]


class ChangedMember(Contract):
    """What became of one member's change; ``error`` says why it was not made."""

    address: str
    error: str | None = None


class ChangedMembers(Contract):
    """What became of ``ChangeMembers``: one for each, in the same order."""

    kind: Literal["changed_members"] = "changed_members"
    members: tuple[ChangedMember, ...]


class InviteLink(Contract):
    """The link by which one joins a group."""

    kind: Literal["invite_link"] = "invite_link"
    url: str


class Done(Contract):
    """It is done, and there is nothing more to tell."""

    kind: Literal["done"] = "done"


Answer = Annotated[
    PairingCode | CheckedNumbers | Profile | Group | Groups | ChangedMembers | InviteLink | Done,
    Field(discriminator="kind"),
]
