"""Pairing: how a phone makes a client one of its account's devices.

A client that is not paired yet registers its public keys in ``ClientPayload`` and is given six
references, each good for one QR code. From there two ways lead to the same end.

*By QR code.* The code holds a reference, the client's Noise and identity keys and a secret that it
has made up. The phone scans it and so learns the secret without the server having seen it.

*By code.* The client shows eight characters and sends, wrapped under a key made of them (PBKDF2,
2¹⁷ rounds), an ephemeral key (``companion_hello``). The phone, where the eight characters were
typed, answers with an ephemeral key of its own, wrapped likewise, and its identity
(``primary_hello``, a notification). The client then sends its identity, sealed under what the two
ephemeral keys have in common (``companion_finish``). The secret is derived from all of this.

*The end.* The phone signs the new device's identity with the account's
(``ADVSignedDeviceIdentity``) and proves with an HMAC under the secret that it is the phone to which
the client has shown its code: ``pair-success``. The client checks both, signs in turn
(``pair-device-sign``), is told 515, and comes back to log in.

Source: whatsmeow ``pair.go``, ``pair-code.go``; Baileys ``configureSuccessfulPairing``.
"""

import hashlib
import hmac
import secrets
from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from time import time

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.whatsapp import notices, protobuf
from tests.whatsapp.accounts import Phone
from tests.whatsapp.connection import Connection
from tests.whatsapp.devices import Device
from tests.whatsapp.faults import stream_error
from tests.whatsapp.jid import LIDS, PHONES, SERVER
from tests.whatsapp.keys import KeyPair, derive
from tests.whatsapp.protobuf import Message
from tests.whatsapp.stanza import Attributes, Malformed, Stanza
from tests.whatsapp.world import World

REFERENCES = 6
ROUNDS = 2 << 16
# What is signed starts with these two bytes (``AdvAccountSignaturePrefix``).
ACCOUNT_SIGNS = b"\x06\x00"

# Fields of ``ClientPayload``, ``DevicePairingRegistrationData`` in it, ``DeviceProps`` in that.
PAIRING_DATA, DEVICE_PROPS, OS = 19, 8, 1
# Fields of ``ADVDeviceIdentity``, ``ADVSignedDeviceIdentity``, ``ADVSignedDeviceIdentityHMAC``.
RAW_ID, TIMESTAMP, KEY_INDEX = 1, 2, 3
DETAILS, SIGNATURE_KEY, SIGNATURE = 1, 2, 3
HMAC_DETAILS, HMAC_HMAC = 1, 2


@dataclass
class CodeExchange:
    """A pairing by code that is under way."""

    phone: str
    wrapped: bytes
    reference: bytes
    shared: bytes = b""


@dataclass
class Registration:
    """A client that waits to be paired."""

    name: str
    references: set[str] = field(default_factory=set)
    code: CodeExchange | None = None
    device: Device | None = None
    by: str = ""


def offer(world: World, connection: Connection, payload: Message) -> None:
    """Give a client the references for its QR codes: the first for a minute, then 20 s each."""
    data = protobuf.read(protobuf.inner(payload, PAIRING_DATA))
    props = protobuf.read(protobuf.inner(data, DEVICE_PROPS))
    connection.registration = Registration(name=protobuf.inner(props, OS).decode())
    refresh(world, connection)


def refresh(world: World, connection: Connection) -> None:
    """New references; the old ones are good no longer."""
    registration = _registration(connection)
    references = [b64encode(secrets.token_bytes(24)).decode() for _ in range(REFERENCES)]
    registration.references = set(references)
    pair_device = Stanza("pair-device", {}, [Stanza("ref", {}, r.encode()) for r in references])
    connection.send(
        Stanza(
            "iq",
            {"from": SERVER, "type": "set", "id": world.next_id(), "xmlns": "md"},
            [pair_device],
        )
    )
    world.happenings.tell("qr_offered", connection=connection.number)


def scan(world: World, phone: Phone, qr: str) -> int:
    """The phone scans a QR code; the number of the device that it thereby links.

    whatsmeow's codes start with a link to WhatsApp's settings, older ones with the reference.
    """
    parts = qr.rpartition("#")[2].split(",")
    if len(parts) < 4:
        raise ValueError("not a QR code for linking a device")
    reference, _, identity, secret = parts[:4]
    for connection in world.connections.values():
        registration = connection.registration
        if registration and reference in registration.references:
            return _pair(world, connection, phone, b64decode(identity), b64decode(secret), by="qr")
    raise LookupError("nobody shows this QR code any more")


def enter_code(world: World, phone: Phone, code: str) -> None:
    """A code is typed on the phone. Whether it was right shows when the client answers."""
    for connection in world.connections.values():
        exchange = connection.registration and connection.registration.code
        if exchange and exchange.phone == phone.number:
            _say_primary_hello(world, connection, phone, exchange, code.replace("-", ""))
            return
    raise LookupError("nobody waits to be paired with this number")


def answer(world: World, connection: Connection, query: Stanza) -> list[Stanza] | None:
    """Answer an ``md`` query: the steps of pairing by code, and logging out."""
    for request in query.children:
        if request.tag == "remove-companion-device":
            connection.afterwards(lambda: _log_out(world, connection))
        elif request.text("stage") == "companion_hello":
            return [_begin_code(world, connection, request)]
        elif request.text("stage") == "companion_finish":
            _finish_code(world, connection, request)
        else:
            world.not_known(connection, query)
    return None


