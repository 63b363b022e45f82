"""Accounts and the organization."""

from collections.abc import Sequence

from services.gateway.api.accounts import Accounts
from services.gateway.api.locks import Locks
from services.gateway.api.membership import Membership
from services.gateway.api.organization import Organizations
from services.gateway.api.schemas.accounts import (
    Credentials,
    LoggedOut,
    Login,
    Me,
    OrganizationChange,
    OrganizationDetails,
    PasswordChange,
    PasswordChanged,
    Refresh,
    Registered,
    Registration,
    Unlocked,
)
from services.gateway.api.schemas.team import Acceptance, Deactivated, OwnDeactivation
from services.gateway.domain.access import Needs
from shared.web.routes import Route

_TAG = "Accounts"


def routes(
    accounts: Accounts, membership: Membership, organizations: Organizations, locks: Locks
) -> Sequence[Route]:
    """What there is under ``/api/auth`` and ``/api/organization``."""
    return (
        Route(
            method="POST",
            path="/api/auth/register",
            handler=accounts.register,
            audited="user.registered",
            summary="Make an account",
            description="It starts an organization of its own, on the plan `basic`.",
            tag=_TAG,
            permission=None,
            request=Registration,
            response=Registered,
            status=201,
            idempotent=True,
            limited=True,
            errors=("CONFLICT",),
        ),
        Route(
            method="POST",
            path="/api/auth/login",
            handler=accounts.login,
            audited="user.logged_in",
            summary="Log in",
            description="Five failures for one account from one address within fifteen minutes "
            "close the door to both, even for the right password, for fifteen minutes at most: "
            "`Retry-After` says how long. Fifty for one account close it to all addresses from "
            "which its user has not logged in before, and a hundred from one address, for whatever "
            "accounts, close that to all who have not logged in from there before.",
            tag=_TAG,
            permission=None,
            request=Credentials,
            response=Login,
            limited=True,
            errors=("UNAUTHORIZED", "FORBIDDEN"),
        ),
        Route(
            method="POST",
            path="/api/auth/refresh",
            handler=accounts.refresh,
            summary="Exchange a refresh token for the next tokens",
            description="A refresh token works once. One that is used again has been stolen or "
            "lost: the login ends, for whoever has its tokens.",
            tag=_TAG,
            permission=None,
            request=Refresh,
            response=Login,
            limited=True,
            errors=("UNAUTHORIZED", "FORBIDDEN"),
        ),
        Route(
            method="POST",
            path="/api/auth/logout",
            handler=accounts.logout,
            audited="user.logged_out",
            summary="End this login",
            tag=_TAG,
            permission=Needs.BEING_LOGGED_IN,
            response=LoggedOut,
            limited=True,
        ),
        Route(
            method="POST",
            path="/api/auth/change-password",
            handler=accounts.change_password,
            audited="user.password_changed",
            summary="Change the password",
            description="All other logins of the user end.",
            tag=_TAG,
            permission=Needs.BEING_LOGGED_IN,
            request=PasswordChange,
            response=PasswordChanged,
            limited=True,
        ),
        Route(
            method="POST",
            path="/api/auth/accept-invitation",
            handler=membership.accept,
            summary="Choose a password by an invitation",
            description="Of a new member, or after an administrator has reset the password. The "
            "token works once, and logs in.",
            tag=_TAG,
            permission=None,
            request=Acceptance,
            response=Login,
            limited=True,
            audited="user.joined",
            errors=("UNAUTHORIZED", "FORBIDDEN"),
        ),
        Route(
            method="POST",
            path="/api/auth/deactivate",
            handler=membership.deactivate,
            summary="Deactivate oneself",
            description="All logins and keys of the user end. An administrator can activate them "
            "again; the last one cannot leave.",
            tag=_TAG,
            permission=Needs.BEING_LOGGED_IN,
            request=OwnDeactivation,
            response=Deactivated,
            limited=True,
            audited="user.deactivated",
            errors=("CONFLICT",),
        ),
        Route(
            method="GET",
            path="/api/auth/me",
            handler=accounts.me,
            summary="Who is calling",
            tag=_TAG,
            permission=Needs.BEING_A_USER,
            response=Me,
            limited=True,
        ),
        Route(
            method="POST",
            path="/api/team/members/{userId}/unlock",
            handler=locks.unlock,
            audited="user.unlocked",
            summary="Let a member log in again who was locked out",
            description="Their failed logins are forgotten. Tokens and keys were never locked.",
            tag="Team",
            permission=Needs.ORGANIZATION,
            response=Unlocked,
            limited=True,
        ),
        Route(
            method="GET",
            path="/api/organization",
            handler=organizations.get,
            summary="The organization, its plan, and what of it is used this month",
            tag=_TAG,
            permission=Needs.BEING_A_USER,
            response=OrganizationDetails,
            limited=True,
        ),
        Route(
            method="PUT",
            path="/api/organization",
            handler=organizations.change,
            audited="organization.changed",
            summary="Change the organization",
            tag=_TAG,
            permission=Needs.ORGANIZATION,
            request=OrganizationChange,
            response=OrganizationDetails,
            limited=True,
        ),
    )
