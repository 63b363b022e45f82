"""Groups that the account is in: asked about, made, changed and left."""

from collections.abc import Sequence

from aiohttp import web

from services.gateway.api.askable import Askable
from services.gateway.api.auditing import note_alone
from services.gateway.api.gate import PRINCIPAL
from services.gateway.api.once import Once
from services.gateway.api.schemas.asked import (
    ChangedMemberView,
    GroupView,
    InviteLinkView,
    LeftGroup,
    MembersChange,
    NewGroup,
)
from services.gateway.api.seen import all_seen, seen, sight
from services.gateway.domain.recipients import Address, NotAnAddress, group_of
from shared.contracts.capabilities import Capability
from shared.contracts.questions import (
    ChangedMembers,
    ChangeMembers,
    CreateGroup,
    Done,
    Group,
    InviteLink,
    LeaveGroup,
    ListGroups,
    TellGroup,
    TellInviteLink,
)
from shared.contracts.questions import Groups as FoundGroups
from shared.errors import NotFound
from shared.web.body import BodyLimits, invalid, read_model
from shared.web.envelope import respond, respond_whole


class Groups:
    """``/api/instances/{id}/groups``, and ``/api/groups`` for an instance's own key."""

    def __init__(self, *, askable: Askable, once: Once, limits: BodyLimits) -> None:
        self._askable = askable
        self._once = once
        self._limits = limits

    async def page(self, request: web.Request) -> web.StreamResponse:
        found = await self._askable.ask(request, Capability.GROUPS, ListGroups(), FoundGroups)
        return respond_whole(all_seen(request, [GroupView.of(group) for group in found.groups]))

    async def create(self, request: web.Request) -> web.StreamResponse:
        body = await read_model(request, NewGroup, self._limits)
        question = CreateGroup(name=body.name, members=_people(body.members))

        async def work() -> object:
            made = await self._askable.ask(request, Capability.GROUPS, question, Group)
            await note_alone(request, "group", made.id, after={"name": body.name})
            return seen(request, GroupView.of(made))

        return await self._once.run_elsewhere(request, body, work, principal=request[PRINCIPAL])

    async def get(self, request: web.Request) -> web.StreamResponse:
        question = TellGroup(group=_group(request))
        found = await self._askable.ask(request, Capability.GROUPS, question, Group)
        return respond(seen(request, GroupView.of(found)))

    async def change_members(self, request: web.Request) -> web.StreamResponse:
        body = await read_model(request, MembersChange, self._limits)
        question = ChangeMembers(
            group=_group(request), change=body.change, members=_people(body.members)
        )
        done = await self._askable.ask(request, Capability.GROUPS, question, ChangedMembers)
        await note_alone(
            request,
            "group",
            question.group,
            after={"change": question.change, "members": question.members},
        )
        return respond(all_seen(request, [ChangedMemberView.of(member) for member in done.members]))

    async def invite_link(self, request: web.Request) -> web.StreamResponse:
        return await self._link(request, renew=False)

    async def renew_invite_link(self, request: web.Request) -> web.StreamResponse:
        return await self._link(request, renew=True)

    async def leave(self, request: web.Request) -> web.StreamResponse:
        group = _group(request)
        await self._askable.ask(request, Capability.GROUPS, LeaveGroup(group=group), Done)
        await note_alone(request, "group", group)
        return respond(LeftGroup(id=group))

    async def _link(self, request: web.Request, *, renew: bool) -> web.StreamResponse:
        question = TellInviteLink(group=_group(request), renew=renew)
        found = await self._askable.ask(request, Capability.GROUPS, question, InviteLink)
        if renew:
            await note_alone(request, "group", question.group)
        return respond(InviteLinkView(url=sight(request).link(found.url)))


def _group(request: web.Request) -> str:
    try:
        return group_of(request.match_info["group"])
    except NotAnAddress:
        raise NotFound("There is no such group; GET …/groups lists yours.") from None


def _people(members: Sequence[Address]) -> tuple[str, ...]:
    groups = {
        f"members.{place}": "is a group; name people"
        for place, member in enumerate(members)
        if member.chat.endswith("@g.us")
    }
    if groups:
        raise invalid(groups)
    return tuple(dict.fromkeys(member.chat for member in members))
