"""Who is calling, and what of their organization they may see."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID

from services.gateway.domain.permissions import SEES_ALL, Role


class PrincipalKind(StrEnum):
    """By what a caller is known."""

    USER = "user"
    USER_KEY = "user_key"
    INSTANCE_KEY = "instance_key"


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who is calling.

    A user has ``user_id``, ``role`` and ``session_id``, and ``assigned``, the instances that they
    see if they do not see all; a user key the same, without a session but with ``key_id`` and
    ``rate_limit``, requests an hour; an instance key ``instance_id``, ``key_id`` and
    ``rate_limit``. ``permissions`` holds names of ``Permission`` or of ``KeyPermission``.
    ``limit_key`` is under what their requests are counted. ``masking``: their organization hides
    numbers from some of its people; never so of an instance key. Who is ``suspended`` with their
    whole organization is refused before anything else is asked.
    """

    kind: PrincipalKind
    tenant_id: UUID
    permissions: frozenset[str]
    limit_key: str
    user_id: UUID | None = None
    role: Role | None = None
    session_id: UUID | None = None
    assigned: frozenset[UUID] = frozenset()
    instance_id: UUID | None = None
    key_id: UUID | None = None
    rate_limit: int | None = None
    suspended: bool = False
    masking: bool = False
    facts: Mapping[str, str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # What every line about one of their requests says; made once for all of those.
        object.__setattr__(self, "facts", {"tenant_id": str(self.tenant_id)})


@dataclass(frozen=True, slots=True)
class Scope:
    """What a principal sees: of one tenant, all instances (``None``) or these.

    ``user_id`` is whose own things they see too, which belong to no instance.
    """

    tenant_id: UUID
    instances: frozenset[UUID] | None = None
    user_id: UUID | None = None

    def sees(self, instance_id: UUID) -> bool:
        """Whether this instance, if it is the tenant's, may be known to the principal."""
        return self.instances is None or instance_id in self.instances

    def only(self, instance_id: UUID | None) -> "Scope":
        """The scope narrowed to one instance, if any is named."""
        if instance_id is None:
            return self
        return Scope(self.tenant_id, frozenset({instance_id} if self.sees(instance_id) else ()))


def scope_of(principal: Principal) -> Scope:
    """What ``principal`` sees: a key its instance, people all of them or what is assigned."""
    if principal.instance_id is not None:
        return Scope(principal.tenant_id, frozenset({principal.instance_id}))
    if principal.role in SEES_ALL:
        return Scope(principal.tenant_id)
    return Scope(principal.tenant_id, principal.assigned, principal.user_id)


def tenant_of_concern(principal: Principal) -> UUID | None:
    """Whose affairs ``principal`` looks after: of one tenant, or as an operator everybody's."""
    return None if principal.role is Role.OPERATOR else principal.tenant_id
