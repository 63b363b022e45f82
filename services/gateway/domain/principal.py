"""Who is calling, and what of their organization they may see."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from services.gateway.domain.permissions import SEES_ALL, KeyPermission, Permission, Role
from shared.errors import Forbidden


class PrincipalKind(StrEnum):
    """By what a caller is known."""

    USER = "user"
    INSTANCE_KEY = "instance_key"


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who is calling.

    A user has ``user_id``, ``role`` and ``session_id``; an instance key ``instance_id``, ``key_id``
    and ``rate_limit``, requests an hour. ``permissions`` holds names of ``Permission`` or of
    ``KeyPermission``. ``limit_key`` is under what their requests are counted.
    """

    kind: PrincipalKind
    tenant_id: UUID
    permissions: frozenset[str]
    limit_key: str
    user_id: UUID | None = None
    role: Role | None = None
    session_id: UUID | None = None
    instance_id: UUID | None = None
    key_id: UUID | None = None
    rate_limit: int | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Scope:
    """What a principal sees: of one tenant, all instances (``None``) or these."""

    tenant_id: UUID
    instances: frozenset[UUID] | None = None

    def sees(self, instance_id: UUID) -> bool:
        """Whether this instance, if it is the tenant's, may be known to the principal."""
        return self.instances is None or instance_id in self.instances

    def only(self, instance_id: UUID | None) -> "Scope":
        """The scope narrowed to one instance, if any is named."""
        if instance_id is None:
            return self
        return Scope(self.tenant_id, frozenset({instance_id} if self.sees(instance_id) else ()))


def scope_of(principal: Principal) -> Scope:
    """What ``principal`` sees. People who see only what is assigned to them see nothing yet."""
    if principal.instance_id is not None:
        return Scope(principal.tenant_id, frozenset({principal.instance_id}))
    if principal.role in SEES_ALL:
        return Scope(principal.tenant_id)
    return Scope(principal.tenant_id, frozenset())


@dataclass(frozen=True, slots=True)
class Access:
    """What a route asks of its caller.

    ``user`` is what a person needs: a permission, or nothing but being one (``None``). ``key`` is
    what an instance key needs; without it, instance keys may not call the route.
    """

    user: Permission | None = None
    key: KeyPermission | None = None
    users: bool = True


_ONE_INSTANCE: Final = (
    "This needs a user's access token: an instance key acts for its own instance and never names one."
)


def require(principal: Principal, access: Access) -> None:
    """Raise ``Forbidden``, saying what is missing, unless ``principal`` may call the route."""
    if principal.kind is PrincipalKind.INSTANCE_KEY:
        if access.key is None:
            raise Forbidden(_ONE_INSTANCE)
        needed: str = access.key
        remedy = "give the key that permission, or use another key"
    elif not access.users:
        raise Forbidden("This is for instance keys (api_…); a user names the instance in the path.")
    elif access.user is None:
        return
    else:
        needed = access.user
        remedy = "ask an administrator of your organization"
    if needed not in principal.permissions:
        raise Forbidden(f"This needs the permission {needed}; {remedy}.")
