"""The table of routes: what is served, what it asks of its caller, and what is documented."""

from collections.abc import Sequence
from dataclasses import dataclass

from services.gateway.api.accounts import Accounts
from services.gateway.api.analytics import Analytics
from services.gateway.api.audit_logs import AuditLogs
from services.gateway.api.callbacks import Callbacks
from services.gateway.api.connections import Connections
from services.gateway.api.dead_letters import DeadLetters
from services.gateway.api.details import Details
from services.gateway.api.events import Events
from services.gateway.api.groups import Groups
from services.gateway.api.guard import Guards
from services.gateway.api.health import Conditions
from services.gateway.api.instances import Instances
from services.gateway.api.keys import Keys
from services.gateway.api.locks import Locks
from services.gateway.api.media import Media
from services.gateway.api.membership import Membership
from services.gateway.api.organization import Organizations
from services.gateway.api.pairing import Pairing
from services.gateway.api.phone_mappings import PhoneMappings
from services.gateway.api.platform import Administration
from services.gateway.api.routes import (
    accounts,
    audit,
    callbacks,
    details,
    groups,
    instances,
    media,
    messages,
    operation,
    platform,
    team,
    webhooks,
)
from services.gateway.api.routes.messages import MessageHandlers
from services.gateway.api.sandbox import Sandbox
from services.gateway.api.stats import Stats
from services.gateway.api.team import Team
from services.gateway.api.user_keys import UserKeys
from services.gateway.api.version import Versions
from services.gateway.api.webhook import PrimaryWebhook
from services.gateway.api.workers import Workers
from shared.web.routes import Route


@dataclass(frozen=True, slots=True, kw_only=True)
class Handlers:
    """Everything that answers."""

    accounts: Accounts
    membership: Membership
    organizations: Organizations
    team: Team
    user_keys: UserKeys
    administration: Administration
    instances: Instances
    connections: Connections
    pairing: Pairing
    guards: Guards
    keys: Keys
    groups: Groups
    messages: MessageHandlers
    media: Media
    webhook: PrimaryWebhook
    callbacks: Callbacks
    stats: Stats
    events: Events
    sandbox: Sandbox
    dead_letters: DeadLetters
    locks: Locks
    audit_logs: AuditLogs
    workers: Workers
    conditions: Conditions
    analytics: Analytics
    details: Details
    phone_mappings: PhoneMappings
    versions: Versions


def table(handlers: Handlers) -> Sequence[Route]:
    """All routes of the API."""
    return (
        *accounts.routes(
            handlers.accounts, handlers.membership, handlers.organizations, handlers.locks
        ),
        *team.routes(handlers.team, handlers.user_keys),
        *platform.routes(handlers.administration),
        *instances.routes(
            handlers.instances,
            handlers.connections,
            handlers.pairing,
            handlers.guards,
            handlers.keys,
        ),
        *details.routes(
            handlers.conditions, handlers.analytics, handlers.details, handlers.phone_mappings
        ),
        *groups.routes(handlers.groups),
        *messages.routes(handlers.messages),
        *media.routes(handlers.media),
        *webhooks.routes(handlers.webhook),
        *callbacks.routes(handlers.callbacks),
        *audit.routes(handlers.audit_logs),
        *operation.routes(
            handlers.stats,
            handlers.events,
            handlers.sandbox,
            handlers.versions,
        ),
        *operation.upkeep(handlers.dead_letters, handlers.workers, handlers.conditions),
    )
