"""Messages, what changes them, and small signs to their chats."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from services.gateway.api.attaching import Attaching
from services.gateway.api.changing import Changing
from services.gateway.api.chats import Chats
from services.gateway.api.contacts import Contacts
from services.gateway.api.messages import Messages
from services.gateway.api.routes.groups import ASKED
from services.gateway.api.schemas.asked import CheckedView, MarkedView, PresenceView
from services.gateway.api.schemas.messages import (
    AcceptedView,
    ChangeView,
    HopView,
    MessageQuery,
    MessageView,
)
from services.gateway.api.schemas.outbound import (
    FORMS,
    NewContact,
    NewLocation,
    NewMedia,
    NewMessage,
    NewPoll,
    NewPresence,
    NewReaction,
    NewText,
    NewWords,
    NumbersToCheck,
    ReadMessages,
)
from services.gateway.api.sending import Sending
from services.gateway.domain.access import Needs
from shared.media.kinds import KINDS
from shared.web.routes import Route

_TAG = "Messages"
_ONE = "/api/messages/{id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageHandlers:
    """Everything that answers about messages."""

    sending: Sending
    attaching: Attaching
    changing: Changing
    messages: Messages
    chats: Chats
    contacts: Contacts


def routes(handlers: MessageHandlers) -> Sequence[Route]:
    """What there is under ``/api/messages``, ``/api/chats`` and ``/api/contacts``."""
    return (
        *_sent(handlers.sending, handlers.attaching),
        *_signs(handlers.chats, handlers.contacts),
        *_found(handlers.messages),
        *_changed(handlers.changing),
    )


def _sent(sending: Sending, attaching: Attaching) -> Sequence[Route]:
    text = Route(
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
        makes=_ONE,
        errors=("INSTANCE_NOT_READY", "NOT_FOUND", "ENGINE_UNAVAILABLE"),
    )
    files = [
        replace(
            text,
            path=f"/api/messages/{kind}",
            handler=attaching.of(kind),
            summary=f"Send a file as {kind}",
            description=f"As a form with the file under `{kind}`, or as JSON that names it. What "
            "a URL leads to is fetched when the message is sent, and fails it if it is not of a "
            "type or size that WhatsApp takes.",
            request=NewMedia,
            form=FORMS[kind],
            errors=(*text.errors, "QUOTA_EXCEEDED"),
        )
        for kind in KINDS
    ]
    anything = replace(
        text,
        path="/api/messages/send",
        handler=attaching.message,
        summary="Send any message: words, a file, or a file with words under it",
        request=NewMessage,
        errors=(*text.errors, "QUOTA_EXCEEDED"),
    )
    return (
        text,
        *files,
        replace(
            text,
            path="/api/messages/location",
            handler=sending.location,
            summary="Send a place",
            request=NewLocation,
        ),
        replace(
            text,
            path="/api/messages/contact",
            handler=sending.contact,
            summary="Send somebody's card",
            request=NewContact,
        ),
        replace(
            text,
            path="/api/messages/poll",
            handler=sending.poll,
            summary="Send a question with answers to choose from",
            description="Votes are received as messages of the type `poll_vote`.",
            request=NewPoll,
        ),
        replace(
            text,
            path="/api/messages/reaction",
            handler=sending.reaction,
            summary="React to a message",
            request=NewReaction,
        ),
        anything,
        replace(
            anything,
            path="/api/instances/{id}/send-message",
            summary="The same, with the instance in the path",
            permission=Needs.PLAY,
            aliases=("/api/clients/{id}/send-message",),
        ),
    )


def _signs(chats: Chats, contacts: Contacts) -> Sequence[Route]:
    return (
        Route(
            method="POST",
            path="/api/messages/read",
            handler=chats.read,
            summary="Tell chats that messages were read",
            description="202 means: it is being told. Should that be lost, nothing else is.",
            tag=_TAG,
            permission=Needs.SEND,
            request=ReadMessages,
            response=MarkedView,
            status=202,
            limited=True,
            errors=("INSTANCE_NOT_READY", "NOT_FOUND", "ENGINE_UNAVAILABLE"),
        ),
        Route(
            method="POST",
            path="/api/chats/presence",
            handler=chats.presence,
            summary="Show a chat that somebody is typing or recording, or has stopped",
            tag="Chats",
            permission=Needs.SEND,
            request=NewPresence,
            response=PresenceView,
            status=202,
            limited=True,
            errors=("INSTANCE_NOT_READY", "NOT_FOUND", "ENGINE_UNAVAILABLE"),
        ),
        Route(
            method="POST",
            path="/api/contacts/check",
            handler=contacts.check,
            summary="Find out which numbers are on WhatsApp",
            description="What is no number is answered without asking. Answers are remembered for "
            "a while.",
            tag="Contacts",
            permission=Needs.CHECK,
            request=NumbersToCheck,
            response=list[CheckedView],
            limited=True,
            errors=("NOT_FOUND", *ASKED),
        ),
    )


def _changed(changing: Changing) -> Sequence[Route]:
    edit = Route(
        method="PUT",
        path=_ONE,
        handler=changing.edit,
        summary="Give a text that was sent new words",
        description="Within 15 minutes of its sending. The edit is a message of its own, with "
        "events of its own; the text shows it once WhatsApp has taken it.",
        tag=_TAG,
        permission=Needs.SEND,
        request=NewWords,
        response=ChangeView,
        status=202,
        limited=True,
        errors=("CONFLICT", "INSTANCE_NOT_READY", "VALIDATION_FAILED", "ENGINE_UNAVAILABLE"),
    )
    return (
        edit,
        replace(
            edit,
            method="DELETE",
            handler=changing.revoke,
            summary="Delete a message for everyone",
            description="Within two days and twelve hours of its sending. The revocation is a "
            "message of its own; the message shows it once WhatsApp has taken it.",
            request=None,
        ),
    )


def _found(messages: Messages) -> Sequence[Route]:
    return (
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
            errors=("CONFLICT",),
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
