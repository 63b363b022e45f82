"""Prekeys (``encrypt``): public keys that a device leaves here for those who write to it.

To write to a device for the first time one needs its identity key, its signed prekey and, if any is
left, one of its one-time prekeys, which is then gone. A device uploads 812 of them when it is new
(Baileys: 30), asks at each login how many are left, and is told when there are fewer than five.

Source: whatsmeow ``prekeys.go``, ``handleEncryptNotification``; Baileys ``src/Utils/signal.ts``.
"""

import hashlib
from time import time

from tests.whatsapp.connection import Connection
from tests.whatsapp.devices import Device, KeyBundle
from tests.whatsapp.keys import DJB
from tests.whatsapp.stanza import Stanza
from tests.whatsapp.world import World


def answer(world: World, connection: Connection, query: Stanza) -> list[Stanza] | None:
    """Answer an ``encrypt`` query."""
    device = connection.owner
    if query.find("count") is not None:
        return [Stanza("count", {"value": device.keys_left})]
    if (wanted := query.find("key")) is not None:
        return [Stanza("list", {}, [_bundle(world, user) for user in wanted.named("user")])]
    if query.find("digest") is not None:
        return _digest(device)
    if query.find("list") is not None:
        _upload(device, query)
        world.happenings.tell(
            "prekeys", phone=device.phone.number, device=device.number, left=device.keys_left
        )
    elif (rotated := query.find("rotate", "skey")) is not None and device.keys:
        device.keys.signed = rotated
    else:
        world.not_known(connection, query)
    return None


def _upload(device: Device, query: Stanza) -> None:
    one_time = device.keys.one_time if device.keys else []
    device.keys = KeyBundle(
        registration=query.child("registration").data,
        identity=query.child("identity").data,
        signed=query.child("skey"),
        one_time=[*one_time, *query.child("list").named("key")],
    )


def _bundle(world: World, user: Stanza) -> Stanza:
    """One device's keys, and one of its one-time prekeys for good."""
    jid = user.jid("jid")
    device = world.device_of(jid)
    if device is None or device.keys is None:
        missing = Stanza("error", {"code": 404, "text": "item-not-found"})
        return Stanza("user", {"jid": jid}, [missing])
    keys = device.keys
    one_time = [keys.one_time.pop(0)] if keys.one_time else []
    device.warn_if_few_keys()
    return Stanza(
        "user",
        {"jid": jid, "t": int(time())},
        [
            Stanza("registration", {}, keys.registration),
            Stanza("type", {}, DJB),
            Stanza("identity", {}, keys.identity),
            *one_time,
            keys.signed,
        ],
    )


def _digest(device: Device) -> list[Stanza] | None:
    """What the server holds of a device's keys, for the device to compare; if it holds any."""
    keys = device.keys
    if keys is None:
        return None
    ids = [key.child("id").data for key in keys.one_time]
    values = b"".join(key.child("value").data for key in keys.one_time)
    signed = keys.signed
    hashed = hashlib.sha1(
        keys.identity + signed.child("value").data + signed.child("signature").data + values,
        usedforsecurity=False,
    ).digest()
    content = [
        Stanza("registration", {}, keys.registration),
        Stanza("type", {}, DJB),
        Stanza("identity", {}, keys.identity),
        signed,
        Stanza("list", {}, [Stanza("id", {}, key_id) for key_id in ids]),
        Stanza("hash", {}, hashed),
    ]
    return [Stanza("digest", {}, content)]
