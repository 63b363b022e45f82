"""What has reached a contact, in the words of no engine."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """Something that has reached a contact: its kind, its words, and what else there is to it.

    ``group`` is where, unless it was said to the contact alone. ``target`` is the message that is
    changed, ``file`` the bytes of media.
    """

    kind: str
    group: str | None = None
    text: str | None = None
    target: str | None = None
    file: bytes | None = None
