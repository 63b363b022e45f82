"""What a message says, from WhatsApp's protobufs to Waypost's content. Asks nobody anything."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from services.sessions.engines.whatsmeow.worker import cards, media
from services.sessions.engines.whatsmeow.worker.shapes import (
    Context,
    Creation,
    File,
    Message,
    Place,
)
from services.sessions.engines.whatsmeow.worker.words import clean
from shared.contracts.content import ContactCard, Content, Location, Media, Poll, Text

# Messages that only hold another one, for one reason or another: it disappears, may be seen once,
# belongs to an album, changes a message and so on.
_WRAPPERS: Final = (
    "deviceSentMessage",
    "ephemeralMessage",
    "viewOnceMessage",
    "viewOnceMessageV2",
    "viewOnceMessageV2Extension",
    "documentWithCaptionMessage",
    "editedMessage",
    "lottieStickerMessage",
    "associatedChildMessage",
    "groupMentionedMessage",
    "botInvokeMessage",
    "botForwardedMessage",
    "pollCreationMessageV4",
    "spoilerMessage",
)
_DEEPEST: Final = 6
_POLLS: Final = (
    "pollCreationMessage",
    "pollCreationMessageV2",
    "pollCreationMessageV3",
    "pollCreationMessageV5",
    "pollCreationMessageV6",
)
_MOST_PHONES: Final = 100
# Bytes; no file is larger, and any number up to here survives JSON and the database.
LARGEST: Final = 2**53


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A message's content, and what it refers to, with the addresses as they stand there.

    ``file`` is the handle by which its file is fetched, ``reply_to_sender`` who wrote the message
    that it answers.
    """

    content: Content
    reply_to: str | None = None
    reply_to_sender: str = ""
    mentions: tuple[str, ...] = ()
    file: Mapping[str, str] | None = None


def unwrapped(message: Message) -> Message:
    """The message inside, however it is wrapped."""
    for _ in range(_DEEPEST):
        inner = _inner(message)
        if inner is None:
            break
        message = inner
    return message


def read(message: Message) -> Said | None:
    """What an unwrapped message says; ``None`` if it says nothing that Waypost knows.

    Raises ``ValueError`` if it says something impossible, such as a place that is not on Earth.
    """
    return _words(message) or _file(message) or _place(message) or _cards(message) or _poll(message)


def _inner(message: Message) -> Message | None:
    for name in _WRAPPERS:
        if message.HasField(name):
            inner: Message = getattr(message, name).message
            return inner
    return None


def _words(message: Message) -> Said | None:
    if message.HasField("extendedTextMessage"):
        extended = message.extendedTextMessage
        content = Text(text=clean(extended.text), link_preview=bool(extended.matchedText))
        return _said(content, extended.contextInfo) if content.text else None
    if message.HasField("buttonsResponseMessage"):
        chosen: object = message.buttonsResponseMessage.selectedDisplayText
    elif message.HasField("templateButtonReplyMessage"):
        chosen = message.templateButtonReplyMessage.selectedDisplayText
    elif message.HasField("listResponseMessage"):
        chosen = message.listResponseMessage.title
    else:
        chosen = message.conversation
    words = clean(chosen)
    return Said(content=Text(text=words)) if words else None


def _file(message: Message) -> Said | None:
    if message.HasField("imageMessage"):
        image = message.imageMessage
        return _media("image", "Image", image, caption=image.caption)
    for film in ("videoMessage", "ptvMessage"):
        if message.HasField(film):
            video = message.videoMessage if film == "videoMessage" else message.ptvMessage
            return _media("video", "Video", video, caption=video.caption, seconds=video.seconds)
    if message.HasField("audioMessage"):
        sound = message.audioMessage
        kind: Literal["voice", "audio"] = "voice" if sound.PTT else "audio"
        return _media(kind, "Audio", sound, seconds=sound.seconds)
    if message.HasField("documentMessage"):
        paper = message.documentMessage
        name = paper.fileName or paper.title
        return _media("document", "Document", paper, caption=paper.caption, filename=name)
    if message.HasField("stickerMessage"):
        return _media("sticker", "Image", message.stickerMessage)
    return None


def _media(
    kind: Literal["image", "video", "audio", "voice", "document", "sticker"],
    keys: str,
    file: File,
    *,
    caption: object = "",
    filename: object = "",
    seconds: int = 0,
) -> Said:
    content = Media(
        kind=kind,
        mime_type=clean(file.mimetype, longest=255) or "application/octet-stream",
        caption=clean(caption) or None,
        filename=clean(filename, longest=255) or None,
        size=_told(file.fileLength),
        sha256=file.fileSHA256.hex() or None,
        seconds=seconds or None,
    )
    return _said(content, file.contextInfo, file=media.handle(file, keys))


def _told(size: int) -> int | None:
    """A size that may be true: it is the sender's word, in 64 bits."""
    return size if 0 < size <= LARGEST else None


def _place(message: Message) -> Said | None:
    if message.HasField("locationMessage"):
        return _located(message.locationMessage)
    if message.HasField("liveLocationMessage"):
        moving = message.liveLocationMessage
        content = Location(
            latitude=moving.degreesLatitude,
            longitude=moving.degreesLongitude,
            name=clean(moving.caption) or None,
        )
        return _said(content, moving.contextInfo)
    return None


def _located(place: Place) -> Said:
    content = Location(
        latitude=place.degreesLatitude,
        longitude=place.degreesLongitude,
        name=clean(place.name) or None,
        address=clean(place.address) or None,
    )
    return _said(content, place.contextInfo)


def _cards(message: Message) -> Said | None:
    if message.HasField("contactMessage"):
        card = message.contactMessage
        return _said(
            _card([cards.read(clean(card.displayName), clean(card.vcard))]), card.contextInfo
        )
    if message.HasField("contactsArrayMessage"):
        several = message.contactsArrayMessage
        read = [cards.read(clean(card.displayName), clean(card.vcard)) for card in several.contacts]
        return _said(_card(read), several.contextInfo)
    return None


def _card(read: Sequence[ContactCard]) -> ContactCard:
    one = cards.together(read)
    return ContactCard(name=one.name, phones=one.phones[:_MOST_PHONES])


def _poll(message: Message) -> Said | None:
    for name in _POLLS:
        if message.HasField(name):
            creation: Creation = getattr(message, name)
            content = Poll(
                question=clean(creation.name),
                options=tuple(clean(option.optionName) for option in creation.options),
                selectable=creation.selectableOptionsCount,
            )
            return _said(content, creation.contextInfo)
    return None


def _said(content: Content, context: Context, *, file: Mapping[str, str] | None = None) -> Said:
    return Said(
        content=content,
        reply_to=clean(context.stanzaID, longest=255) or None,
        reply_to_sender=clean(context.participant, longest=255),
        mentions=tuple(clean(who, longest=255) for who in context.mentionedJID),
        file=file,
    )
