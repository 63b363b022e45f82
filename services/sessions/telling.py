"""Telling: an engine's stanza as the event that customers see."""

from collections.abc import Mapping
from uuid import UUID

from services.sessions.domain.addresses import GROUP, public
from services.sessions.engines.port import (
    MessageEdited,
    MessageReceived,
    MessageRevoked,
    Reaction,
    Stanza,
)
from services.sessions.supervisor import Session
from shared.contracts import events
from shared.contracts.content import Content, Media
from shared.contracts.envelope import Emitted
from shared.ids import id_of

# Messages that an account sent itself, by instance and engine message id.
Messages = Mapping[tuple[UUID, str], UUID]


def emitted(session: Session, stanza: Stanza, sent: Messages) -> Emitted:
    """The event with its envelope. Its id is a function of the stanza, so a repeat is known."""
    message_id = _message_id(stanza, sent)
    event = _event(session, stanza, message_id)
    cause: tuple[object, ...] = (event.TYPE, message_id)
    if not isinstance(stanza, MessageReceived):
        cause = (*cause, stanza.stanza_key)
    return Emitted(
        id=id_of(*cause),
        event=event,
        tenant_id=session.instance.tenant_id,
        instance_id=stanza.instance_id,
        time=stanza.at,
        subject=f"messages/{message_id}",
        partition_key=stanza.chat,
    )


def media_id_of(stanza: Stanza) -> UUID | None:
    """The ``mediaId`` of the file that a message comes with; the same however often it comes."""
    if not isinstance(stanza, MessageReceived) or stanza.media is None:
        return None
    if not isinstance(stanza.content, Media):
        return None
    return id_of("media", stanza.instance_id, stanza.stanza_key)


def _message_id(stanza: Stanza, sent: Messages) -> UUID:
    """Waypost's id of the message that a stanza is, or is about."""
    author = stanza.sender
    match stanza:
        case MessageReceived():
            target = stanza.engine_message_id
        case MessageEdited():
            target = stanza.target_id
        case MessageRevoked() | Reaction():
            target = stanza.target_id
            author = stanza.author or author
            ours = sent.get((stanza.instance_id, target))
            if ours is not None:
                return ours
        case _:
            raise TypeError(f"a stanza of type {type(stanza).__name__}")
    return id_of("inbound", stanza.instance_id, stanza.chat, target, author.chat_id)


def _event(session: Session, stanza: Stanza, message_id: UUID) -> events.MessageEvent:
    id_ = str(message_id)
    sender = public(stanza.sender.chat_id)
    to = public(session.number) if session.number is not None else ""
    group = stanza.chat if stanza.chat.endswith(GROUP) else None
    match stanza:
        case MessageReceived():
            return events.MessageReceived(
                message_id=id_,
                from_=sender,
                to=to,
                message_type=stanza.content.kind,
                timestamp=stanza.at,
                identity=stanza.sender,
                group_id=group,
                content=_with_media(stanza),
                engine_message_id=stanza.engine_message_id,
                reply_to=stanza.reply_to,
            )
        case MessageEdited():
            return events.MessageEdited(
                message_id=id_,
                from_=sender,
                to=to,
                message_type=stanza.content.kind,
                timestamp=stanza.at,
                identity=stanza.sender,
                group_id=group,
                content=stanza.content,
            )
        case MessageRevoked():
            return events.MessageRevoked(
                message_id=id_,
                from_=sender,
                to=to,
                message_type="revoked",
                timestamp=stanza.at,
                identity=stanza.sender,
                group_id=group,
            )
        case Reaction():
            return events.MessageReaction(
                message_id=id_,
                from_=sender,
                to=to,
                message_type="reaction",
                timestamp=stanza.at,
                identity=stanza.sender,
                group_id=group,
                emoji=stanza.emoji,
            )
        case _:
            raise TypeError(f"a stanza of type {type(stanza).__name__}")


def _with_media(stanza: MessageReceived) -> Content:
    media_id = media_id_of(stanza)
    if media_id is None or not isinstance(stanza.content, Media):
        return stanza.content
    return stanza.content.model_copy(update={"media_id": str(media_id)})
