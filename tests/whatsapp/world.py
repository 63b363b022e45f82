"""All there is: phones, groups, connections, media, faults, and what has happened.

One process, one event loop, and nothing that waits between reading a stanza and having answered
it: so there are no locks, and no state is ever seen half changed.
"""

from dataclasses import dataclass, field
from itertools import count
from time import time

from tests.whatsapp.accounts import Phone, default_lid
from tests.whatsapp.connection import Connection
from tests.whatsapp.devices import Device
from tests.whatsapp.faults import AT_ONCE, Fault, Faults, stream_error
from tests.whatsapp.groups import Group
from tests.whatsapp.happenings import Happenings
from tests.whatsapp.jid import LIDS, PHONES, Jid
from tests.whatsapp.stanza import Stanza


@dataclass
class Visit:
    """One connection of a device, from login to end."""

    connection: int
    phone: str
    device: int
    connected_at: float
    host: str
    disconnected_at: float | None = None
    end: str = ""
    # The number of the connection that took this one's place while this one was still alive.
    replaced_by: int | None = None


@dataclass
class Medium:
    """An encrypted file as a client has uploaded it."""

    kind: str
    data: bytes


@dataclass
class Unknown:
    """A stanza that nobody here knows how to answer."""

    at: float
    phone: str
    stanza: str


@dataclass
class World:
    """The state of the server. ``port`` is where TLS listens."""

    port: int = 0
    phones: dict[str, Phone] = field(default_factory=dict)
    lids: dict[str, Phone] = field(default_factory=dict)
    groups: dict[Jid, Group] = field(default_factory=dict)
    connections: dict[int, Connection] = field(default_factory=dict)
    visits: dict[int, Visit] = field(default_factory=dict)
    media: dict[str, Medium] = field(default_factory=dict)
    unknown: list[Unknown] = field(default_factory=list)
    faults: Faults = field(default_factory=Faults)
    happenings: Happenings = field(default_factory=Happenings)
    # Delivery reports that a fault holds back: by author, message and reader.
    held_receipts: dict[tuple[str, str, str], Stanza] = field(default_factory=dict)
    _ids: "count[int]" = field(default_factory=lambda: count(1))

    def next_id(self) -> str:
        """An id for a stanza of the server's own."""
        return str(next(self._ids))

    def add_phone(self, number: str, lid: str = "") -> Phone:
        """A new account; the one there is if the number is taken."""
        if number in self.phones:
            return self.phones[number]
        phone = Phone(number, lid or default_lid(number))
        self.phones[number] = phone
        self.lids[phone.lid] = phone
        return phone

    def phone_of(self, jid: Jid) -> Phone | None:
        """The account that an address belongs to, by number or by LID."""
        if jid.server == LIDS:
            return self.lids.get(jid.user)
        if jid.server == PHONES:
            return self.phones.get(jid.user)
        return None

    def device_of(self, jid: Jid) -> Device | None:
        """The device at an address."""
        phone = self.phone_of(jid)
        return phone.devices.get(jid.device) if phone else None

    def copies(self, device: Device) -> int:
        """How often a stanza is sent to a device: twice while ``duplicates`` is in force."""
        return 2 if self.faults.strikes("duplicates", device.phone.number) else 1

    def not_known(self, connection: Connection, stanza: Stanza) -> None:
        """Record a stanza that nobody here knows."""
        phone = connection.device.phone.number if connection.device else ""
        self.unknown.append(Unknown(at=time(), phone=phone, stanza=str(stanza)))
        self.happenings.tell("unknown", phone=phone, stanza=str(stanza))

    def reset(self) -> None:
        """Let nothing and nobody be left; happenings and ids go on counting."""
        for connection in list(self.connections.values()):
            connection.drop("reset")
        self.faults.clear()
        for kept in (
            self.phones,
            self.lids,
            self.groups,
            self.visits,
            self.media,
            self.unknown,
            self.held_receipts,
        ):
            kept.clear()

    def strike(self, fault: Fault) -> None:
        """Inject a fault."""
        self.happenings.tell("fault", kind=fault.kind, phone=fault.phone)
        if fault.kind == "offline_backlog":
            self._hold(fault)
        if fault.kind not in AT_ONCE:
            self.faults.add(fault)
            return
        for connection in list(self.connections.values()):
            device = connection.device
            if device is None or fault.phone in {None, device.phone.number}:
                self._strike_connection(fault.kind, connection)

    def unlink(self, device: Device, *, by: str) -> None:
        """The account has this device no longer; if it is connected, it is told so."""
        device.phone.devices.pop(device.number, None)
        if device.connection is not None and not device.connection.end:
            device.connection.close("device_removed", stream_error("device_removed"))
        self.happenings.tell("unlinked", phone=device.phone.number, device=device.number, by=by)

    def _hold(self, fault: Fault) -> None:
        phones = [phone for phone in self.phones.values() if fault.phone in {None, phone.number}]

        def release() -> None:
            for phone in phones:
                phone.held = False
                for device in phone.linked:
                    device.send_backlog()

        for phone in phones:
            phone.held = True
        self.faults.once_cleared(release)

    def _strike_connection(self, kind: str, connection: Connection) -> None:
        match kind:
            case "drop":
                connection.drop("dropped")
            case "blackhole":
                connection.deafen()
                self.faults.once_cleared(connection.heal)
            case "device_removed":
                if connection.device is not None:
                    self.unlink(connection.device, by="fault")
            case "few_prekeys":
                if connection.device is not None and connection.device.keys is not None:
                    del connection.device.keys.one_time[1:]
                    connection.device.warn_if_few_keys()
            case _:
                connection.close(kind, stream_error(kind))
