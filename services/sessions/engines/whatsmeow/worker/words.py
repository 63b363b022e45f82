"""Strings that a stranger's client has written."""

from typing import Final

# What WhatsApp's own clients let somebody write; more than that was not written by one.
LONGEST: Final = 65_536


def clean(words: object, *, longest: int = LONGEST) -> str:
    """Words that the database and every customer can take.

    A protobuf's string may be no UTF-8, and then comes as bytes; and PostgreSQL stores no NUL. A
    message that cannot be stored would be offered for ever, so neither may stop one.
    """
    if isinstance(words, bytes):
        words = words.decode("utf-8", "replace")
    return str(words).replace("\x00", "")[:longest]
