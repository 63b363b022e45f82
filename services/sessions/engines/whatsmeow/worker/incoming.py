"""Hearing things: from neonize's events to the port's.

A stanza's key is made of WhatsApp's own ids and canonical addresses, so what is delivered again,
be it under the other of a person's addresses, has the key of the first time.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal, TypeGuard
from uuid import UUID

from services.sessions.domain.addresses import PERSON, public
from services.sessions.engines.port import (
    EngineEvent,
    Incoming,
    MediaHandle,
    MessageEdited,
    MessageReceived,
    MessageRevoked,
    Reaction,
    StatusChanged,
)
from services.sessions.engines.whatsmeow.worker import addresses, contents, library, quoting
from services.sessions.engines.whatsmeow.worker.memory import Named, memory_of
from services.sessions.engines.whatsmeow.worker.outgoing import MESSAGE_EDIT, REVOKE
from services.sessions.engines.whatsmeow.worker.shapes import (
    Client,
    Heard,
    Key,
    Message,
    Proto,
    Receipt,
    Vote,
)
from services.sessions.engines.whatsmeow.worker.words import clean
from shared.contracts.content import Content, Identity, Media, Poll, PollVote, Text
from shared.errors import Transient
from shared.log import get_logger

log = get_logger()


# ``Receipt.ReceiptType``: what a receipt from somebody else says. Played is read, and more;
# inactive is what a phone sends that received the message without being open. The others are
# between devices: a request to send again, and what the account's own devices tell one another.
_STATUSES: Final[dict[int, Literal["delivered", "read"]]] = {
    1: "delivered",
    4: "read",
    6: "read",
    9: "delivered",
}
_BY_LID: Final = 2
# The stanza's ``edit`` attribute when an administrator deletes somebody else's message.
_ADMIN_REVOKE: Final = "8"
_MOST_MENTIONS: Final = 256
_PEOPLE: Final = (addresses.LID, PERSON)


@dataclass(frozen=True, slots=True)
class Heading:
    """What is known of a message beside what it says. ``chat`` and ``sender`` are canonical."""

    instance_id: UUID
    at: datetime
    chat: str
    sender: Identity
    id: str

    def key(self, kind: str) -> str:
        return f"{kind}|{self.chat}|{self.sender.chat_id}|{self.id}"

    def over(
        self,
        content: Content,
        *,
        kind: str = "message",
        reply_to: str | None = None,
        media: MediaHandle | None = None,
    ) -> MessageReceived:
        """The message that it stands over, when that says something of its own."""
        return MessageReceived(
            instance_id=self.instance_id,
            at=self.at,
            stanza_key=self.key(kind),
            chat=self.chat,
            sender=self.sender,
            engine_message_id=self.id,
            content=content,
            reply_to=reply_to,
            media=media,
        )


async def heard(
    client: Client, event: Proto, *, instance_id: UUID, at: datetime
) -> Sequence[EngineEvent]:
    """What one of neonize's events tells, if it is a message or a receipt; it was heard ``at``.

    Nothing for what the account itself wrote elsewhere, for status updates and newsletters, for
    what could not be decrypted (the sender is asked for it again, and it comes again), and for
    messages of kinds that Waypost does not know. Raises ``Transient`` if the store could not be
    asked whose an address is: the same event must be heard again.
    """
    try:
        if _is_message(event):
            return await _message(client, event, instance_id=instance_id, at=at)
        if _is_receipt(event):
            return _receipts(event, instance_id=instance_id, at=at)
    except ValueError as error:
        # A stranger's client made something that no honest one makes.
        log.warning("inbound_unreadable", event_type=event.DESCRIPTOR.full_name, error=_of(error))
    return ()


def _is_message(event: Proto) -> TypeGuard[Heard]:
    return event.DESCRIPTOR.full_name == "neonize.Message"


def _is_receipt(event: Proto) -> TypeGuard[Receipt]:
    return event.DESCRIPTOR.full_name == "neonize.Receipt"


def _of(error: ValueError) -> str:
    return type(error).__name__


def _receipts(event: Receipt, *, instance_id: UUID, at: datetime) -> Sequence[StatusChanged]:
    status = _STATUSES.get(event.Type)
    if status is None or event.MessageSource.IsFromMe:
        return ()
    when = _moment(event.Timestamp, at=at)
    return [
        StatusChanged(instance_id=instance_id, at=when, engine_message_id=id_, status=status)
        for id_ in event.MessageIDs
    ]


async def _message(
    client: Client, event: Heard, *, instance_id: UUID, at: datetime
) -> Sequence[Incoming]:
    inner = contents.unwrapped(event.Message)
    if event.Info.MessageSource.IsFromMe:
        await _remember_own(client, event, inner)
        return ()
    place = await _place(client, event)
    if place is None:
        return ()
    chat, sender = place
    heading = Heading(
        instance_id=instance_id,
        at=_moment(event.Info.Timestamp / 1000, at=at),
        chat=chat,
        sender=sender,
        id=_id(event.Info.ID),
    )
    told = await _told(client, event, inner, heading)
    return () if told is None else (told,)


async def _told(client: Client, event: Heard, inner: Message, heading: Heading) -> Incoming | None:
    if inner.HasField("protocolMessage"):
        return await _changed(client, event, inner, heading)
    if inner.HasField("reactionMessage"):
        return await _reacted(client, inner, heading)
    if inner.HasField("pollUpdateMessage"):
        return await _voted(client, event, inner, heading)
    return await _received(client, inner, heading)


async def _received(client: Client, inner: Message, heading: Heading) -> MessageReceived | None:
    said = contents.read(inner)
    if said is None:
        return None
    name = (heading.chat, heading.sender.chat_id, heading.id)
    quoting.remember(client, name, inner)
    if isinstance(said.content, Poll):
        memory_of(client).polls.keep(name, said.content.options)
    content = await _referring(client, said)
    return heading.over(content, reply_to=said.reply_to, media=said.file)


async def _changed(
    client: Client, event: Heard, inner: Message, heading: Heading
) -> MessageEdited | MessageRevoked | None:
    change = inner.protocolMessage
    if not change.HasField("key") or not change.key.ID:
        return None
    if change.type == REVOKE:
        author = None
        if event.Info.Edit == _ADMIN_REVOKE:
            author = await _author(client, change.key, heading)
        return MessageRevoked(
            instance_id=heading.instance_id,
            at=heading.at,
            stanza_key=heading.key("revoke"),
            chat=heading.chat,
            sender=heading.sender,
            target_id=_id(change.key.ID),
            author=author,
        )
    if change.type != MESSAGE_EDIT or not change.HasField("editedMessage"):
        return None
    said = contents.read(contents.unwrapped(change.editedMessage))
    if said is None:
        return None
    return MessageEdited(
        instance_id=heading.instance_id,
        at=heading.at,
        stanza_key=heading.key("edit"),
        chat=heading.chat,
        sender=heading.sender,
        target_id=_id(change.key.ID),
        content=await _referring(client, said),
    )


async def _reacted(client: Client, inner: Message, heading: Heading) -> Reaction:
    reaction = inner.reactionMessage
    return Reaction(
        instance_id=heading.instance_id,
        at=heading.at,
        stanza_key=heading.key("reaction"),
        chat=heading.chat,
        sender=heading.sender,
        target_id=_id(reaction.key.ID),
        emoji=clean(reaction.text, longest=64),
        author=await _author(client, reaction.key, heading),
    )


async def _voted(
    client: Client, event: Heard, inner: Message, heading: Heading
) -> MessageReceived | None:
    vote = await _decrypted(client, event)
    if vote is None:
        # A poll from before this device was linked: it was never told the secret.
        log.warning("poll_vote_undecryptable", instance_id=str(heading.instance_id))
        return None
    key = inner.pollUpdateMessage.pollCreationMessageKey
    poll_id = _id(key.ID)
    names = memory_of(client).polls.get(await _poll_name(client, key, heading)) or ()
    by_hash = {hashlib.sha256(name.encode()).digest(): name for name in names}
    options = tuple(by_hash.get(chosen, chosen.hex()) for chosen in vote.selectedOptions)
    return heading.over(PollVote(poll_id=poll_id, options=options), kind="vote")


async def _decrypted(client: Client, event: Heard) -> Vote | None:
    """What was chosen. A vote is sealed with its sender's address, and that may be either."""
    library.mend_poll_votes()
    tries = [event]
    if event.Info.MessageSource.SenderAlt.User:
        tries.append(library.by_other_address(event))
    for sealed in tries:
        try:
            return await client.decrypt_poll_vote(sealed)
        except library.errors() as error:
            if "failed to get original message secret key" in str(error):
                raise Transient("The engine's store did not answer.") from error
    return None


