"""What engines can do, by the names that the session service knows it by too."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from shared.errors import Rejected


class Capability(StrEnum):
    """Something that an engine can do, or a caller can want of one."""

    QR = "qr"
    PAIRING_CODE = "pairing_code"
    CLIENT_MESSAGE_ID = "client_message_id"
    TEXT = "text"
    MEDIA = "media"
    LOCATION = "location"
    CONTACT = "contact"
    POLL = "poll"
    GROUPS = "groups"
    TEMPLATES = "templates"
    EDIT = "edit"
    REVOKE = "revoke"
    REACTION = "reaction"
    READ_RECEIPTS = "read_receipts"
    TYPING = "typing"
    NUMBER_CHECK = "number_check"
    PROFILE = "profile"
    PROXY = "proxy"


LINKED_DEVICE: Final = frozenset(Capability) - {Capability.CLIENT_MESSAGE_ID, Capability.TEMPLATES}
"""What a device that is linked to a phone can do."""

_OF_TYPES: Final[Mapping[str, Capability]] = {
    "text": Capability.TEXT,
    "image": Capability.MEDIA,
    "video": Capability.MEDIA,
    "audio": Capability.MEDIA,
    "voice": Capability.MEDIA,
    "document": Capability.MEDIA,
    "sticker": Capability.MEDIA,
    "location": Capability.LOCATION,
    "contact": Capability.CONTACT,
    "poll": Capability.POLL,
    "reaction": Capability.REACTION,
    "edit": Capability.EDIT,
    "revoke": Capability.REVOKE,
}
_WORDS: Final[Mapping[Capability, str]] = {
    Capability.PAIRING_CODE: "be paired by code",
    Capability.TEXT: "send texts",
    Capability.MEDIA: "send files",
    Capability.LOCATION: "send locations",
    Capability.CONTACT: "send contacts",
    Capability.POLL: "send polls",
    Capability.GROUPS: "deal with groups",
    Capability.EDIT: "edit messages",
    Capability.REVOKE: "revoke messages",
    Capability.REACTION: "react to messages",
    Capability.READ_RECEIPTS: "mark messages as read",
    Capability.TYPING: "show that somebody is typing",
    Capability.NUMBER_CHECK: "check numbers",
    Capability.PROFILE: "tell its own profile",
    Capability.PROXY: "connect by a proxy or under a device name",
}


class Unsupported(Rejected):
    """The instance's engine cannot do what is asked; another might."""


def needed(message_type: str, *, chat: str) -> frozenset[Capability]:
    """What an engine must be capable of to send a message of this type to this chat."""
    of_type = {_OF_TYPES[message_type]}
    return frozenset(of_type | {Capability.GROUPS} if chat.endswith("@g.us") else of_type)


def require(engine: str, able: frozenset[Capability], wanted: Capability) -> None:
    """Raise ``Unsupported``, naming what the engine can do, unless it is able to do this."""
    if wanted in able:
        return
    doing = _WORDS.get(wanted, wanted.value)
    raise Unsupported(
        f"The engine {engine} cannot {doing}; use an instance with another engine, or one of what "
        "it can do: see `data.capabilities`.",
        data={"engine": engine, "needed": wanted.value, "capabilities": sorted(able)},
    )
