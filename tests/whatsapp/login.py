"""Logging in: a device that was paired before says who it is, and is let in or turned away.

1. Its ``ClientPayload`` gives its number and device.
2. ``failure`` if the device is not linked (401) or a fault says so; ``success`` otherwise, with the
   account's LID. If the same device is connected already, that connection is told ``conflict
   replaced`` and ended: WhatsApp keeps one connection a device.
3. The client tops up its prekeys if they run low, and asks to be ``active``. Only now does it get
   anything: ``offline_preview`` with the number of stanzas that have waited, these, each marked
   ``offline``, and ``offline`` when they are through.

Source: whatsmeow ``connectionevents.go``; Baileys ``src/Socket/socket.ts`` from ``CB:success``.
"""

from time import time

from tests.whatsapp import protobuf
from tests.whatsapp.accounts import Phone
from tests.whatsapp.connection import Connection
from tests.whatsapp.devices import Device
from tests.whatsapp.faults import stream_error
from tests.whatsapp.jid import LIDS
from tests.whatsapp.protobuf import Message
from tests.whatsapp.shared_state import key_share
from tests.whatsapp.stanza import Stanza
from tests.whatsapp.world import Visit, World

# Fields of ``ClientPayload``.
USERNAME, PUSH_NAME, DEVICE = 1, 7, 18


def log_in(world: World, connection: Connection, payload: Message) -> None:
    """Let a device in, or turn it away."""
    number = str(protobuf.number(payload, USERNAME))
    device_number = protobuf.number(payload, DEVICE)
    phone = world.phones.get(number)
    device = phone.devices.get(device_number) if phone else None
    refusal = world.faults.refusal(number)
    if refusal is None and (phone is None or device is None):
        refusal = Stanza("failure", {"reason": 401, "location": "lla"})
    if refusal is not None:
        reason = refusal.text("reason")
        world.happenings.tell(
            "login_refused", phone=number, device=device_number, reason=int(reason)
        )
        connection.close(f"refused with {reason}", refusal)
        return
    assert phone is not None
    assert device is not None
    if name := protobuf.inner(payload, PUSH_NAME):
        phone.push_name = name.decode()
    _take_over(world, device, connection)
    connection.send(_success(phone, device))


def activate(world: World, device: Device) -> None:
    """Give a device what has waited for it, and from now on what comes."""
    device.active = True
    world.happenings.tell("active", phone=device.phone.number, device=device.number)
    _share_key(world, device)
    device.send_backlog()
    device.warn_if_few_keys()


def _share_key(world: World, device: Device) -> None:
    """The phone gives a new device the key to what the account's devices share."""
    if device.trusted or device.keys is None:
        return
    device.trusted = True
    device.phone.enter_name()
    message_id = f"KEYS{world.next_id()}"
    device.mailbox.put(("message", message_id, device.phone.number), key_share(device, message_id))


def leave(world: World, connection: Connection) -> None:
    """Note that a connection has ended, whoever ended it."""
    world.connections.pop(connection.number, None)
    device = connection.device
    if device is None:
        return
    if device.connection is connection:
        device.connection = None
        device.active = False
        if device.number in device.phone.available_on:
            device.phone.available_on.discard(device.number)
            device.phone.last_seen = int(time())
    visit = world.visits.get(connection.number)
    if visit is None:
        return
    visit.disconnected_at = time()
    visit.end = connection.end or "closed"
    world.happenings.tell(
        "disconnected",
        phone=visit.phone,
        device=visit.device,
        connection=connection.number,
        end=visit.end,
    )


def _take_over(world: World, device: Device, connection: Connection) -> None:
    """Make this the device's connection, in place of the one that it has."""
    former = device.connection
    if former is not None:
        if not former.gone:
            world.visits[former.number].replaced_by = connection.number
        former.close("replaced", stream_error("replaced"))
    connection.device = device
    device.connection = connection
    device.active = False
    world.visits[connection.number] = Visit(
        connection=connection.number,
        phone=device.phone.number,
        device=device.number,
        connected_at=time(),
        host=connection.host,
    )
    world.happenings.tell(
        "connected",
        phone=device.phone.number,
        device=device.number,
        connection=connection.number,
        replaced=former is not None and not former.gone,
    )


def _success(phone: Phone, device: Device) -> Stanza:
    return Stanza(
        "success",
        {
            "t": int(time()),
            "props": "27",
            "companion_enc_static": "",
            "lid": device.at(LIDS),
            "display_name": phone.push_name,
        },
    )
