"""Teams: who manages whom, and which roles somebody may give."""

from collections.abc import Mapping
from typing import Final
from uuid import UUID

from services.gateway.domain.permissions import Role
from services.gateway.domain.principal import Principal

# The organization that operators belong to; there is none such until there is an operator.
PLATFORM: Final = UUID("00000000-0000-7000-8000-000000000000")
PLATFORM_NAME: Final = "Platform"

# What each role may make others. An operator makes operators, since nobody else belongs to the
# platform; a manager nobody who may do more than to send and to look.
_GIVES: Final[Mapping[Role, frozenset[Role]]] = {
    Role.ADMIN: frozenset({Role.ADMIN, Role.MANAGER, Role.AGENT, Role.VIEWER}),
    Role.MANAGER: frozenset({Role.AGENT, Role.VIEWER}),
    Role.OPERATOR: frozenset({Role.OPERATOR}),
}

# Those who may be named as somebody's manager.
MANAGERS: Final = frozenset({Role.ADMIN, Role.MANAGER})


def gives(role: Role | None) -> frozenset[Role]:
    """The roles that somebody with this one may give and take."""
    return frozenset() if role is None else _GIVES.get(role, frozenset())


def last_of(tenant_id: UUID) -> Role:
    """The role of which an organization always keeps somebody."""
    return Role.OPERATOR if tenant_id == PLATFORM else Role.ADMIN


def manager_seen_by(principal: Principal) -> UUID | None:
    """Whose people the principal sees: their own if they are a manager, else everybody's."""
    return principal.user_id if principal.role is Role.MANAGER else None
