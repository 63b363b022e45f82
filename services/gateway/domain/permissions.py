"""Who may do what: the roles of people, and the permission map of instance keys."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from pydantic import BaseModel, ConfigDict


class Permission(StrEnum):
    """What a person may do in their organization."""

    MANAGE_TEAM = "can_manage_team"
    VIEW_AUDIT_LOGS = "can_view_audit_logs"
    MANAGE_ORGANIZATION = "can_manage_organization"
    MANAGE_WEBHOOKS = "can_manage_webhooks"
    VIEW_ANALYTICS = "can_view_analytics"
    SEND_MESSAGES = "can_send_messages"
    MANAGE_CLIENTS = "can_manage_clients"
    VIEW_ASSIGNED_CLIENTS = "can_view_assigned_clients"
    VIEW_ASSIGNED_DATA = "can_view_assigned_data"


class Role(StrEnum):
    """What a person is in their organization; an operator belongs to the platform."""

    ADMIN = "admin"
    MANAGER = "manager"
    AGENT = "agent"
    VIEWER = "viewer"
    OPERATOR = "operator"


_SEES: Final = {Permission.VIEW_ASSIGNED_CLIENTS, Permission.VIEW_ASSIGNED_DATA}

ROLES: Final[Mapping[Role, frozenset[str]]] = {
    Role.ADMIN: frozenset(Permission),
    Role.MANAGER: frozenset(
        {
            Permission.MANAGE_TEAM,
            Permission.VIEW_ANALYTICS,
            Permission.SEND_MESSAGES,
            Permission.MANAGE_CLIENTS,
            Permission.MANAGE_WEBHOOKS,
            *_SEES,
        }
    ),
    Role.AGENT: frozenset({Permission.SEND_MESSAGES, *_SEES}),
    Role.VIEWER: frozenset({Permission.VIEW_ANALYTICS, *_SEES}),
    Role.OPERATOR: frozenset(Permission),
}

# Those who see every instance of their organization; others see what is assigned to them. What is
# an operator's own organization is the platform: others they reach by the routes for operators.
SEES_ALL: Final = frozenset({Role.ADMIN, Role.MANAGER, Role.OPERATOR})


class KeyPermission(StrEnum):
    """What an instance key may do for its instance."""

    MESSAGES_SEND = "messages.send"
    MESSAGES_RECEIVE = "messages.receive"
    CONTACTS_CHECK = "contacts.check"
    INSTANCE_INFO = "instance.info"
    INSTANCE_STATS = "instance.stats"
    WEBHOOK_CONFIGURE = "webhook.configure"
    WEBHOOK_TEST = "webhook.test"


class _Group(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class MessagesPermissions(_Group):
    """``receive`` is reading messages and events."""

    send: bool = True
    receive: bool = True


class ContactsPermissions(_Group):
    """``check`` is asking whether a number is on WhatsApp."""

    check: bool = True


class InstancePermissions(_Group):
    """Reading about the instance and its statistics."""

    info: bool = True
    stats: bool = True


class WebhookPermissions(_Group):
    """Off by default: whoever sets the webhook reads everything that is received."""

    configure: bool = False
    test: bool = False


class KeyPermissions(_Group):
    """The permission map of an instance key; what is left out has its default."""

    messages: MessagesPermissions = MessagesPermissions()
    contacts: ContactsPermissions = ContactsPermissions()
    instance: InstancePermissions = InstancePermissions()
    webhook: WebhookPermissions = WebhookPermissions()


def granted(permissions: KeyPermissions) -> frozenset[str]:
    """The permissions that the map grants, by their names."""
    return frozenset(
        f"{group}.{name}"
        for group, members in permissions.model_dump().items()
        for name, on in members.items()
        if on
    )
