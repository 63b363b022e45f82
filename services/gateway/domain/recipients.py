"""Who a message is for: from what callers write to the one address that WhatsApp knows them by."""

import re
from typing import Final, NamedTuple

PERSON: Final = "s.whatsapp.net"

# Other spellings of a server; ``c.us`` is what older libraries say for a person.
_SERVERS: Final = {PERSON: PERSON, "c.us": PERSON, "g.us": "g.us", "lid": "lid"}
# Tolerated between digits, since people copy numbers from letterheads.
_DECORATION: Final = str.maketrans("", "", " -()[]\u00a0\u2010\u2011\u2013.")
_E164: Final = re.compile(r"[1-9][0-9]{6,14}")
_PLAIN: Final = re.compile(r"\+?([1-9][0-9]{6,14})").fullmatch
# A group is a number, or the founder's number and the time of its founding.
_GROUP: Final = re.compile(r"[0-9]{5,20}(?:-[0-9]{5,15})?")
# A number; or, by the Cloud API, what Meta calls a user whose number it does not tell.
_LID: Final = re.compile(r"[0-9]{5,20}|[A-Z]{2}(?:\.ENT)?\.[A-Za-z0-9]{1,128}")
_LONGEST: Final = 160


class NotAnAddress(ValueError):
    """Nobody can be reached under this; the message says what to write instead."""


class Address(NamedTuple):
    """``chat`` is the canonical WhatsApp id, ``shown`` how the API shows it: ``+`` and digits for
    a person's number, the id itself otherwise.
    """

    chat: str
    shown: str


def address_of(text: str) -> Address:
    """The address that ``text`` means; raises ``NotAnAddress``.

    A number is checked for E.164's shape only: number plans change faster than libraries, and
    WhatsApp has the last word.
    """
    plain = _PLAIN(text)
    if plain is not None:
        digits = plain[1]
        return Address(digits + "@s.whatsapp.net", "+" + digits)
    if len(text) > _LONGEST:
        raise NotAnAddress("is too long for a number or a WhatsApp id")
    user, at, server = text.strip().partition("@")
    if not at:
        return _person(user)
    known = _SERVERS.get(server.lower())
    if known is None:
        raise NotAnAddress("must end in @s.whatsapp.net, @c.us, @g.us or @lid, or be a number")
    if known == PERSON:
        # A device of a person (``491…:3@s.whatsapp.net``) is reached like the person.
        return _person(user.partition(":")[0])
    pattern = _GROUP if known == "g.us" else _LID
    if not pattern.fullmatch(user):
        raise NotAnAddress(f"is not an id of the kind @{known}; copy it whole")
    chat = f"{user}@{known}"
    return Address(chat, chat)


def group_of(text: str) -> str:
    """The canonical id of a group, written with or without ``@g.us``; raises ``NotAnAddress``."""
    chat = address_of(text if "@" in text else f"{text}@g.us").chat
    if not chat.endswith("@g.us"):
        raise NotAnAddress("is not a group")
    return chat


def _person(user: str) -> Address:
    digits = user.translate(_DECORATION).removeprefix("+")
    if not _E164.fullmatch(digits):
        raise NotAnAddress(
            "must be a number in international form: 7 to 15 digits, the first not 0, such as "
            "+4915112345678"
        )
    return Address(f"{digits}@{PERSON}", f"+{digits}")
