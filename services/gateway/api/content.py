"""What requests want said, as messages hold it."""

import mimetypes
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from yarl import URL

from services.gateway.api import references
from services.gateway.api.references import Reference, Whose
from services.gateway.api.schemas.outbound import (
    CAPTIONED,
    Answering,
    Attached,
    MediaFields,
    NewContact,
    NewLocation,
    NewMedia,
    NewMessage,
    NewPoll,
    NewReaction,
    NewText,
)
from services.gateway.api.uploads import StoredMedia
from services.gateway.domain.recipients import Address, address_of
from services.gateway.store.instances import Sender
from shared.contracts.content import (
    ContactCard,
    Location,
    Media,
    Poll,
    Reaction,
    Sendable,
    Text,
)
from shared.db.database import Database
from shared.media.kinds import OCTETS, RULES, MediaKind, plain
from shared.web.body import invalid


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a message says, to whom, which message it is about, and when it is too late for it."""

    to: Address
    content: Sendable
    target_id: UUID | None = None
    expires_at: datetime | None = None

    @property
    def type(self) -> str:
        """The message's type."""
        return self.content.kind

    @property
    def media_id(self) -> UUID | None:
        """The stored file that it carries."""
        named = self.content.media_id if isinstance(self.content, Media) else None
        return None if named is None else UUID(named)

    @property
    def json(self) -> str:
        """The content as it is kept."""
        return self.content.model_dump_json(by_alias=True, exclude_none=True)


Say = Callable[[Sender], Awaitable[Said]]

_NOWHERE: Final = Reference(engine_id="", sender=None)


class Contents:
    """Makes messages' contents of requests; looks up the messages that they speak of."""

    def __init__(self, *, database: Database) -> None:
        self._database = database

    async def text(self, sender: Sender, body: NewText | NewMessage, words: str) -> Said:
        """Words."""
        answered = await self._answered(sender, body)
        text = Text(
            text=words,
            mentions=tuple(mention.chat for mention in body.mentions),
            link_preview=body.link_preview,
            reply_to=answered.engine_id or None,
            reply_to_sender=answered.sender,
        )
        return Said(to=body.to, content=text)

    async def location(self, body: NewLocation) -> Said:
        """A place."""
        place = Location(
            latitude=body.latitude, longitude=body.longitude, name=body.name, address=body.address
        )
        return Said(to=body.to, content=place)

    async def contact(self, body: NewContact) -> Said:
        """A card."""
        return Said(to=body.to, content=ContactCard(name=body.name, phones=body.phones))

    async def poll(self, body: NewPoll) -> Said:
        """A poll."""
        poll = Poll(question=body.question, options=body.options, selectable=body.selectable)
        return Said(to=body.to, content=poll)

    async def reaction(self, sender: Sender, body: NewReaction, *, guessing: bool) -> Said:
        """A reaction, in the conversation of the message that it is about.

        To whom numbers are hidden, and who would be ``guessing``, is not told whether ``to`` is it.
        """
        async with self._database.tx() as tx:
            meant = await references.reference(
                tx,
                body.message_id,
                whose=_whose(sender),
                chat=None if body.to is None else body.to.chat,
                field="messageId",
            )
        target = meant.message
        to = body.to
        if target is not None:
            to = address_of(target.chat)
            if body.to not in {None, to} and not guessing:
                raise invalid({"to": "is not the conversation of that message; leave it out"})
            if target.revoked_at is not None:
                raise invalid({"messageId": "is a message that was deleted; name another"})
        if to is None:
            raise invalid({"to": "is missing; name the conversation of a message of WhatsApp's id"})
        content = Reaction(target_id=meant.engine_id, target_sender=meant.sender, emoji=body.emoji)
        return Said(to=to, content=content, target_id=None if target is None else target.id)

    async def media(
        self,
        sender: Sender,
        body: NewMedia | NewMessage | MediaFields,
        file: StoredMedia | Attached,
        kind: MediaKind,
        *,
        caption: str | None,
    ) -> Said:
        """A file that is stored, or one that ``file`` names by a URL."""
        if caption is not None and kind not in CAPTIONED:
            raise invalid({"caption": f"cannot go with {kind}; send the words as a text"})
        answered = await self._answered(sender, body)
        mentions = body.mentions if isinstance(body, Answering) else ()
        common = {
            "kind": kind,
            "caption": caption,
            "filename": file.filename,
            "mentions": tuple(mention.chat for mention in mentions),
            "reply_to": answered.engine_id or None,
            "reply_to_sender": answered.sender,
        }
        if isinstance(file, Attached):
            source: dict[str, object] = {"url": file.url, "mime_type": guessed(file)}
        else:
            source = {
                "media_id": str(file.media_id),
                "mime_type": file.mime_type,
                "size": file.size,
                "sha256": file.sha256,
            }
        return Said(to=body.to, content=Media.model_validate({**common, **source}))

    async def _answered(self, sender: Sender, body: Answering | MediaFields) -> Reference:
        if body.reply_to is None:
            return _NOWHERE
        async with self._database.tx() as tx:
            return await references.reference(
                tx, body.reply_to, whose=_whose(sender), chat=body.to.chat, field="replyTo"
            )


def guessed(file: Attached) -> str:
    """What a file may be by what its bringer says, until its first bytes are seen."""
    name = file.filename or (URL(file.url).name if file.url is not None else "")
    return plain(file.mime_type) or plain(mimetypes.guess_type(name)[0]) or OCTETS


def suggested(mime_type: str) -> MediaKind:
    """As what a file of this type is best sent."""
    kinds: tuple[MediaKind, ...] = ("image", "video", "audio")
    taken = {kind: RULES[kind].native | RULES[kind].convertible for kind in kinds}
    return next((kind for kind in kinds if mime_type in taken[kind]), "document")


def _whose(sender: Sender) -> Whose:
    return Whose(tenant_id=sender.tenant_id, instance_id=sender.id, engine=sender.engine)
