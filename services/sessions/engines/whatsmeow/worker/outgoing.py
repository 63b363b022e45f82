"""Saying things: from Waypost's content to WhatsApp's messages, and over to the engine.

Messages are put together here, field by field, instead of by neonize's own helpers: those call
ffmpeg for every recording, fetch whatever URL stands in a text, and guess mentions from digits.
Nothing here fetches anything, so a text's link has no picture and no title; with ``link_preview``
the link is marked as one (``matchedText``), and recipients see what their own client makes of it.
"""

import asyncio
import re
import secrets
from contextlib import suppress
from pathlib import Path
from time import time
from typing import Final

from services.sessions.domain.addresses import canonical
from services.sessions.engines.port import Refused
from services.sessions.engines.whatsmeow.worker import (
    addresses,
    cards,
    errors,
    files,
    library,
    quoting,
)
from services.sessions.engines.whatsmeow.worker.memory import memory_of
from services.sessions.engines.whatsmeow.worker.said import Said
from services.sessions.engines.whatsmeow.worker.shapes import Client, Message, Uploaded
from shared.contracts.content import (
    ContactCard,
    Edit,
    Location,
    Media,
    Poll,
    Reaction,
    Revoke,
    Sendable,
    Text,
)
from shared.errors import Rejected, Transient

# ``ProtocolMessage.Type``
REVOKE: Final = 0
MESSAGE_EDIT: Final = 14

_LINK: Final = re.compile(r"https?://[^\s<>\"']+")
# By kind, the message's field and whose keys encrypt the file.
_MEDIA: Final = {
    "image": ("imageMessage", "Image"),
    "video": ("videoMessage", "Video"),
    "audio": ("audioMessage", "Audio"),
    "voice": ("audioMessage", "Audio"),
    "document": ("documentMessage", "Document"),
    "sticker": ("stickerMessage", "Image"),
}
_WITH_CAPTION: Final = frozenset({"image", "video", "document"})
# A file being sent is in memory about four times (see ``files``); more at once would be too much.
_uploads: Final = asyncio.Semaphore(2)


async def say(client: Client, said: Said) -> str:
    """Hand one message to WhatsApp; return WhatsApp's id of it once it was acknowledged.

    The id is made by the engine, so it is not known if this fails. Raises as ``Engine.transmit``
    does; also ``Rejected`` with ``MEDIA_TYPE``, ``MEDIA_TOO_LARGE``, ``MEDIA_GONE`` or
    ``CONVERSION_UNAVAILABLE`` if a file cannot be sent.
    """
    to = canonical(said.to)
    _addressable(to)
    fields = await _fields(client, to, said)
    message = library.message(fields)
    try:
        sent = await client.send_message(library.jid(to), message)
    except library.errors() as error:
        raise errors.of_sending(error) from error
    await _remember(client, to, sent.ID, message, said.content)
    return sent.ID


async def _remember(
    client: Client, to: str, message_id: str, message: Message, content: Sendable
) -> None:
    """Never fails: the message is on its way, and what is not remembered is only left out."""
    with suppress(Transient):
        name = await addresses.named(client, to, None, message_id)
        quoting.remember(client, name, message)
        if isinstance(content, Poll):
            memory_of(client).polls.keep(name, content.options)


def _addressable(to: str) -> None:
    user, _, server = to.rpartition("@")
    if not user or f"@{server}" not in {"@s.whatsapp.net", addresses.LID, addresses.GROUP}:
        raise Refused("Only people and groups can be written to.")


async def _fields(client: Client, to: str, said: Said) -> dict[str, object]:
    try:
        if isinstance(said.content, Media):
            return await _media(client, to, said, said.content)
        return await _others(client, to, said.content)
    except library.errors() as error:
        # So far nothing but questions was asked: who is in the group, who the account is.
        raise errors.of_asking(error, changes=False) from error


