"""What an account's devices agree on (``w:sync:app:state``): here, the name it goes by.

State lives in five collections, each a series of patches that the server keeps without being able
to read them. The phone gives each device the key, in a message to that device alone; the device
then asks for every collection from the version that it has. One that changes something sends a
patch; the others are notified (``server_sync``) and fetch it.

A patch holds mutations: index and value, encrypted, each with a MAC. Two further MACs hold the
patch to the collection's whole content, which is hashed by adding up hashes of its values.

whatsmeow gets its own name only in this way, and without one cannot send a presence.

Source: whatsmeow ``appstate/{encode,decode,hash,keys}.go``, ``appstate.go``.
"""

import hashlib
import hmac
import json
import secrets
from dataclasses import dataclass, field
from time import time
from typing import TYPE_CHECKING

from tests.whatsapp import protobuf, signal
from tests.whatsapp.keys import derive
from tests.whatsapp.stanza import Stanza

if TYPE_CHECKING:
    from tests.whatsapp.devices import Device

SETTINGS = "critical_block"
KEY_SHARE = 6  # ``ProtocolMessage.Type.APP_STATE_SYNC_KEY_SHARE``
SUM_LENGTH = 128
MAC_LENGTH = 32


@dataclass
class SharedState:
    """One account's state. The server has the key, since the phones are part of it."""

    key_id: bytes = field(default_factory=lambda: b"\0\0" + secrets.token_bytes(4))
    key: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    patches: dict[str, list[bytes]] = field(default_factory=dict)

    def add(self, collection: str, patch: bytes) -> int:
        """Append a patch; the version that it makes."""
        patches = self.patches.setdefault(collection, [])
        version = len(patches) + 1
        # One message after another reads as one: the version that a device leaves out is put in.
        patches.append(patch + protobuf.write({1: protobuf.write({1: version})}))
        return version

    def since(self, collection: str, version: int) -> tuple[int, list[bytes]]:
        """The collection's version, and the patches that lead there."""
        patches = self.patches.get(collection, [])
        return len(patches), patches[version:]


def name_patch(state: SharedState, name: str) -> bytes:
    """The patch by which a phone that is new enters its name."""
    index = json.dumps(["setting_pushName"]).encode()
    setting: dict[int, int | bytes] = {1: int(time() * 1000), 7: protobuf.write({1: name.encode()})}
    action = protobuf.write({1: index, 2: protobuf.write(setting), 3: b"", 4: 1})
    keys = derive(state.key, info=b"WhatsApp Mutation Keys", length=160)
    of_index, of_value, mac_value, mac_all, mac_patch = (
        keys[start : start + 32] for start in range(0, 160, 32)
    )
    vector = secrets.token_bytes(16)
    content = vector + signal.encrypted(of_value, vector, action)
    checked = b"\x01" + state.key_id + content + (len(state.key_id) + 1).to_bytes(8, "big")
    value_mac = hmac.new(mac_value, checked, hashlib.sha512).digest()[:MAC_LENGTH]
    whole = derive(value_mac, info=b"WhatsApp Patch Integrity", length=SUM_LENGTH)
    place = (1).to_bytes(8, "big") + SETTINGS.encode()
    snapshot_mac = hmac.new(mac_all, whole + place, hashlib.sha256).digest()
    patch_mac = hmac.new(mac_patch, snapshot_mac + value_mac + place, hashlib.sha256).digest()
    key_id = protobuf.write({1: state.key_id})
    record = protobuf.write(
        {
            1: protobuf.write({1: hmac.new(of_index, index, hashlib.sha256).digest()}),
            2: protobuf.write({1: content + value_mac}),
            3: key_id,
        }
    )
    mutation = protobuf.write({1: 0, 2: record})
    return protobuf.write({2: mutation, 4: snapshot_mac, 5: patch_mac, 6: key_id})


def key_share(device: "Device", message_id: str) -> Stanza:
    """The message in which the phone gives one of its devices the key, encrypted for it."""
    phone = device.phone
    own, theirs = phone.devices[0].keys, device.keys
    assert own is not None
    assert theirs is not None
    state = phone.state
    fingerprint = protobuf.write({1: 1, 2: 0})
    data = protobuf.write({1: state.key, 2: fingerprint, 3: int(time() * 1000)})
    shared = protobuf.write({1: protobuf.write({1: protobuf.write({1: state.key_id}), 2: data})})
    message = protobuf.write({12: protobuf.write({2: KEY_SHARE, 7: shared})})
    sealed = signal.first_message(phone.identity, own.registration, theirs, signal.padded(message))
    return Stanza(
        "message",
        {
            "from": phone.jid,
            "id": message_id,
            "t": int(time()),
            "type": "text",
            "category": "peer",
        },
        [Stanza("enc", {"v": "2", "type": "pkmsg"}, sealed)],
    )
