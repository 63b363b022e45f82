"""What a message says: one class for each kind, told apart by ``kind``."""

from typing import Annotated, Literal

from pydantic import Field

from shared.contracts.model import PublicContract


class Text(PublicContract):
    """Words. At most 4096 characters, as WhatsApp shows them.

    ``reply_to`` is WhatsApp's id of the message that this answers, ``reply_to_sender`` the address
    of who wrote that; without one, the account itself did.
    """

    kind: Literal["text"] = "text"
    text: str
    mentions: tuple[str, ...] = ()
    link_preview: bool = False
    reply_to: str | None = None
    reply_to_sender: str | None = None


class Media(PublicContract):
    """A file: its description, never its bytes.

    Those are found under ``media_id`` in the media store, or, outbound, at ``url``. ``seconds`` is
    how long a recording lasts. ``reply_to`` is as for ``Text``.
    """

    kind: Literal["image", "video", "audio", "voice", "document", "sticker"]
    mime_type: str
    caption: str | None = None
    filename: str | None = None
    size: int | None = None
    sha256: str | None = None
    url: str | None = None
    media_id: str | None = None
    seconds: int | None = None
    mentions: tuple[str, ...] = ()
    reply_to: str | None = None
    reply_to_sender: str | None = None


class Location(PublicContract):
    """A place, in degrees (WGS 84)."""

    kind: Literal["location"] = "location"
    latitude: float = Field(ge=-90, le=90)
    longitude: float = Field(ge=-180, le=180)
    name: str | None = None
    address: str | None = None


class ContactCard(PublicContract):
    """A person's card."""

    kind: Literal["contact"] = "contact"
    name: str
    phones: tuple[str, ...] = ()


class Poll(PublicContract):
    """A question with answers to choose from."""

    kind: Literal["poll"] = "poll"
    question: str
    options: tuple[str, ...]
    selectable: int = 1


class PollVote(PublicContract):
    """Somebody's answer to a poll: all that they have chosen, none if they took it back.

    ``poll_id`` is WhatsApp's id of the poll. Only ever received.
    """

    kind: Literal["poll_vote"] = "poll_vote"
    poll_id: str
    options: tuple[str, ...] = ()


class Reaction(PublicContract):
    """A reaction to a message. An empty ``emoji`` takes the reaction back.

    ``target_id`` is WhatsApp's id of that message, ``target_sender`` the address of who wrote it;
    without one, the account itself did.
    """

    kind: Literal["reaction"] = "reaction"
    target_id: str
    target_sender: str | None = None
    emoji: str


class Edit(PublicContract):
    """New words for a text that the account has sent."""

    kind: Literal["edit"] = "edit"
    target_id: str
    text: str


class Revoke(PublicContract):
    """Deletes, for everyone, a message that the account has sent."""

    kind: Literal["revoke"] = "revoke"
    target_id: str


Content = Annotated[
    Text | Media | Location | ContactCard | Poll | PollVote, Field(discriminator="kind")
]
"""What a message can say."""

Sendable = Annotated[
    Text | Media | Location | ContactCard | Poll | Reaction | Edit | Revoke,
    Field(discriminator="kind"),
]
"""What can be transmitted: also what changes a message that was sent before."""


class Identity(PublicContract):
    """Who a person is, over the addresses that WhatsApp uses for them.

    ``phone`` is E.164 with ``+``; ``lid`` is WhatsApp's private id for them; ``chat_id`` is the one
    canonical address under which this person is one contact.
    """

    phone: str | None = None
    lid: str | None = None
    chat_id: str
    push_name: str | None = None
