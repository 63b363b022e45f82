"""What engines can do: what the session service asks of one, and the gateway offers of it."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class Capability(StrEnum):
    """Something that an engine can do. What is not among its capabilities it is never asked for."""

    QR = "qr"
    PAIRING_CODE = "pairing_code"
    # The engine sends under the message id that it is given, so that a repeat is recognised.
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
    # A proxy and a device name of the instance's own mean something to it.
    PROXY = "proxy"


# All but sending under an id of ours, which neonize has no way to, and templates, which belong to
# another kind of account.
WHATSMEOW: Final = frozenset(Capability) - {Capability.CLIENT_MESSAGE_ID, Capability.TEMPLATES}
SANDBOX: Final = WHATSMEOW | {Capability.CLIENT_MESSAGE_ID}
# What Meta's Cloud API has for ordinary messages; it has no polls and takes nothing back.
CLOUD_API: Final = frozenset(
    {
        Capability.TEXT,
        Capability.MEDIA,
        Capability.LOCATION,
        Capability.CONTACT,
        Capability.REACTION,
        Capability.READ_RECEIPTS,
        Capability.TYPING,
        Capability.PROFILE,
    }
)

_OF_KINDS: Final[Mapping[str, Capability]] = {
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


def needed_to_say(kind: str) -> Capability:
    """What an engine must be capable of to send content of this kind, one that can be sent."""
    return _OF_KINDS[kind]
