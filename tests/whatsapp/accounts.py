"""Accounts: a phone with a number, the devices that are linked to it, and what they have sent.

The phone's owner is the admin API: it scans a QR code, enters a code, unlinks a device.
"""

import hashlib
import secrets
from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass, field
from time import time

from tests.whatsapp.devices import Device, KeyBundle
from tests.whatsapp.jid import LIDS, PHONES, Jid
from tests.whatsapp.keys import DJB, KeyPair
from tests.whatsapp.shared_state import SETTINGS, SharedState, name_patch
from tests.whatsapp.stanza import Stanza


@dataclass
class Sent:
    """A message as a client put it on the wire, whichever of the account's devices it was.

    ``sends`` counts the different stanzas with this id that were meant for everybody: more than
    one means that the client said it twice. ``repeats`` counts the same ciphertexts come again,
    which every recipient recognises: whatsmeow does that when its connection breaks before the ack.
    ``retries`` counts stanzas for one device that had asked for it again because it could not
    decrypt, which is as it should be. ``incomplete``: the client left out a device, and was told so
    by the hash in its ack.
    """

    id: str
    device: int
    to: str
    type: str
    edit: str
    at: float
    sends: int = 0
    repeats: int = 0
    retries: int = 0
    acked: bool = False
    incomplete: bool = False
    error: int | None = None
    reached: list[str] = field(default_factory=list)


class Phone:
    """One account."""

    def __init__(self, number: str, lid: str) -> None:
        self.number = number
        self.lid = lid
        self.identity = KeyPair()
        self.devices: dict[int, Device] = {}
        self.sent: dict[str, Sent] = {}
        self.push_name = number
        self.state = SharedState()
        self.about = ""
        self.picture: str | None = None
        self.available_on: set[int] = set()
        self.last_seen: int | None = None
        self.watchers: set[str] = set()
        # Numbers whose clients know this account's devices, and must hear when they change.
        self.known_to: set[str] = set()
        self.blocked: set[Jid] = set()
        # While true, nothing goes to its devices, and all waits (``offline_backlog``).
        self.held = False
        self.privacy: dict[str, str] = {"readreceipts": "all"}
        self._numbered = 0
        self._stanzas: set[bytes] = set()
        phone = Device(self, 0)
        phone.keys = _phone_keys(self.identity)
        self.devices[0] = phone

    def at(self, server: str) -> Jid:
        """Its address, by phone number or by LID."""
        return Jid(self.lid if server == LIDS else self.number, server)

    @property
    def jid(self) -> Jid:
        """Its address by phone number."""
        return self.at(PHONES)

    def enter_name(self) -> None:
        """Write the account's name into what its devices share, once there are any."""
        if SETTINGS not in self.state.patches:
            self.state.add(SETTINGS, name_patch(self.state, self.push_name))

    def next_number(self) -> int:
        """A number for a device to be linked: never one that was in use before."""
        self._numbered += 1
        return self._numbered

    @property
    def linked(self) -> list[Device]:
        """The devices other than the phone itself."""
        return [device for number, device in self.devices.items() if number]

    @property
    def reachable(self) -> list[Device]:
        """The devices that messages can be encrypted for."""
        return [device for device in self.devices.values() if device.keys is not None]

    def record(self, device: Device, stanza: Stanza, *, retry: bool) -> Sent:
        """Enter a message, or one more sending of it, into the account's ledger."""
        sent = self._entry(device, stanza)
        if retry:
            sent.retries += 1
            return sent
        stanza_hash = hashlib.sha256(stanza.text("id").encode())
        for ciphertext in stanza.every("enc"):
            stanza_hash.update(ciphertext.data)
        if stanza_hash.digest() in self._stanzas:
            sent.repeats += 1
        else:
            self._stanzas.add(stanza_hash.digest())
            sent.sends += 1
        return sent

    def _entry(self, device: Device, stanza: Stanza) -> Sent:
        message_id = stanza.text("id")
        sent = self.sent.get(message_id)
        if sent is None:
            sent = self.sent[message_id] = Sent(
                id=message_id,
                device=device.number,
                to=stanza.text("to"),
                type=stanza.text("type", "text"),
                edit=stanza.text("edit"),
                at=time(),
            )
        return sent


def device_hash(devices: Iterable[Jid]) -> str:
    """By which client and server compare lists of devices (whatsmeow ``participantListHashV2``)."""
    joined = "".join(sorted(device.hashed_form for device in devices))
    digest = hashlib.sha256(joined.encode()).digest()[:6]
    return f"2:{b64encode(digest).decode().rstrip('=')}"


def default_lid(number: str) -> str:
    """A LID for a number, always the same one and nothing like it."""
    return str(10**14 + int(hashlib.sha256(number.encode()).hexdigest(), 16) % 10**14)


def _phone_keys(identity: KeyPair) -> KeyBundle:
    """The keys under which messages for the phone itself are encrypted. Nobody ever reads them."""
    signed = KeyPair()
    return KeyBundle(
        registration=secrets.randbelow(16_380).to_bytes(4, "big"),
        identity=identity.public,
        signed=Stanza(
            "skey",
            {},
            [
                Stanza("id", {}, (1).to_bytes(3, "big")),
                Stanza("value", {}, signed.public),
                Stanza("signature", {}, identity.sign(DJB + signed.public)),
            ],
        ),
    )
