"""Messages: taken from one device, acknowledged, and passed on to each device they are meant for.

A message is encrypted once for each device of its recipient and of its sender, the sending device
excepted. The ciphertexts (``enc``) come in one stanza, each under the address of its device (``to``
in ``participants``); the server gives each device its own and answers ``ack class=message``. In an
ack, ``error`` says that the message was refused, and ``phash`` how the list of devices should have
looked, if one is missing: the client then asks for it anew.

- ``pkmsg`` begins a Signal session and comes with the sender's signed ``device-identity``; ``msg``
  continues one.
- To a group there is one ciphertext for all (``skmsg``, by the sender's key for the group) and, for
  devices that do not have that key yet, ``participants`` with the key. Both go into one stanza.
- A device that cannot decrypt asks the sending device to try again (a ``retry`` receipt); the
  answer is a stanza with ``enc`` at its top and goes to that device alone.
- ``category=peer`` goes to the sender's own phone: requests for keys or history. It gets an ack.

Each device of an account is sent its copy for itself, and confirms it for itself: by a ``receipt``
(delivered, or ``sender`` for a copy of the account's own message) or an ``ack``.

Source: whatsmeow ``send.go``, ``message.go`` (``parseMessageSource``), ``retry.go``; Baileys
``relayMessage``, ``decodeMessageNode``.
"""

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from time import time

from tests.whatsapp.accounts import device_hash
from tests.whatsapp.connection import Connection
from tests.whatsapp.devices import Device
from tests.whatsapp.groups import Group
from tests.whatsapp.jid import GROUPS, LIDS, PHONES, Jid
from tests.whatsapp.stanza import Stanza
from tests.whatsapp.world import World

# What of a message its recipient gets to see beside the ciphertext.
PASSED_ON = {"meta", "multicast"}


@dataclass(frozen=True)
class Copy:
    """One device's part of a message."""

    device: Device
    address: Jid
    ciphertexts: list[Stanza]


def take(world: World, connection: Connection, stanza: Stanza) -> None:
    """Take a message from a client."""
    device = connection.owner
    if stanza.text("category") == "peer":
        _acknowledge(world, connection, stanza, error=None, phash=None)
        return
    directly = list(stanza.named("enc"))
    group = world.groups.get(stanza.jid("to"))
    retried = bool(directly) and any("count" in enc.attributes for enc in directly)
    sent = device.phone.record(device, stanza, retry=retried)
    if not retried:
        _tell(world, device, stanza)
    error = _refusal(world, device, stanza, group)
    if error is not None:
        sent.error = error
        _acknowledge(world, connection, stanza, error=error, phash=None)
        return
    copies = list(_copies(world, device, stanza, group, retried=retried))
    for copy in copies:
        _pass_on(world, device, stanza, copy, group)
    phash = None if retried else _missed(world, device, stanza, copies, group)
    sent.incomplete = sent.incomplete or phash is not None
    if world.faults.strikes("no_ack", device.phone.number) is None:
        sent.acked = True
        _acknowledge(world, connection, stanza, error=None, phash=phash)


def confirmed(world: World, device: Device, message_id: str, author: Jid) -> None:
    """A device has got a message and will not need it again."""
    phone = world.phone_of(author)
    if phone is None or not device.mailbox.confirm(_key(message_id, phone.number)):
        return
    sent = phone.sent.get(message_id)
    if sent is not None and str(device) not in sent.reached:
        sent.reached.append(str(device))
    world.happenings.tell(
        "reached",
        phone=device.phone.number,
        device=device.number,
        id=message_id,
        **{"from": phone.number},
    )


def _key(message_id: str, author: str) -> tuple[str, ...]:
    return ("message", message_id, author)


def _tell(world: World, device: Device, stanza: Stanza) -> None:
    to = stanza.jid("to")
    contact = world.phone_of(to)
    world.happenings.tell(
        "message",
        phone=device.phone.number,
        device=device.number,
        id=stanza.text("id"),
        to=contact.number if contact else str(to),
        type=stanza.text("type", "text"),
        edit=stanza.text("edit"),
    )


def _refusal(world: World, device: Device, stanza: Stanza, group: Group | None) -> int | None:
    """The error that a message meets, if it meets one."""
    if fault := world.faults.strikes("ack_error", device.phone.number):
        return int(fault.number("code", 500))
    to = stanza.jid("to")
    if to.server == GROUPS:
        if group is None:
            return 404
        return None if group.may_write(device.phone.number) else 403
    return None if world.phone_of(to) else 404


