"""Presence: who is there, who wants to know, who is typing. Nothing of it is kept for later.

``presence type=available`` says that an account looks at its chats; it brings the name that others
are shown (``notify``). ``subscribe`` asks to be told about somebody, beginning with how it is now.
``chatstate`` holds ``composing`` (with ``media=audio`` while recording) or ``paused`` for one chat.

Source: whatsmeow ``presence.go``; Baileys ``sendPresenceUpdate``, ``presenceSubscribe``.
"""

from time import time

from tests.whatsapp.accounts import Phone
from tests.whatsapp.connection import Connection
from tests.whatsapp.devices import Device
from tests.whatsapp.jid import GROUPS, LIDS, PHONES, Jid
from tests.whatsapp.stanza import Stanza
from tests.whatsapp.world import World


def take_presence(world: World, connection: Connection, stanza: Stanza) -> None:
    """Take a ``presence`` from a client."""
    device = connection.owner
    phone = device.phone
    kind = stanza.text("type", "available")
    if kind in {"subscribe", "unsubscribe"}:
        _subscribe(world, device, stanza)
        return
    if name := stanza.text("name"):
        phone.push_name = name
    if kind == "available":
        phone.available_on.add(device.number)
    elif kind == "unavailable":
        phone.available_on.discard(device.number)
        phone.last_seen = int(time())
    world.happenings.tell("presence", phone=phone.number, state=kind, name=phone.push_name)
    for number in phone.watchers:
        watcher = world.phones.get(number)
        for other in watcher.linked if watcher else []:
            other.hint(_presence(phone, phone.at(LIDS)))


def take_chatstate(world: World, connection: Connection, stanza: Stanza) -> None:
    """Take a ``chatstate`` from a client."""
    device = connection.owner
    to = stanza.jid("to")
    state = stanza.children[0]
    group = world.groups.get(to)
    contact = world.phone_of(to)
    world.happenings.tell(
        "typing",
        phone=device.phone.number,
        to=contact.number if contact else str(to),
        state=state.tag,
        media=state.text("media") or None,
    )
    if to.server == GROUPS:
        if group is None:
            return
        server = LIDS if group.by_lid else PHONES
        whence: dict[str, Jid] = {"from": to, "participant": device.phone.at(server)}
        told = [world.phones[number] for number in group.members if number != device.phone.number]
    else:
        whence = {"from": device.phone.at(to.server)}
        told = [contact] if contact else []
    for phone in told:
        for other in phone.linked:
            other.hint(Stanza("chatstate", whence, stanza.content))


def _subscribe(world: World, device: Device, stanza: Stanza) -> None:
    jid = stanza.jid("to").account
    phone = world.phone_of(jid)
    if phone is None:
        return
    if stanza.text("type") == "unsubscribe":
        phone.watchers.discard(device.phone.number)
        return
    phone.watchers.add(device.phone.number)
    device.hint(_presence(phone, jid))


def _presence(phone: Phone, address: Jid) -> Stanza:
    if phone.available_on:
        return Stanza("presence", {"from": address, "type": "available"})
    return Stanza(
        "presence",
        {"from": address, "type": "unavailable", "last": phone.last_seen or "deny"},
    )
