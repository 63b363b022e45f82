"""Addresses: who or what a stanza is from, to or about.

Written ``user:device@server``, the device left out when it is 0, which is the phone itself; each
linked device has a number of its own. One account has two users: its phone number on
``s.whatsapp.net`` and an opaque number on ``lid``, with the same devices under both.
"""

from dataclasses import dataclass, replace
from typing import Self

from typing_extensions import override

PHONES = "s.whatsapp.net"
LIDS = "lid"
GROUPS = "g.us"
BROADCASTS = "broadcast"
# How a client names a number that it asks about, as it was typed.
LEGACY = "c.us"


@dataclass(frozen=True, slots=True)
class Jid:
    """An address. Without a user it is the server itself."""

    user: str
    server: str
    device: int = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """The address that ``text`` spells; without an ``@`` it names a server."""
        user, at, server = text.rpartition("@")
        if not at:
            return cls("", text)
        user, colon, device = user.partition(":")
        return cls(user, server, int(device) if colon else 0)

    @property
    def account(self) -> Self:
        """The same address without its device."""
        return replace(self, device=0) if self.device else self

    def at_device(self, device: int) -> Self:
        """The same user's device of that number."""
        return replace(self, device=device)

    @property
    def hashed_form(self) -> str:
        """As it goes into the hash of a list of devices: with an agent, which is always 0."""
        return f"{self.user}.0:{self.device}@{self.server}"

    @override
    def __str__(self) -> str:
        if not self.user:
            return self.server
        device = f":{self.device}" if self.device else ""
        return f"{self.user}{device}@{self.server}"


SERVER = Jid("", PHONES)
GROUP_SERVER = Jid("", GROUPS)
STATUS = Jid("status", BROADCASTS)
