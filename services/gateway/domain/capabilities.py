"""What callers want of engines, and how they are told that one cannot do it."""

from collections.abc import Mapping
from typing import Final

from shared.contracts.capabilities import Capability, needed_to_say
from shared.errors import Rejected

_WORDS: Final[Mapping[Capability, str]] = {
    Capability.QR: "be paired by a QR code",
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
    of_type = {needed_to_say(message_type)}
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