def confirm(world: World, connection: Connection, result: Stanza) -> None:
    """Take note of a client's answer to ``pair-device`` or ``pair-success``."""
    registration = connection.registration
    device = registration.device if registration else None
    if registration is None or device is None:
        return
    phone = device.phone
    facts = {"phone": phone.number, "device": device.number, "by": registration.by}
    if result.find("pair-device-sign") is None:
        error = result.find("error")
        world.happenings.tell("pairing_failed", error=str(error), **facts)
        return
    phone.devices[device.number] = device
    world.happenings.tell("paired", **facts, name=device.name, lid=phone.lid)
    connection.close("paired", stream_error("515"))
    notices.devices_changed(world, phone)


def _log_out(world: World, connection: Connection) -> None:
    """The client gives up being a device; it has its answer, and needs no reason to go."""
    device = connection.owner
    connection.close("logged out")
    world.unlink(device, by="client")
    notices.devices_changed(world, device.phone)


def _registration(connection: Connection) -> Registration:
    if connection.registration is None:
        raise Malformed("not waiting to be paired")
    return connection.registration


def _pair(
    world: World, connection: Connection, phone: Phone, identity: bytes, secret: bytes, *, by: str
) -> int:
    registration = _registration(connection)
    number = phone.next_number()
    device = Device(phone, number, name=registration.name)
    registration.device, registration.by = device, by
    registration.references.clear()
    details = protobuf.write({RAW_ID: 1, TIMESTAMP: int(time()), KEY_INDEX: number})
    signed = protobuf.write(
        {
            DETAILS: details,
            SIGNATURE_KEY: phone.identity.public,
            SIGNATURE: phone.identity.sign(ACCOUNT_SIGNS + details + identity),
        }
    )
    proof = hmac.new(secret, signed, hashlib.sha256).digest()
    success = [
        Stanza("device-identity", {}, protobuf.write({HMAC_DETAILS: signed, HMAC_HMAC: proof})),
        Stanza("biz", {"name": ""}),
        Stanza("device", {"jid": device.at(PHONES), "lid": device.at(LIDS)}),
        Stanza("platform", {"name": "android"}),
    ]
    attributes: Attributes = {
        "from": SERVER,
        "type": "set",
        "id": world.next_id(),
        "xmlns": "md",
        "t": int(time()),
    }
    connection.send(Stanza("iq", attributes, [Stanza("pair-success", {}, success)]))
    return number


def _begin_code(world: World, connection: Connection, request: Stanza) -> Stanza:
    exchange = CodeExchange(
        phone=request.jid("jid").user,
        wrapped=request.child("link_code_pairing_wrapped_companion_ephemeral_pub").data,
        reference=secrets.token_hex(8).encode(),
    )
    _registration(connection).code = exchange
    world.happenings.tell("code_wanted", phone=exchange.phone, connection=connection.number)
    return Stanza(
        "link_code_companion_reg",
        {"stage": "companion_hello"},
        [Stanza("link_code_pairing_ref", {}, exchange.reference)],
    )


def _say_primary_hello(
    world: World, connection: Connection, phone: Phone, exchange: CodeExchange, code: str
) -> None:
    salt, vector, theirs = exchange.wrapped[:32], exchange.wrapped[32:48], exchange.wrapped[48:80]
    ephemeral = KeyPair()
    exchange.shared = ephemeral.agree(_wrap(code, salt, vector, theirs))
    salt, vector = secrets.token_bytes(32), secrets.token_bytes(16)
    wrapped = salt + vector + _wrap(code, salt, vector, ephemeral.public)
    hello = Stanza(
        "link_code_companion_reg",
        {"stage": "primary_hello"},
        [
            Stanza("link_code_pairing_wrapped_primary_ephemeral_pub", {}, wrapped),
            Stanza("primary_identity_pub", {}, phone.identity.public),
            Stanza("link_code_pairing_ref", {}, exchange.reference),
        ],
    )
    attributes: Attributes = {
        "from": SERVER,
        "type": "link_code_companion_reg",
        "id": world.next_id(),
        "t": int(time()),
    }
    connection.send(Stanza("notification", attributes, [hello]))


def _finish_code(world: World, connection: Connection, request: Stanza) -> None:
    registration = _registration(connection)
    exchange = registration.code
    phone = world.phones.get(exchange.phone) if exchange else None
    if exchange is None or phone is None:
        raise Malformed("companion_finish without companion_hello")
    bundle = request.child("link_code_pairing_wrapped_key_bundle").data
    key = derive(
        exchange.shared,
        salt=bundle[:32],
        info=b"link_code_pairing_key_bundle_encryption_key",
        length=32,
    )
    try:
        plain = AESGCM(key).decrypt(bundle[32:44], bundle[44:], None)
    except InvalidTag:
        world.happenings.tell(
            "pairing_failed", phone=phone.number, device=None, by="code", error="wrong code"
        )
        return
    identity, randomness = plain[:32], plain[64:96]
    secret = derive(
        exchange.shared + phone.identity.agree(identity) + randomness,
        info=b"adv_secret",
        length=32,
    )
    _pair(world, connection, phone, identity, secret, by="code")


def _wrap(code: str, salt: bytes, vector: bytes, key: bytes) -> bytes:
    """Hide a key under a code, or bring it to light: AES in counter mode does both alike."""
    wrapping = hashlib.pbkdf2_hmac("sha256", code.encode(), salt, ROUNDS, 32)
    return Cipher(algorithms.AES(wrapping), modes.CTR(vector)).encryptor().update(key)
