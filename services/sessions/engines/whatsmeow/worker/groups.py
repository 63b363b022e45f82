"""Groups, as the account sees them."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, Literal

from services.sessions.domain.addresses import canonical
from services.sessions.engines.whatsmeow.worker import addresses, library
from services.sessions.engines.whatsmeow.worker.memory import memory_of
from services.sessions.engines.whatsmeow.worker.shapes import Client, Jid, Member
from services.sessions.engines.whatsmeow.worker.shapes import Group as Known
from services.sessions.engines.whatsmeow.worker.words import clean
from shared.contracts.questions import (
    ChangedMember,
    ChangedMembers,
    ChangeMembers,
    Done,
    Group,
    GroupMember,
    Groups,
    InviteLink,
)
from shared.errors import Rejected

# What WhatsApp says of a member who could not be changed, as WhatsApp Web reads it.
_WHY: Final = {
    401: "They have blocked this account.",
    403: "They must be invited: their settings let not everybody add them.",
    404: "They are not on WhatsApp, or not in the group.",
    406: "They cannot be in this group.",
    408: "They have left the group, and cannot be added yet.",
    409: "They are in the group already.",
    500: "The group is full.",
}


async def listed(client: Client) -> Groups:
    """The account's groups, without their members."""
    return Groups(
        groups=tuple(
            [
                await _group(client, group, members=False)
                for group in await client.get_joined_groups()
            ]
        )
    )


async def told(client: Client, group: str) -> Group:
    """A group with its members."""
    return await _group(client, await client.get_group_info(_jid(group)), members=True)


async def created(client: Client, name: str, members: Sequence[str]) -> Group:
    """A new group of the account and these. Who could not be added is not among its members."""
    wanted = [library.jid(canonical(member)) for member in members]
    return await _group(client, await client.create_group(name, wanted), members=True)


async def changed(client: Client, change: ChangeMembers) -> ChangedMembers:
    """What became of each member's change, in the order in which they were named."""
    group = addressed(change.group)
    wanted = [
        # Who joins is named by number; who is there already, as the group knows them.
        canonical(member)
        if change.change == "add"
        else await addresses.as_member(client, group, member)
        for member in change.members
    ]
    became = await client.update_group_participants(
        library.jid(group),
        [library.jid(address) for address in wanted],
        library.member_change(change.change),
    )
    problems = {form: _problem(member) for member in became for form in _forms(member)}
    return ChangedMembers(
        members=tuple(
            ChangedMember(address=member, error=problems.get(address, "WhatsApp did not say."))
            for member, address in zip(change.members, wanted, strict=True)
        )
    )


async def invite_link(client: Client, group: str, *, renew: bool) -> InviteLink:
    """The link by which one joins a group."""
    return InviteLink(url=await client.get_group_invite_link(_jid(group), renew))


async def left(client: Client, group: str) -> Done:
    """The account is in the group no more."""
    await client.leave_group(_jid(group))
    return Done()


def addressed(group: str) -> str:
    """A group's address. Raises ``Rejected`` if it is none: whatsmeow would ask for anything."""
    address = group if "@" in group else f"{group}{addresses.GROUP}"
    if not address.endswith(addresses.GROUP):
        raise Rejected("This is not a group's address: it ends in @g.us.")
    return address


def _jid(group: str) -> Jid:
    return library.jid(addressed(group))


async def _group(client: Client, group: Known, *, members: bool) -> Group:
    address = addresses.text_of(group.JID)
    by_lid = any(member.JID.Server == "lid" for member in group.Participants)
    memory_of(client).by_lid.keep(address, by_lid)
    present = [member for member in group.Participants if not member.Error]
    return Group(
        id=address,
        name=clean(group.GroupName.Name),
        topic=clean(group.GroupTopic.Topic) or None,
        created_at=_created(group.GroupCreated),
        announce_only=group.GroupAnnounce.IsAnnounce,
        size=len(present),
        members=tuple([await _member(client, member) for member in present]) if members else (),
    )


async def _member(client: Client, member: Member) -> GroupMember:
    role: Literal["member", "admin", "owner"] = "admin" if member.IsAdmin else "member"
    other = member.PhoneNumber if member.JID.Server == "lid" else member.LID
    return GroupMember(
        identity=await addresses.identity(
            client, addresses.text_of(member.JID), also=addresses.text_of(other)
        ),
        role="owner" if member.IsSuperAdmin else role,
    )


def _created(seconds: float) -> datetime | None:
    """When a group was made, within two minutes: neonize hands on a number of 32 bits."""
    return datetime.fromtimestamp(seconds, UTC) if 0 < seconds < 2**33 else None


def _problem(member: Member) -> str | None:
    if not member.Error:
        return None
    why = _WHY.get(member.Error, "WhatsApp has refused this.")
    return f"{why} (error {member.Error})"


def _forms(member: Member) -> set[str]:
    """Every address under which WhatsApp may have answered about somebody."""
    found = (member.JID, member.LID, member.PhoneNumber)
    return {form for jid in found if (form := addresses.text_of(jid))}
