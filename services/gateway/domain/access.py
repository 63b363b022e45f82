"""What routes ask of their callers: named here once, used by the route table, checked by it."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from services.gateway.domain.permissions import KeyPermission, Permission, Role
from services.gateway.domain.principal import Principal, PrincipalKind
from shared.errors import Forbidden


class Needs(StrEnum):
    """What a caller needs, in the words of the documentation: a person's permission, and behind
    the slash an instance key's, where instance keys may call at all. What needs a login cannot be
    done by a user key: whoever has found one must not make of it something that outlives it, be it
    another credential or a place that is told everything.
    """

    BEING_A_USER = "authenticated"
    BEING_LOGGED_IN = "a login"
    OPERATE = "operator"
    SEE_TEAM = "can_manage_team"
    MANAGE_TEAM = "can_manage_team, by a login"
    RESET_PASSWORDS = "can_manage_organization, by a login"
    ORGANIZATION = "can_manage_organization"
    AUDIT = "can_view_audit_logs"
    SEE_CLIENTS = "can_view_assigned_clients"
    MANAGE_CLIENTS = "can_manage_clients"
    MAKE_KEYS = "can_manage_clients, by a login"
    SEND = "can_send_messages / messages.send"
    PLAY = "can_send_messages"
    READ = "can_view_assigned_data / messages.receive"
    STORAGE = "can_view_analytics"
    CHECK = "can_send_messages / contacts.check"
    SEE_OWN_GROUPS = "messages.receive"
    OWN_GROUPS = "messages.send"
    STATISTICS = "can_view_analytics / instance.stats"
    OWN_INFO = "instance.info"
    WEBHOOKS = "can_manage_webhooks"
    SET_WEBHOOKS = "can_manage_webhooks, by a login"
    OWN_WEBHOOK = "can_manage_webhooks / webhook.configure"
    TEST_OWN_WEBHOOK = "can_manage_webhooks / webhook.test"


@dataclass(frozen=True, slots=True)
class Access:
    """``user`` is the permission that a person needs (``None``: being one), ``key`` that of an
    instance key (``None``: it may not call). Without ``users`` the route is for keys alone. With
    ``login`` a user key will not do; with ``operator`` only the platform's operators may call.
    """

    user: Permission | None = None
    key: KeyPermission | None = None
    users: bool = True
    login: bool = False
    operator: bool = False


ACCESS: Final[Mapping[Needs, Access]] = {
    Needs.BEING_A_USER: Access(),
    Needs.BEING_LOGGED_IN: Access(login=True),
    Needs.OPERATE: Access(operator=True),
    Needs.SEE_TEAM: Access(Permission.MANAGE_TEAM),
    Needs.MANAGE_TEAM: Access(Permission.MANAGE_TEAM, login=True),
    Needs.RESET_PASSWORDS: Access(Permission.MANAGE_ORGANIZATION, login=True),
    Needs.ORGANIZATION: Access(Permission.MANAGE_ORGANIZATION),
    Needs.AUDIT: Access(Permission.VIEW_AUDIT_LOGS),
    Needs.SEE_CLIENTS: Access(Permission.VIEW_ASSIGNED_CLIENTS),
    Needs.MANAGE_CLIENTS: Access(Permission.MANAGE_CLIENTS),
    Needs.MAKE_KEYS: Access(Permission.MANAGE_CLIENTS, login=True),
    Needs.SEND: Access(Permission.SEND_MESSAGES, KeyPermission.MESSAGES_SEND),
    Needs.PLAY: Access(Permission.SEND_MESSAGES),
    Needs.READ: Access(Permission.VIEW_ASSIGNED_DATA, KeyPermission.MESSAGES_RECEIVE),
    Needs.STORAGE: Access(Permission.VIEW_ANALYTICS),
    Needs.CHECK: Access(Permission.SEND_MESSAGES, KeyPermission.CONTACTS_CHECK),
    Needs.SEE_OWN_GROUPS: Access(key=KeyPermission.MESSAGES_RECEIVE, users=False),
    Needs.OWN_GROUPS: Access(key=KeyPermission.MESSAGES_SEND, users=False),
    Needs.STATISTICS: Access(Permission.VIEW_ANALYTICS, KeyPermission.INSTANCE_STATS),
    Needs.OWN_INFO: Access(key=KeyPermission.INSTANCE_INFO, users=False),
    Needs.WEBHOOKS: Access(Permission.MANAGE_WEBHOOKS),
    Needs.SET_WEBHOOKS: Access(Permission.MANAGE_WEBHOOKS, login=True),
    Needs.OWN_WEBHOOK: Access(Permission.MANAGE_WEBHOOKS, KeyPermission.WEBHOOK_CONFIGURE),
    Needs.TEST_OWN_WEBHOOK: Access(Permission.MANAGE_WEBHOOKS, KeyPermission.WEBHOOK_TEST),
}


def require(principal: Principal, access: Access) -> None:
    """Raise ``Forbidden``, saying what is missing, unless ``principal`` may call the route."""
    if principal.kind is PrincipalKind.INSTANCE_KEY:
        if access.key is None:
            raise Forbidden(
                "This needs a user's access token: an instance key acts for its own instance only."
            )
        if access.key not in principal.permissions:
            raise Forbidden(
                f"This needs the permission {access.key}; use a key that has it, or make one."
            )
        return
    if not access.users:
        raise Forbidden("This is for instance keys (api_…); a user names the instance in the path.")
    if access.operator and principal.role is not Role.OPERATOR:
        raise Forbidden("This is for the platform's operators.")
    if access.user is not None and access.user not in principal.permissions:
        raise Forbidden(
            f"This needs the permission {access.user}; ask an administrator of your organization."
        )
    if access.login and principal.session_id is None:
        raise Forbidden("A user key (sk_…) may not do this; log in and use the access token.")
