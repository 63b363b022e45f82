"""What a message says: one class for each kind, told apart by ``kind``."""

from typing import Annotated, Literal

from pydantic import Field

from shared.contracts.model import PublicContract


class Text(PublicContract):
    """Words. At most 4096 characters, as WhatsApp shows them."""

    kind: Literal["text"] = "text"
    text: str
    mentions: tuple[str, ...] = ()
    link_preview: bool = False
    reply_to: str | None = None


class Media(PublicContract):
    """A file: its description, never its bytes. ``url`` is where those are while they are kept."""

    kind: Literal["image", "video", "audio", "voice", "document", "sticker"]
    mime_type: str
    caption: str | None = None
    filename: str | None = None
    size: int | None = None
    sha256: str | None = None
    url: str | None = None
    media_id: str | None = None


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


Content = Annotated[Text | Media | Location | ContactCard | Poll, Field(discriminator="kind")]


class Identity(PublicContract):
    """Who a person is, over the addresses that WhatsApp uses for them.

    ``phone`` is E.164 with ``+``; ``lid`` is WhatsApp's private id for them; ``chat_id`` is the one
    canonical address under which this person is one contact.
    """

    phone: str | None = None
    lid: str | None = None
    chat_id: str
    push_name: str | None = None