async def _others(client: Client, to: str, content: Sendable) -> dict[str, object]:
    fields: dict[str, object]
    match content:
        case Text():
            fields = await _text(client, to, content)
        case Location():
            fields = {"locationMessage": _location(content)}
        case ContactCard():
            card = {"displayName": content.name, "vcard": cards.vcard(content)}
            fields = {"contactMessage": card}
        case Poll():
            fields = _poll(content)
        case Reaction():
            fields = await _reaction(client, to, content)
        case Edit():
            fields = _edit(to, content)
        case Revoke():
            fields = {"protocolMessage": {"type": REVOKE, "key": _own_key(to, content.target_id)}}
        case Media():
            raise TypeError("A file is needed to say this.")
    return fields


async def _text(client: Client, to: str, text: Text) -> dict[str, object]:
    context = await quoting.context(
        client,
        chat=to,
        reply_to=text.reply_to,
        reply_to_sender=text.reply_to_sender,
        mentions=text.mentions,
    )
    link = _LINK.search(text.text) if text.link_preview else None
    if not context and link is None:
        return {"conversation": text.text}
    extended: dict[str, object] = {"text": text.text}
    if context:
        extended["contextInfo"] = context
    if link is not None:
        extended["matchedText"] = link[0].rstrip(".,;:!?)")
    return {"extendedTextMessage": extended}


async def _media(client: Client, to: str, said: Said, media: Media) -> dict[str, object]:
    if said.path is None or said.mime_type is None:
        raise Rejected("There is no file to send.", code="MEDIA_GONE")
    name, keys = _MEDIA[media.kind]
    context = await quoting.context(
        client,
        chat=to,
        reply_to=media.reply_to,
        reply_to_sender=media.reply_to_sender,
        mentions=media.mentions,
    )
    async with _uploads:
        file = await files.prepared(media, Path(said.path), said.mime_type)
        try:
            uploaded = await client.upload(file.data, library.media_type(keys))
        except library.errors() as error:
            raise errors.of_uploading(error) from error
    fields = _uploaded(uploaded) | {"mimetype": file.mime_type} | file.fields
    if media.caption and media.kind in _WITH_CAPTION:
        fields["caption"] = media.caption
    if context:
        fields["contextInfo"] = context
    return {name: fields}


def _uploaded(uploaded: Uploaded) -> dict[str, object]:
    return {
        "URL": uploaded.url,
        "directPath": uploaded.DirectPath,
        "mediaKey": uploaded.MediaKey,
        "mediaKeyTimestamp": int(time()),
        "fileEncSHA256": uploaded.FileEncSHA256,
        "fileSHA256": uploaded.FileSHA256,
        "fileLength": uploaded.FileLength,
    }


def _location(location: Location) -> dict[str, object]:
    fields: dict[str, object] = {
        "degreesLatitude": location.latitude,
        "degreesLongitude": location.longitude,
    }
    if location.name:
        fields["name"] = location.name
    if location.address:
        fields["address"] = location.address
    return fields


def _poll(poll: Poll) -> dict[str, object]:
    """A poll. Votes are encrypted by its secret, which whatsmeow keeps to read them with."""
    return {
        "pollCreationMessage": {
            "name": poll.question,
            "options": [{"optionName": option} for option in poll.options],
            "selectableOptionsCount": max(0, poll.selectable),
        },
        "messageContextInfo": {"messageSecret": secrets.token_bytes(32)},
    }


async def _reaction(client: Client, to: str, reaction: Reaction) -> dict[str, object]:
    key = _own_key(to, reaction.target_id)
    who = reaction.target_sender
    if who is not None and canonical(who) not in await addresses.own(client):
        key["fromMe"] = False
        if to.endswith(addresses.GROUP):
            key["participant"] = await addresses.as_member(client, to, who)
    return {
        "reactionMessage": {
            "key": key,
            "text": reaction.emoji,
            "senderTimestampMS": int(time() * 1000),
        }
    }


def _edit(to: str, edit: Edit) -> dict[str, object]:
    changed = {
        "key": _own_key(to, edit.target_id),
        "type": MESSAGE_EDIT,
        "editedMessage": {"conversation": edit.text},
        "timestampMS": int(time() * 1000),
    }
    return {"editedMessage": {"message": {"protocolMessage": changed}}}


def _own_key(to: str, message_id: str) -> dict[str, object]:
    """Names a message that the account itself wrote."""
    return {"remoteJID": to, "fromMe": True, "ID": message_id}
