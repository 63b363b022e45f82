"""What callers say: one schema for each kind of message, and for what changes one."""

from collections.abc import Mapping
from typing import Annotated, Final, Literal, Self
from uuid import UUID

import orjson
from pydantic import Field, StringConstraints, field_validator, model_validator

from services.gateway.api.schemas.fields import PhoneNumber, Recipient
from services.gateway.api.schemas.media import Binary
from shared.media.kinds import MediaKind
from shared.web.schemas import ApiModel

PRIORITIES: Final = {"high": 0, "normal": 1, "low": 2}

Words = Annotated[str, StringConstraints(min_length=1, max_length=4096)]
Named = Annotated[str, StringConstraints(min_length=1, max_length=128)]
Label = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=255)]
# Recordings and stickers have no place for words.
CAPTIONED: Final = frozenset({"image", "video", "document"})


class SendOptions(ApiModel):
    """How something is to be sent."""

    priority: Literal["high", "normal", "low"] = "normal"
    metadata: (
        dict[
            Annotated[str, StringConstraints(min_length=1, max_length=40)],
            Annotated[str, StringConstraints(max_length=500)],
        ]
        | None
    ) = Field(
        default=None,
        max_length=50,
        description="Comes back with every event of the message.",
        examples=[{"order": "1042"}],
    )
    on_unknown: Literal["fail", "resend"] = Field(
        default="fail",
        description="If nobody can tell whether it was sent: give up after a while, or send it "
        "again, perhaps twice.",
    )


class ByInstance(ApiModel):
    """By which instance; an instance key always means its own."""

    instance_id: UUID | None = Field(
        default=None, description="The instance that sends; with an instance key, its own."
    )
    session_id: UUID | None = Field(default=None, description="An older name of `instanceId`.")


class Sent(SendOptions, ByInstance):
    """What is sent by an instance that the caller names."""


class Outbound(Sent):
    """What every new message has."""

    to: Recipient


class Answering(Outbound):
    """What a message has that can answer another and mention people."""

    reply_to: Named | None = Field(
        default=None, description="The id of the message that this one answers."
    )
    mentions: tuple[Recipient, ...] = Field(
        default=(), max_length=256, description="Whom the text mentions."
    )


class NewText(Answering):
    """Words that are to be sent."""

    message: Words = Field(description="At most 4096 characters.", examples=["Hello from Waypost"])
    link_preview: bool = False


class NewLocation(Outbound):
    """A place that is to be sent, in degrees (WGS 84)."""

    latitude: float = Field(ge=-90, le=90, examples=[52.5163])
    longitude: float = Field(ge=-180, le=180, examples=[13.3777])
    name: Label | None = Field(default=None, examples=["Brandenburg Gate"])
    address: Label | None = Field(default=None, examples=["Pariser Platz, Berlin"])


class NewContact(Outbound):
    """Somebody's card that is to be sent."""

    name: Label = Field(examples=["Ada Lovelace"])
    phones: tuple[PhoneNumber, ...] = Field(min_length=1, max_length=20)


class NewPoll(Outbound):
    """A question with answers to choose from."""

    question: Label = Field(examples=["When shall we meet?"])
    options: tuple[
        Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100)], ...
    ] = Field(min_length=2, max_length=12, examples=[["Monday", "Tuesday"]])
    selectable: int = Field(
        default=1, ge=1, le=12, description="How many answers one may choose at most."
    )

    @model_validator(mode="after")
    def _choosable(self) -> Self:
        if len(set(self.options)) < len(self.options):
            raise ValueError("has the same option twice; every answer must be another")
        if self.selectable > len(self.options):
            raise ValueError("lets one choose more answers than there are; lower `selectable`")
        return self


class NewReaction(Sent):
    """A reaction to a message, one's own or another's; an empty `emoji` takes it back."""

    message_id: Named = Field(
        description="The message that is meant, by its `id`, or with `to` by its `engineMessageId`."
    )
    to: Recipient | None = Field(
        default=None, description="The conversation; known already of a message named by its `id`."
    )
    emoji: str = Field(max_length=32, examples=["👍"])


