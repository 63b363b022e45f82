"""A device of an account: its public keys, and what is on its way to it."""

from collections import OrderedDict
from dataclasses import dataclass, field
from time import time
from typing import TYPE_CHECKING

from typing_extensions import override

from tests.whatsapp.jid import SERVER, Jid
from tests.whatsapp.stanza import Attributes, Stanza

if TYPE_CHECKING:
    from tests.whatsapp.accounts import Phone
    from tests.whatsapp.connection import Connection

Key = tuple[str, ...]
# Clients upload more one-time prekeys when told that there are fewer than this.
FEW_KEYS = 5


@dataclass
class KeyBundle:
    """What others need in order to begin a Signal session with a device.

    ``signed`` is a ``skey`` element, ``one_time`` are ``key`` elements, each good for one session.
    """

    registration: bytes
    identity: bytes
    signed: Stanza
    one_time: list[Stanza] = field(default_factory=list)


class Mailbox:
    """Stanzas for a device, each kept until the device confirms it.

    Sent when the device listens; sent again, under the same id, whenever it logs in before it has
    confirmed. That is what makes WhatsApp deliver at least once.
    """

    def __init__(self) -> None:
        self._waiting: OrderedDict[Key, Stanza] = OrderedDict()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, key: Key, stanza: Stanza) -> None:
        self._waiting[key] = stanza

    def confirm(self, key: Key) -> bool:
        """Forget a stanza; whether it was there."""
        return self._waiting.pop(key, None) is not None

    def backlog(self) -> list[Stanza]:
        """What is not confirmed, oldest first."""
        return list(self._waiting.values())


class Device:
    """Number 0 is the phone itself: it has keys but never connects. The others are linked."""

    def __init__(self, phone: "Phone", number: int, *, name: str = "") -> None:
        self.phone = phone
        self.number = number
        self.name = name
        self.keys: KeyBundle | None = None
        self.mailbox = Mailbox()
        self.connection: Connection | None = None
        # A device that has logged in is told nothing until it says that it is active.
        self.active = False
        # Whether the phone has given it the key to what the account's devices share.
        self.trusted = False

    @property
    def listening(self) -> bool:
        """Whether what is delivered now goes out now."""
        return self.connection is not None and self.active and not self.phone.held

    def at(self, server: str) -> Jid:
        """Its address, by phone number or by LID."""
        return self.phone.at(server).at_device(self.number)

    def deliver(self, key: Key, stanza: Stanza, *, copies: int = 1) -> None:
        """Send it now or later, and until it is confirmed."""
        if self.number == 0:
            return
        self.mailbox.put(key, stanza)
        for _ in range(copies):
            self.hint(stanza)

    @property
    def keys_left(self) -> int:
        """How many one-time prekeys others can still take."""
        return len(self.keys.one_time) if self.keys else 0

    def warn_if_few_keys(self) -> None:
        """Tell the device that its one-time prekeys run out; it uploads more."""
        if self.number == 0 or self.keys is None or self.keys_left >= FEW_KEYS:
            return
        attributes: Attributes = {
            "from": SERVER,
            "type": "encrypt",
            "id": f"prekeys-{self.keys_left}-{int(time())}",
            "t": int(time()),
        }
        count = Stanza("count", {"value": self.keys_left})
        self.hint(Stanza("notification", attributes, [count]))

    def hint(self, stanza: Stanza) -> None:
        """Send it now or never: who is typing is of no interest later."""
        if self.connection is not None and self.listening:
            self.connection.send(stanza)

    def send_backlog(self) -> None:
        """What has waited, between the two elements that announce it and end it."""
        if self.connection is None or not self.listening:
            return
        backlog = self.mailbox.backlog()
        tags = [stanza.tag for stanza in backlog]
        preview = {
            "count": len(backlog),
            "message": tags.count("message"),
            "receipt": tags.count("receipt"),
            "notification": tags.count("notification"),
            "appdata": 0,
        }
        self.connection.send(Stanza("ib", {"from": SERVER}, [Stanza("offline_preview", preview)]))
        for stanza in backlog:
            self.connection.send(stanza.saying(offline=0))
        end = Stanza("offline", {"count": len(backlog)})
        self.connection.send(Stanza("ib", {"from": SERVER}, [end]))

    @override
    def __str__(self) -> str:
        return f"{self.phone.number}:{self.number}"
