"""Groups."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from services.gateway.api.groups import Groups
from services.gateway.api.schemas.asked import (
    ChangedMemberView,
    GroupView,
    InviteLinkView,
    LeftGroup,
    MembersChange,
    NewGroup,
)
from services.gateway.domain.access import Needs
from shared.web.routes import Route

_TAG = "Groups"
_OWN = "/api/groups"
_ONE = f"{_OWN}/{{group}}"

ASKED: Final = ("INSTANCE_NOT_READY", "VALIDATION_FAILED", "ENGINE_UNAVAILABLE", "UNCONFIRMED")
"""What can go wrong where an instance is asked something."""


def routes(groups: Groups) -> Sequence[Route]:
    """What there is under ``/api/groups``, for keys, and the same of an instance, for users."""
    own = (
        Route(
            method="GET",
            path=_OWN,
            handler=groups.page,
            summary="List the groups that the account is in",
            tag=_TAG,
            permission=Needs.SEE_OWN_GROUPS,
            response=GroupView,
            paginated=True,
            limited=True,
            errors=ASKED,
        ),
        Route(
            method="POST",
            path=_OWN,
            handler=groups.create,
            audited="group.created",
            summary="Make a group",
            tag=_TAG,
            permission=Needs.OWN_GROUPS,
            request=NewGroup,
            response=GroupView,
            status=201,
            idempotent=True,
            limited=True,
            errors=ASKED,
        ),
        Route(
            method="GET",
            path=_ONE,
            handler=groups.get,
            summary="One group with its members",
            tag=_TAG,
            permission=Needs.SEE_OWN_GROUPS,
            response=GroupView,
            limited=True,
            errors=ASKED,
        ),
        Route(
            method="DELETE",
            path=_ONE,
            handler=groups.leave,
            audited="group.left",
            summary="Leave a group",
            tag=_TAG,
            permission=Needs.OWN_GROUPS,
            response=LeftGroup,
            limited=True,
            errors=ASKED,
        ),
        Route(
            method="POST",
            path=f"{_ONE}/members",
            handler=groups.change_members,
            audited="group.members_changed",
            summary="Add, remove, promote or demote members",
            description="Answers for each of them: who cannot be added may still be invited.",
            tag=_TAG,
            permission=Needs.OWN_GROUPS,
            request=MembersChange,
            response=list[ChangedMemberView],
            limited=True,
            errors=ASKED,
        ),
        Route(
            method="GET",
            path=f"{_ONE}/invite-link",
            handler=groups.invite_link,
            summary="The link by which one joins a group",
            tag=_TAG,
            permission=Needs.SEE_OWN_GROUPS,
            response=InviteLinkView,
            limited=True,
            errors=ASKED,
        ),
        Route(
            method="POST",
            path=f"{_ONE}/invite-link",
            handler=groups.renew_invite_link,
            audited="group.invite_link_renewed",
            summary="Make a new link; the one before is void",
            tag=_TAG,
            permission=Needs.OWN_GROUPS,
            response=InviteLinkView,
            limited=True,
            errors=ASKED,
        ),
    )
    return (*own, *(_of_instance(route) for route in own))


def _of_instance(route: Route) -> Route:
    """The same for a user, who names the instance."""
    path = route.path.replace(_OWN, "/api/instances/{id}/groups", 1)
    sees = route.permission == Needs.SEE_OWN_GROUPS
    return replace(
        route,
        path=path,
        permission=Needs.SEE_CLIENTS if sees else Needs.PLAY,
        aliases=(path.replace("/api/instances", "/api/clients", 1),),
    )
