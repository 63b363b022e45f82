"""What can be found out about an instance, and what is tied to it."""

from collections.abc import Sequence

from services.gateway.api.analytics import Analytics, AnalyticsQuery, AnalyticsView
from services.gateway.api.details import ConfigView, ConnectionTest, Details
from services.gateway.api.health import Conditions, InstanceHealthView
from services.gateway.api.phone_mappings import NewPhoneMapping, PhoneMappings, PhoneMappingView
from services.gateway.api.routes.instances import also_as_client
from services.gateway.api.schemas.fields import Deleted
from services.gateway.domain.access import Needs
from shared.web.pagination import PageQuery
from shared.web.routes import Route

_TAG = "Instances"
_ONE = "/api/instances/{id}"


def routes(
    conditions: Conditions, analytics: Analytics, details: Details, mappings: PhoneMappings
) -> Sequence[Route]:
    """More of what there is under ``/api/instances``, and the same under ``/api/clients``."""
    named = (
        _health(conditions),
        _analytics(analytics),
        *_details(details),
        *_mappings(mappings),
    )
    return tuple(also_as_client(route) for route in named)


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


def _analytics(analytics: Analytics) -> Route:
    return Route(
        method="GET",
        path=f"{_ONE}/analytics",
        handler=analytics.of_instance,
        summary="What an instance has done, hour by hour",
        description="At most 31 days at once, in the organization's time zone. Hours are kept for "
        "90 days by default; hours in which nothing happened are left out.",
        tag="Statistics",
        permission=Needs.STATISTICS,
        query=AnalyticsQuery,
        response=AnalyticsView,
        limited=True,
    )


def _details(details: Details) -> Sequence[Route]:
    return (
        Route(
            method="POST",
            path=f"{_ONE}/test-connection",
            handler=details.test,
            summary="Whether WhatsApp answers for an instance",
            description="Asks it for the account's own profile. Whatever goes wrong is told in "
            "`error`, with 200.",
            tag=_TAG,
            permission=Needs.MANAGE_CLIENTS,
            response=ConnectionTest,
            limited=True,
        ),
        Route(
            method="GET",
            path=f"{_ONE}/config",
            handler=details.config,
            summary="Everything that is set for an instance",
            description="Secrets are masked.",
            tag=_TAG,
            permission=Needs.MANAGE_CLIENTS,
            response=ConfigView,
            limited=True,
        ),
    )


def _mappings(mappings: PhoneMappings) -> Sequence[Route]:
    return (
        Route(
            method="POST",
            path=f"{_ONE}/phone-mappings",
            handler=mappings.create,
            summary="Tie a contact's number to a user of the organization",
            description="A number stands for one user at an instance. Emits `user.mapped`.",
            tag=_TAG,
            permission=Needs.MANAGE_CLIENTS,
            audited="phone_mapping.created",
            request=NewPhoneMapping,
            response=PhoneMappingView,
            status=201,
            idempotent=True,
            limited=True,
            errors=("CONFLICT", "QUOTA_EXCEEDED"),
        ),
        Route(
            method="GET",
            path=f"{_ONE}/phone-mappings",
            handler=mappings.page,
            summary="List the numbers that stand for users, newest first",
            tag=_TAG,
            permission=Needs.SEE_CLIENTS,
            query=PageQuery,
            response=PhoneMappingView,
            paginated=True,
            limited=True,
        ),
        Route(
            method="DELETE",
            path=f"{_ONE}/phone-mappings/{{mappingId}}",
            handler=mappings.delete,
            summary="Let a number stand for nobody again",
            tag=_TAG,
            permission=Needs.MANAGE_CLIENTS,
            audited="phone_mapping.deleted",
            response=Deleted,
            limited=True,
        ),
    )
