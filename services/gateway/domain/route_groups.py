"""Routes that may be called less often than others: each group of them has a limit of its own."""

from enum import StrEnum
from typing import Final


class RouteGroup(StrEnum):
    """What a group's calls have in common, which is what they cost."""

    ANALYTICS = "analytics"
    ADMIN = "admin"
    # Of strangers, but of those who come often: WhatsApp's own servers.
    CALLBACKS = "callbacks"


_CALLBACKS: Final = frozenset({"/api/webhooks/whatsapp"})
_ANALYTICS: Final = ("/api/analytics/", "/api/admin/analytics")


def group_of(path: str) -> RouteGroup | None:
    """The group of the route with this path; most have none."""
    if path.startswith(_ANALYTICS) or path.endswith("/analytics"):
        return RouteGroup.ANALYTICS
    if path in _CALLBACKS:
        return RouteGroup.CALLBACKS
    if path.startswith("/api/admin/"):
        return RouteGroup.ADMIN
    return None