async def _poll_name(client: Client, key: Key, heading: Heading) -> Named:
    if key.fromMe:
        return heading.chat, heading.sender.chat_id, key.ID
    author = await _author(client, key, heading)
    return heading.chat, "" if author is None else author.chat_id, key.ID


async def _author(client: Client, key: Key, heading: Heading) -> Identity | None:
    """Who wrote the message that a key names; ``None`` if its sender or the account did."""
    written_by = addresses.plain(clean(key.participant, longest=255))
    if key.fromMe or not heading.chat.endswith(addresses.GROUP) or not written_by:
        return None
    if written_by in await addresses.own(client):
        return None
    author = await addresses.identity(client, written_by)
    return None if author.chat_id == heading.sender.chat_id else author


async def _referring(client: Client, said: contents.Said) -> Content:
    """The content, with what it refers to in the addresses that customers know."""
    content = said.content
    if not isinstance(content, Text | Media):
        return content
    mentions = [
        public(await addresses.resolved(client, who)) for who in said.mentions[:_MOST_MENTIONS]
    ]
    by = addresses.plain(said.reply_to_sender)
    own = not by or by in await addresses.own(client)
    refers: dict[str, object] = {
        "mentions": tuple(mentions),
        "reply_to": said.reply_to,
        "reply_to_sender": (
            None if own or said.reply_to is None else public(await addresses.resolved(client, by))
        ),
    }
    return content.model_copy(update=refers)


