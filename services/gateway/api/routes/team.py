"""The team: members, what is assigned to them, and user keys."""

from collections.abc import Sequence

from services.gateway.api.schemas.fields import Deleted
from services.gateway.api.schemas.team import (
    AssignmentView,
    CreatedUserKey,
    InvitationView,
    InvitedMember,
    MemberChange,
    MembersQuery,
    MemberView,
    NewMember,
    NewUserKey,
    UserKeysQuery,
    UserKeyView,
)
from services.gateway.api.team import Team
from services.gateway.api.user_keys import UserKeys
from services.gateway.domain.access import Needs
from shared.web.routes import Route

_TAG = "Team"
_KEYS = "User keys"
_ALL = "/api/team/members"
_ONE = "/api/team/members/{userId}"
_INSTANCE = f"{_ONE}/instances/{{instanceId}}"
_CLIENT = f"{_ONE}/clients/{{instanceId}}"


def routes(team: Team, keys: UserKeys) -> Sequence[Route]:
    """What there is under ``/api/team``."""
    return (*_members(team), *_assignments(team), *_keys(keys))


def _members(team: Team) -> Sequence[Route]:
    return (
        Route(
            method="POST",
            path=_ALL,
            handler=team.invite,
            summary="Invite somebody",
            description="No e-mail is sent: give them the token of the answer, which is shown only "
            "once. They exchange it for a password at `POST /api/auth/accept-invitation`.",
            tag=_TAG,
            permission=Needs.MANAGE_TEAM,
            request=NewMember,
            response=InvitedMember,
            status=201,
            idempotent=True,
            limited=True,
            audited="member.invited",
            errors=("CONFLICT",),
        ),
        Route(
            method="GET",
            path=_ALL,
            handler=team.page,
            summary="List members, newest first",
            description="A manager sees the people they manage, and themselves.",
            tag=_TAG,
            permission=Needs.SEE_TEAM,
            query=MembersQuery,
            response=MemberView,
            paginated=True,
            limited=True,
        ),
        Route(
            method="GET",
            path=_ONE,
            handler=team.get,
            summary="One member",
            tag=_TAG,
            permission=Needs.SEE_TEAM,
            response=MemberView,
            limited=True,
        ),
        Route(
            method="PUT",
            path=_ONE,
            handler=team.change,
            summary="Change a member: name, role, manager, whether they are active",
            description="A change of role counts at once. Deactivating ends all their logins and "
            "keys. Of administrators one always stays.",
            tag=_TAG,
            permission=Needs.MANAGE_TEAM,
            request=MemberChange,
            response=MemberView,
            limited=True,
            audited="member.changed",
            errors=("CONFLICT",),
        ),
        Route(
            method="DELETE",
            path=_ONE,
            handler=team.delete,
            summary="Remove a member",
            description="Deactivates them; an invitation that nobody has accepted is deleted.",
            tag=_TAG,
            permission=Needs.MANAGE_TEAM,
            response=Deleted,
            limited=True,
            audited="member.removed",
            errors=("CONFLICT",),
        ),
        Route(
            method="POST",
            path=f"{_ONE}/reset-password",
            handler=team.reset_password,
            summary="Have a member choose another password",
            description="Their password stops working and their logins end; their keys stay. The "
            "token of the answer is shown only once and is used as an invitation is.",
            tag=_TAG,
            permission=Needs.RESET_PASSWORDS,
            response=InvitationView,
            idempotent=True,
            limited=True,
            audited="member.password_reset",
            errors=("CONFLICT",),
        ),
    )


def _assignments(team: Team) -> Sequence[Route]:
    return (
        Route(
            method="POST",
            path=_INSTANCE,
            handler=team.assign,
            summary="Assign an instance to a member",
            description="Agents and viewers see what is assigned to them; others see all.",
            tag=_TAG,
            permission=Needs.SEE_TEAM,
            response=AssignmentView,
            limited=True,
            audited="member.instance_assigned",
            aliases=(_CLIENT,),
        ),
        Route(
            method="DELETE",
            path=_INSTANCE,
            handler=team.unassign,
            summary="Take an instance away from a member",
            tag=_TAG,
            permission=Needs.SEE_TEAM,
            response=AssignmentView,
            limited=True,
            audited="member.instance_unassigned",
            aliases=(_CLIENT,),
        ),
    )


def _keys(keys: UserKeys) -> Sequence[Route]:
    return (
        Route(
            method="POST",
            path="/api/team/keys",
            handler=keys.create,
            summary="Make a key that acts as oneself",
            description="The only time that the key itself is shown. What it may do follows its "
            "maker's role and assignments as they change.",
            tag=_KEYS,
            permission=Needs.BEING_LOGGED_IN,
            request=NewUserKey,
            response=CreatedUserKey,
            status=201,
            idempotent=True,
            limited=True,
            audited="user_key.created",
            errors=("QUOTA_EXCEEDED",),
        ),
        Route(
            method="GET",
            path="/api/team/keys",
            handler=keys.page,
            summary="List keys that were not revoked, newest first",
            description="One's own; administrators see everybody's.",
            tag=_KEYS,
            permission=Needs.BEING_A_USER,
            query=UserKeysQuery,
            response=UserKeyView,
            paginated=True,
            limited=True,
        ),
        Route(
            method="DELETE",
            path="/api/team/keys/{keyId}",
            handler=keys.revoke,
            summary="Revoke a key",
            description="It stops working at once.",
            tag=_KEYS,
            permission=Needs.BEING_LOGGED_IN,
            response=Deleted,
            limited=True,
            audited="user_key.revoked",
        ),
    )
