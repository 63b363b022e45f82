"""What a message refers to: the one that it answers, and who is mentioned."""

from collections.abc import Sequence
from typing import Final

from services.sessions.domain.addresses import canonical
from services.sessions.engines.whatsmeow.worker import addresses, library
from services.sessions.engines.whatsmeow.worker.memory import Named, memory_of
from services.sessions.engines.whatsmeow.worker.shapes import Client, Message
from services.sessions.engines.whatsmeow.worker.words import clean

# A quote is shown in two lines; the rest of it would only cost.
SHOWN: Final = 300


async def context(
    client: Client,
    *,
    chat: str,
    reply_to: str | None,
    reply_to_sender: str | None,
    mentions: Sequence[str],
) -> dict[str, object]:
    """The ``ContextInfo`` of a message to ``chat``, empty if it refers to nothing.

    A quote's words travel with the answer: they are what a phone shows above it. They are taken
    from what this worker has seen; of a message that it has not seen, the phone shows an empty
    quote, which still leads to it.
    """
    fields: dict[str, object] = {}
    if mentions:
        fields["mentionedJID"] = [canonical(who) for who in mentions]
    if reply_to is not None:
        name = await addresses.named(client, chat, reply_to_sender, reply_to)
        quote = memory_of(client).quotes.get(name)
        fields["stanzaID"] = reply_to
        fields["participant"] = await author(client, chat, reply_to_sender)
        fields["quotedMessage"] = (
            {"conversation": ""} if quote is None else library.read_message(quote)
        )
    return fields


async def author(client: Client, chat: str, sender: str | None) -> str:
    """The address of who wrote a message in ``chat``; without ``sender``, the account itself."""
    who = canonical(sender) if sender else (await addresses.own(client))[0]
    return await addresses.as_member(client, chat, who) if chat.endswith(addresses.GROUP) else who


def remember(client: Client, name: Named, said: Message) -> None:
    """Keep what a message says, as far as it is needed to quote it."""
    fields = _essence(said)
    if fields:
        kept = library.message(fields).SerializeToString()
        memory_of(client).quotes.keep(name, kept)


def _essence(said: Message) -> dict[str, object]:
    if words := said.conversation or said.extendedTextMessage.text:
        return {"conversation": _short(words)}
    kept: dict[str, dict[str, object]] = {
        "imageMessage": {"caption": _short(said.imageMessage.caption)},
        "videoMessage": {"caption": _short(said.videoMessage.caption)},
        "documentMessage": {
            "caption": _short(said.documentMessage.caption),
            "fileName": _short(said.documentMessage.fileName),
        },
        "audioMessage": {"PTT": said.audioMessage.PTT},
        "stickerMessage": {},
        "locationMessage": {
            "degreesLatitude": said.locationMessage.degreesLatitude,
            "degreesLongitude": said.locationMessage.degreesLongitude,
            "name": _short(said.locationMessage.name),
        },
        "contactMessage": {"displayName": _short(said.contactMessage.displayName)},
        "pollCreationMessage": {"name": _short(said.pollCreationMessage.name)},
    }
    return {name: fields for name, fields in kept.items() if said.HasField(name)}


def _short(words: object) -> str:
    return clean(words, longest=SHOWN)