def _acknowledge(
    world: World, connection: Connection, stanza: Stanza, *, error: int | None, phash: str | None
) -> None:
    ack = Stanza(
        "ack",
        {
            "class": "message",
            "id": stanza.text("id"),
            "from": stanza.jid("to"),
            "participant": stanza.find_jid("participant"),
            "t": int(time()),
            "error": error,
            "phash": phash,
        },
    )
    late = world.faults.strikes("delay", connection.owner.phone.number)
    if late is None:
        connection.send(ack)
    else:
        asyncio.get_running_loop().call_later(late.number("seconds", 1), connection.send, ack)


def _copies(
    world: World, sender: Device, stanza: Stanza, group: Group | None, *, retried: bool
) -> Iterator[Copy]:
    """Each device's part, whichever way the message was put together."""
    listed = stanza.find("participants")
    own = {to.jid("jid"): list(to.named("enc")) for to in listed.named("to")} if listed else {}
    shared = list(stanza.named("enc"))
    if retried:
        address = stanza.find_jid("participant") or stanza.jid("to")
        yield from _addressed(world, {address: shared})
    elif group is None:
        yield from _addressed(world, own or {stanza.jid("to"): shared})
    else:
        server = LIDS if group.by_lid else PHONES
        for device in _of_group(world, group):
            if device is not sender:
                address = device.at(server)
                yield Copy(device, address, [*own.get(address, []), *shared])


def _addressed(world: World, ciphertexts: dict[Jid, list[Stanza]]) -> Iterator[Copy]:
    for address, enc in ciphertexts.items():
        device = world.device_of(address)
        if device is not None:
            yield Copy(device, address, enc)


def _of_group(world: World, group: Group) -> Iterable[Device]:
    return (device for number in group.members for device in world.phones[number].reachable)


def _missed(
    world: World, sender: Device, stanza: Stanza, copies: list[Copy], group: Group | None
) -> str | None:
    """The hash of the devices there are, if a client's list lacked one of them."""
    to = stanza.jid("to")
    if group is not None:
        server = LIDS if group.by_lid else PHONES
        listed = stanza.text("phash")
        actual = device_hash(device.at(server) for device in _of_group(world, group))
        return None if not listed or listed == actual else actual
    contact = world.phone_of(to)
    assert contact is not None
    everybody = {*contact.reachable, *sender.phone.reachable}
    if everybody - {copy.device for copy in copies} <= {sender}:
        return None
    return device_hash(device.at(to.server) for device in everybody)


def _pass_on(world: World, sender: Device, stanza: Stanza, copy: Copy, group: Group | None) -> None:
    device = copy.device
    identity = [child for child in stanza.named("device-identity") if _begins(copy.ciphertexts)]
    passed = [child for child in stanza.children if child.tag in PASSED_ON]
    message = Stanza(
        "message",
        {
            "id": stanza.text("id"),
            "t": int(time()),
            "type": stanza.text("type", "text"),
            "edit": stanza.text("edit") or None,
            "notify": sender.phone.push_name or sender.phone.number,
            **_whence(world, sender, stanza, copy, group),
        },
        [*copy.ciphertexts, *identity, *passed],
    )
    device.deliver(
        _key(stanza.text("id"), sender.phone.number), message, copies=world.copies(device)
    )


def _begins(ciphertexts: list[Stanza]) -> bool:
    return any(enc.text("type") == "pkmsg" for enc in ciphertexts)


def _whence(
    world: World, sender: Device, stanza: Stanza, copy: Copy, group: Group | None
) -> dict[str, Jid | str | None]:
    """From whom, and in which chat, as the device of a copy is to see it.

    In the addresses that the message was sent to: by LID if that was, with the number beside it.
    """
    by_lid = group.by_lid if group else copy.address.server == LIDS
    server, other = (LIDS, PHONES) if by_lid else (PHONES, LIDS)
    alternative = "pn" if by_lid else "lid"
    common = {"addressing_mode": "lid" if by_lid else "pn"}
    if group is not None:
        return {
            **common,
            "from": group.jid,
            "participant": sender.at(server),
            f"participant_{alternative}": sender.phone.at(other),
        }
    if copy.device.phone is not sender.phone:
        return {
            **common,
            "from": sender.at(server),
            f"sender_{alternative}": sender.phone.at(other),
        }
    chat = stanza.find_jid("recipient") or stanza.jid("to")
    contact = world.phone_of(chat)
    return {
        **common,
        "from": sender.at(server),
        "recipient": contact.at(server) if contact else chat,
        f"peer_recipient_{alternative}": contact.at(other) if contact else None,
    }
