"""Notifications: what the server tells devices unasked. Each is confirmed by an ``ack``."""

from collections.abc import Iterable, Sequence
from time import time

from tests.whatsapp.accounts import Phone, device_hash
from tests.whatsapp.devices import Device
from tests.whatsapp.jid import LIDS, PHONES, Jid
from tests.whatsapp.stanza import Attribute, Stanza
from tests.whatsapp.world import World


def notify(
    world: World,
    devices: Iterable[Device],
    kind: str,
    sender: Jid,
    content: Sequence[Stanza],
    **attributes: Attribute | int | None,
) -> None:
    """Tell devices something, now or when they are next there."""
    for device in devices:
        stanza_id = world.next_id()
        stanza = Stanza(
            "notification",
            {"from": sender, "type": kind, "id": stanza_id, "t": int(time()), **attributes},
            content,
        )
        device.deliver(("notification", stanza_id), stanza)


def devices_changed(world: World, phone: Phone) -> None:
    """The account's devices are others now: its own must know, and whoever writes to it.

    whatsmeow and Baileys keep the list of an account's devices for as long as they are told
    nothing, and would leave a new device out. ``update`` makes whatsmeow forget what it knows
    (``handleDeviceNotification``); for its own account it takes the list as sent
    (``handleOwnDevicesNotification``).
    """
    acquaintances = [
        device
        for number in phone.known_to
        if number != phone.number and number in world.phones
        for device in world.phones[number].linked
    ]
    for server in (PHONES, LIDS):
        jids = [phone.at(server).at_device(device.number) for device in phone.reachable]
        hashed = device_hash(jids)
        update = Stanza("update", {"device_hash": hashed, "hash": hashed})
        notify(world, acquaintances, "devices", phone.at(server), [update])
    jids = [phone.at(PHONES).at_device(number) for number in phone.devices]
    listed = Stanza(
        "devices", {"dhash": device_hash(jids)}, [Stanza("device", {"jid": jid}) for jid in jids]
    )
    notify(world, phone.linked, "account_sync", phone.at(PHONES), [listed])
