"""What operators of the platform see and do."""

from collections.abc import Sequence

from services.gateway.api.platform import Administration
from services.gateway.api.schemas.platform import (
    BroadcastView,
    NewBroadcast,
    PlatformQuery,
    PlatformView,
    TenantChange,
    TenantsInstancesQuery,
    TenantsInstanceView,
    TenantsQuery,
    TenantView,
)
from services.gateway.domain.access import Needs
from shared.web.routes import Route

_TAG = "Administration"


def routes(administration: Administration) -> Sequence[Route]:
    """What there is under ``/api/admin``."""
    return (
        Route(
            method="GET",
            path="/api/admin/instances",
            handler=administration.instances,
            summary="List the instances of all organizations, newest first",
            tag=_TAG,
            permission=Needs.OPERATE,
            query=TenantsInstancesQuery,
            response=TenantsInstanceView,
            paginated=True,
            limited=True,
        ),
        Route(
            method="GET",
            path="/api/admin/organizations",
            handler=administration.organizations,
            summary="List organizations, newest first",
            tag=_TAG,
            permission=Needs.OPERATE,
            query=TenantsQuery,
            response=TenantView,
            paginated=True,
            limited=True,
        ),
        Route(
            method="PUT",
            path="/api/admin/organizations/{id}",
            handler=administration.change_organization,
            summary="Change an organization's plan, or suspend it",
            description="Of a suspended organization no login and no key works, and what its "
            "instances have to send waits; what comes in is still received and told.",
            tag=_TAG,
            permission=Needs.OPERATE,
            request=TenantChange,
            response=TenantView,
            limited=True,
            audited="platform.organization_changed",
        ),
        Route(
            method="GET",
            path="/api/admin/analytics",
            handler=administration.analytics,
            summary="How much there is on the platform, and what goes over it",
            tag=_TAG,
            permission=Needs.OPERATE,
            query=PlatformQuery,
            response=PlatformView,
            limited=True,
        ),
        Route(
            method="POST",
            path="/api/admin/broadcast",
            handler=administration.broadcast,
            summary="Tell every organization something",
            description="Each gets the event `system.status`, once, soon after this is answered.",
            tag=_TAG,
            permission=Needs.OPERATE,
            request=NewBroadcast,
            response=BroadcastView,
            status=202,
            idempotent=True,
            limited=True,
            audited="platform.broadcast_announced",
        ),
    )
