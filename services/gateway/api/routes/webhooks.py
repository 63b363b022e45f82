"""The primary webhook of an instance."""

from collections.abc import Sequence
from dataclasses import replace

from services.gateway.api.schemas.fields import Deleted
from services.gateway.api.schemas.webhooks import (
    CreatedWebhook,
    NewWebhook,
    TestResult,
    WebhookChange,
    WebhookView,
)
from services.gateway.api.webhook import PrimaryWebhook
from services.gateway.domain.access import Needs
from shared.web.routes import Route

_TAG = "Webhooks"
_OWN = "/api/webhook"


def routes(webhook: PrimaryWebhook) -> Sequence[Route]:
    """What there is under ``/api/webhook``, for keys, and the same of an instance, for users."""
    own = (
        Route(
            method="POST",
            path=_OWN,
            handler=webhook.create,
            audited="webhook.created",
            summary="Set the instance's webhook",
            description="The only time that the secret is seen.",
            tag=_TAG,
            permission=Needs.OWN_WEBHOOK,
            request=NewWebhook,
            response=CreatedWebhook,
            status=201,
            idempotent=True,
            limited=True,
            errors=("CONFLICT", "NOT_FOUND"),
        ),
        Route(
            method="GET",
            path=_OWN,
            handler=webhook.get,
            summary="The instance's webhook",
            tag=_TAG,
            permission=Needs.OWN_WEBHOOK,
            response=WebhookView,
            limited=True,
            errors=("CONFIG_NOT_FOUND", "NOT_FOUND"),
        ),
        Route(
            method="PUT",
            path=_OWN,
            handler=webhook.change,
            audited="webhook.changed",
            summary="Change the instance's webhook",
            description="One that was disabled because it kept failing gets a new chance.",
            tag=_TAG,
            permission=Needs.OWN_WEBHOOK,
            request=WebhookChange,
            response=WebhookView,
            limited=True,
            errors=("CONFIG_NOT_FOUND", "NOT_FOUND"),
        ),
        Route(
            method="DELETE",
            path=_OWN,
            handler=webhook.delete,
            audited="webhook.deleted",
            summary="Remove the instance's webhook",
            tag=_TAG,
            permission=Needs.OWN_WEBHOOK,
            response=Deleted,
            limited=True,
            errors=("CONFIG_NOT_FOUND", "NOT_FOUND"),
        ),
        Route(
            method="POST",
            path=f"{_OWN}/test",
            handler=webhook.test,
            audited="webhook.tested",
            summary="Send an event `test` to the instance's webhook, and wait for its answer",
            tag=_TAG,
            permission=Needs.TEST_OWN_WEBHOOK,
            response=TestResult,
            limited=True,
            errors=("CONFIG_NOT_FOUND", "NOT_FOUND"),
        ),
    )
    return (*own, *(_of_instance(route) for route in own))


def _of_instance(route: Route) -> Route:
    """The same for a user, who names the instance."""
    path = route.path.replace(_OWN, "/api/instances/{id}/webhook", 1)
    return replace(
        route,
        path=path,
        # Where it leads stays when the key is gone that has set it.
        permission=Needs.SET_WEBHOOKS if route.request is not None else Needs.WEBHOOKS,
        aliases=(path.replace("/api/instances", "/api/clients", 1),),
    )
