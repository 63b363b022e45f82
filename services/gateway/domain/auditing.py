"""Who did what: the entries of the audit log, and what is told of without anything being done."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from services.gateway.domain.permissions import Role
from services.gateway.domain.principal import Principal
from services.gateway.domain.redaction import Facts


class ActorKind(StrEnum):
    """What somebody acted as."""

    USER = "user"
    USER_KEY = "user_key"
    INSTANCE_KEY = "instance_key"
    OPERATOR = "operator"
    SYSTEM = "system"
    STRANGER = "stranger"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who did it: the user, and the key that was shown, where there is one."""

    kind: ActorKind
    user_id: UUID | None = None
    key_id: UUID | None = None


SYSTEM: Final = Actor(ActorKind.SYSTEM)
"""Waypost itself."""

STRANGER: Final = Actor(ActorKind.STRANGER)
"""Somebody who has not shown who they are."""


def actor_of(principal: Principal) -> Actor:
    """As what a caller acts."""
    if principal.instance_id is not None:
        kind = ActorKind.INSTANCE_KEY
    elif principal.role is Role.OPERATOR:
        kind = ActorKind.OPERATOR
    elif principal.key_id is not None:
        kind = ActorKind.USER_KEY
    else:
        kind = ActorKind.USER
    return Actor(kind, principal.user_id, principal.key_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One thing that was done. ``action`` is dotted and in the past tense: ``instance.created``.

    ``before`` and ``after`` are kept without secrets, and where both are there, without what they
    have in common. ``times`` is how often it happened since the entry before that is like it.
    Without ``tenant_id`` it concerns no organization, or nobody knows which.
    """

    id: UUID
    at: datetime
    tenant_id: UUID | None
    actor: Actor
    action: str
    resource_type: str
    resource_id: str | None = None
    before: Facts | None = None
    after: Facts | None = None
    address: str | None = None
    request_id: str | None = None
    times: int = 1


class Security(StrEnum):
    """What is worth knowing although it has changed nothing."""

    LOGIN_FAILED = "security.login_failed"
    LOGIN_LOCKED = "security.login_locked"
    REFRESH_TOKEN_REUSED = "security.refresh_token_reused"  # noqa: S105 - a name, no secret
    REVOKED_KEY_USED = "security.revoked_key_used"
    EXPIRED_KEY_USED = "security.expired_key_used"
    PERMISSION_DENIED = "security.permission_denied"
    CALLBACK_FORGED = "security.callback_forged"


# What the log holds that no route declares.
BEYOND_ROUTES: Final[Mapping[str, str]] = {
    "operator.created": "An operator of the platform was made from a shell",
    "instances.imported": "Clients of version 1 were made instances from a shell",
    Security.LOGIN_FAILED: "A login with a wrong password, or for an address without an account",
    Security.LOGIN_LOCKED: "Logins that had to wait, because too many had failed",
    Security.REFRESH_TOKEN_REUSED: "A refresh token was used twice, so its login was ended",
    Security.REVOKED_KEY_USED: "A key was shown that had been revoked",
    Security.EXPIRED_KEY_USED: "A key was shown that had expired",
    Security.PERMISSION_DENIED: "A caller lacked the permission for what they asked",
    Security.CALLBACK_FORGED: "A callback was not signed with the secret of the instance it names",
}
