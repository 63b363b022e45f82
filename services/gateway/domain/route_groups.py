"""Routes that may be called less often than others: each group of them has a limit of its own."""

from enum import StrEnum
from typing import Final


class RouteGroup(StrEnum):
    """What a group's calls have in common, which is what they cost."""

    ANALYTICS = "analytics"
    ADMIN = "admin"


_ANALYTICS: Final = ("/api/analytics/", "/api/admin/analytics")


def group_of(path: str) -> RouteGroup | None:
    """The group of the route with this path; most have none."""
    if path.startswith(_ANALYTICS) or path.endswith("/analytics"):
        return RouteGroup.ANALYTICS
    if path.startswith("/api/admin/"):
        return RouteGroup.ADMIN
    return None
