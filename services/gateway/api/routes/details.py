"""What can be found out about an instance, and what is tied to it."""

from collections.abc import Sequence

from services.gateway.api.health import Conditions, InstanceHealthView
from services.gateway.api.routes.instances import also_as_client
from services.gateway.domain.access import Needs
from shared.web.routes import Route

_TAG = "Instances"
_ONE = "/api/instances/{id}"


def routes(conditions: Conditions) -> Sequence[Route]:
    """More of what there is under ``/api/instances``, and the same under ``/api/clients``."""
    return tuple(also_as_client(route) for route in (_health(conditions),))


def _health(conditions: Conditions) -> Route:
    return Route(
        method="GET",
        path=f"{_ONE}/health",
        handler=conditions.of_instance,
        summary="How an instance is doing",
        tag=_TAG,
        permission=Needs.SEE_CLIENTS,
        response=InstanceHealthView,
        limited=True,
    )