async def _place(client: Client, event: Heard) -> tuple[str, Identity] | None:
    """In which chat a message was said, and by whom; ``None`` if it is nobody's concern."""
    source = event.Info.MessageSource
    chat = addresses.text_of(source.Chat)
    if chat.endswith(addresses.BROADCAST):
        if source.Chat.User == "status":
            return None
    elif not chat.endswith((*_PEOPLE, addresses.GROUP)):
        return None
    sender = await addresses.identity(
        client,
        addresses.text_of(source.Sender),
        also=addresses.text_of(source.SenderAlt),
        push_name=clean(event.Info.Pushname, longest=255),
    )
    if not sender.chat_id.endswith(_PEOPLE):
        return None
    if chat.endswith(addresses.GROUP):
        if source.HasField("AddressingMode"):
            memory_of(client).by_lid.keep(chat, source.AddressingMode == _BY_LID)
        return chat, sender
    # A list that somebody writes to is an ordinary chat for whoever is on it.
    return sender.chat_id, sender


async def _remember_own(client: Client, event: Heard, inner: Message) -> None:
    """The account wrote this on another device: no news, but it may be quoted or voted on."""
    chat = addresses.text_of(event.Info.MessageSource.Chat)
    if not chat.endswith((*_PEOPLE, addresses.GROUP)):
        return
    name = await addresses.named(client, chat, None, _id(event.Info.ID))
    quoting.remember(client, name, inner)
    said = contents.read(inner)
    if said is not None and isinstance(said.content, Poll):
        memory_of(client).polls.keep(name, said.content.options)


def _id(written: object) -> str:
    """A message's id. Raises ``ValueError`` if it is none: nothing could ever refer to it."""
    id_ = clean(written, longest=256)
    if not id_ or id_ != written or len(id_) > 255:
        raise ValueError("a message without a usable id")
    return id_


def _moment(seconds: float, *, at: datetime) -> datetime:
    """WhatsApp's time of something, unless it is none or in the future."""
    if not 0 < seconds < at.timestamp():
        return at
    return datetime.fromtimestamp(seconds, UTC)
