"""Messages."""

from collections.abc import Sequence

from services.gateway.api.messages import Messages
from services.gateway.api.schemas.messages import (
    AcceptedView,
    HopView,
    MessageQuery,
    MessageView,
    NewText,
)
from services.gateway.api.sending import Sending
from services.gateway.domain.access import Needs
from shared.web.routes import Route

_TAG = "Messages"


def routes(sending: Sending, messages: Messages) -> Sequence[Route]:
    """What there is under ``/api/messages``."""
    return (
        Route(
            method="POST",
            path="/api/messages/text",
            handler=sending.text,
            summary="Send a text",
            description="202 means: committed. It will be sent, or fail with a reason; either is "
            "an event, and on its timeline.",
            tag=_TAG,
            permission=Needs.SEND,
            request=NewText,
            response=AcceptedView,
            status=202,
            idempotent=True,
            limited=True,
            errors=("INSTANCE_NOT_READY", "NOT_FOUND", "ENGINE_UNAVAILABLE"),
        ),
        Route(
            method="GET",
            path="/api/messages",
            handler=messages.page,
            summary="List messages, latest first",
            tag=_TAG,
            permission=Needs.READ,
            query=MessageQuery,
            response=MessageView,
            paginated=True,
            limited=True,
        ),
        Route(
            method="GET",
            path="/api/messages/{id}",
            handler=messages.get,
            summary="One message, and what became of it",
            tag=_TAG,
            permission=Needs.READ,
            response=MessageView,
            limited=True,
        ),
        Route(
            method="GET",
            path="/api/messages/{id}/timeline",
            handler=messages.timeline,
            summary="Everything that happened to a message, hop by hop",
            tag=_TAG,
            permission=Needs.READ,
            response=list[HopView],
            limited=True,
        ),
    )