class Attached(ApiModel):
    """Where a file comes from: exactly one of `url`, `base64` and `mediaId`."""

    url: Annotated[str, StringConstraints(min_length=1, max_length=2048)] | None = Field(
        default=None,
        description="Fetched when the message is sent.",
        examples=["https://example.com/picture.jpg"],
    )
    base64: Annotated[str, StringConstraints(min_length=1)] | None = Field(
        default=None, description="The file itself, by RFC 4648, or a `data:` URL.", repr=False
    )
    media_id: UUID | None = Field(default=None, description="What `POST /api/media` answered.")
    mime_type: Annotated[str, StringConstraints(min_length=1, max_length=128)] | None = Field(
        default=None,
        description="A hint; its first bytes decide.",
        examples=["image/jpeg"],
    )
    filename: Annotated[str, StringConstraints(min_length=1, max_length=255)] | None = Field(
        default=None, examples=["invoice.pdf"]
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [source for source in (self.url, self.base64, self.media_id) if source is not None]
        if len(given) != 1:
            raise ValueError("needs exactly one of `url`, `base64` and `mediaId`")
        return self


Caption = Annotated[str, StringConstraints(min_length=1, max_length=1024)]


class NewMedia(Answering, Attached):
    """A file that is to be sent, as JSON."""

    caption: Caption | None = Field(
        default=None, description="Words under it: for images, videos and documents."
    )


class MediaFields(Outbound):
    """The fields of a form beside its file; `metadata` is JSON there."""

    caption: Caption | None = None
    reply_to: Named | None = None

    @field_validator("metadata", mode="before")
    @classmethod
    def _json(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        try:
            parsed: object = orjson.loads(value)
        except orjson.JSONDecodeError:
            raise ValueError("must be a JSON object") from None
        return parsed


class SentForm(MediaFields):
    """A form as a whole, in what it says; by this a request that is repeated is recognised."""

    media_id: UUID


class ImageForm(MediaFields):
    """An image that is to be sent, as a form."""

    image: Binary


class VideoForm(MediaFields):
    """A video that is to be sent, as a form."""

    video: Binary


class AudioForm(MediaFields):
    """A recording that is to be sent, as a form."""

    audio: Binary


class VoiceForm(MediaFields):
    """A voice note that is to be sent, as a form."""

    voice: Binary


class DocumentForm(MediaFields):
    """A file of any type that is to be sent, as a form."""

    document: Binary


class StickerForm(MediaFields):
    """A sticker that is to be sent, as a form."""

    sticker: Binary


FORMS: Final[Mapping[MediaKind, type[MediaFields]]] = {
    "image": ImageForm,
    "video": VideoForm,
    "audio": AudioForm,
    "voice": VoiceForm,
    "document": DocumentForm,
    "sticker": StickerForm,
}
"""For each kind the form whose file is under its name: for the documentation."""


class AttachedToMessage(Attached):
    """The file of a message in the generic form."""

    type: MediaKind | None = Field(
        default=None, description="As what it is sent; else what its type of file suggests."
    )


class NewMessage(Answering):
    """Any message: words, a file, or a file with words under it."""

    message: Words | None = Field(default=None, examples=["Hello from Waypost"])
    body: Words | None = Field(default=None, description="The same as `message`.")
    media: AttachedToMessage | None = None
    link_preview: bool = False

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.message is not None and self.body is not None:
            raise ValueError("has `message` and `body`; send one of them")
        if self.said is None and self.media is None:
            raise ValueError("needs `message` or `media`: what it says")
        return self

    @property
    def said(self) -> str | None:
        """The words, if any."""
        return self.body if self.message is None else self.message


class NewWords(SendOptions):
    """The new words of a text."""

    message: Words = Field(examples=["Hello from Waypost!"])


class ReadMessages(ByInstance):
    """Messages that somebody has read."""

    message_ids: tuple[UUID, ...] = Field(
        min_length=1, max_length=100, description="Messages that were received, by their `id`."
    )


class NewPresence(ByInstance):
    """What the account is doing in a chat."""

    to: Recipient
    state: Literal["typing", "recording", "paused"]


class NumbersToCheck(ByInstance):
    """Numbers that may be on WhatsApp."""

    numbers: tuple[Annotated[str, StringConstraints(min_length=1, max_length=64)], ...] = Field(
        min_length=1, max_length=500, examples=[["+4915112345678"]]
    )
