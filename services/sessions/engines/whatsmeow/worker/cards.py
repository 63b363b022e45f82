"""Contact cards: vCards as phones write and read them (RFC 6350, version 3.0 for WhatsApp)."""

import re
from collections.abc import Sequence

from shared.contracts.content import ContactCard

_ESCAPED = str.maketrans({"\\": "\\\\", ",": "\\,", ";": "\\;", "\n": "\\n", "\r": ""})
_UNESCAPED = re.compile(r"\\(.)")
_WAID = re.compile(r"waid=(\d+)", re.IGNORECASE)


def vcard(card: ContactCard) -> str:
    """A card as text. ``waid`` is what lets the recipient's phone offer to write to the number."""
    name = card.name.translate(_ESCAPED)
    phones = [
        f"TEL;type=CELL;type=VOICE;waid={number}:+{number}"
        for phone in card.phones
        if (number := "".join(character for character in phone if character.isdigit()))
    ]
    return "\n".join(
        ["BEGIN:VCARD", "VERSION:3.0", f"N:;{name};;;", f"FN:{name}", *phones, "END:VCARD"]
    )


def read(display_name: str, text: str) -> ContactCard:
    """What a card that somebody sent says: a name, and numbers as far as they are telephones'."""
    name, phones = display_name, []
    for line in _lines(text):
        field, _, value = line.partition(":")
        kind = field.partition(";")[0].rpartition(".")[2].upper()
        if kind == "FN" and not name:
            name = _UNESCAPED.sub(r"\1", value)
        elif kind == "TEL":
            known = _WAID.search(field)
            number = f"+{known[1]}" if known else value.removeprefix("tel:").strip()
            if number and number not in phones:
                phones.append(number)
    return ContactCard(name=name, phones=tuple(phones))


def together(cards: Sequence[ContactCard]) -> ContactCard:
    """Several cards as one: all names and all numbers."""
    return ContactCard(
        name=", ".join(card.name for card in cards if card.name),
        phones=tuple(dict.fromkeys(phone for card in cards for phone in card.phones)),
    )


def _lines(text: str) -> list[str]:
    """Lines that were folded are one (RFC 6350, 3.2)."""
    return re.sub(r"\r?\n[ \t]", "", text).splitlines()
