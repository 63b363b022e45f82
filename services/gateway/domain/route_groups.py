"""Routes that may be called less often than others: each group of them has a limit of its own."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Final


class RouteGroup(StrEnum):
    """What a group's calls have in common, which is what they cost."""

    ANALYTICS = "analytics"
    ADMIN = "admin"
    # Of strangers, but of those who come often: WhatsApp's own servers.
    CALLBACKS = "callbacks"


_CALLBACKS: Final = frozenset({"/api/webhooks/whatsapp"})
_ANALYTICS: Final = "/api/analytics/"
_ADMIN: Final = "/api/admin/"


def groups_of(path: str) -> Sequence[RouteGroup]:
    """The groups of the route with this path; most have none, and some have several."""
    if path in _CALLBACKS:
        return (RouteGroup.CALLBACKS,)
    found = []
    if path.startswith(_ANALYTICS) or path.endswith("/analytics"):
        found.append(RouteGroup.ANALYTICS)
    if path.startswith(_ADMIN):
        found.append(RouteGroup.ADMIN)
    return tuple(found)
