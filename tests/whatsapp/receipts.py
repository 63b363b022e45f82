"""Receipts: what a device reports about messages it was sent, and to whom that is passed on.

| type | means | goes to |
| --- | --- | --- |
| none | delivered | the author's devices |
| ``inactive`` | delivered, but nobody is looking | the same, as delivered |
| ``read``, ``played`` | read; listened to | the same, and the reader's other devices |
| ``read-self``, ``played-self`` | likewise, but nobody is to know | the reader's other devices |
| ``sender`` | the account's own message has come to its other device | nobody |
| ``retry`` | could not be decrypted; send it again | the very device that sent it |
| ``peer_msg``, ``hist_sync``, ``server-error`` | about the account's own affairs | nobody |

The server answers ``ack class=receipt``. One that it passes on is kept until acknowledged in turn.
Further ids of messages stand in a ``list``. In a group ``to`` is the group and ``participant`` the
author.

Source: whatsmeow ``receipt.go``, ``retry.go``; Baileys ``sendReceipt``, ``handleReceipt``.
"""

from collections.abc import Iterable
from time import time
from typing import Final

from tests.whatsapp import messages
from tests.whatsapp.accounts import Phone
from tests.whatsapp.connection import Connection
from tests.whatsapp.devices import Device
from tests.whatsapp.jid import GROUPS, LIDS, PHONES, Jid
from tests.whatsapp.stanza import Stanza
from tests.whatsapp.world import World

DELIVERED: Final = {"", "inactive"}
CONFIRMS: Final = {*DELIVERED, "sender", "peer_msg", "hist_sync"}
FOR_AUTHOR: Final = {*DELIVERED, "read", "played"}
FOR_OWN: Final = {"read", "played", "read-self", "played-self"}


def take(world: World, connection: Connection, stanza: Stanza) -> None:
    """Take a receipt from a client."""
    device = connection.owner
    kind = stanza.text("type")
    to = stanza.jid("to")
    ids = _ids(stanza)
    connection.send(
        Stanza(
            "ack",
            {
                "class": "receipt",
                "id": stanza.text("id"),
                "from": to,
                "participant": stanza.find_jid("participant"),
                "type": kind or None,
                "t": int(time()),
            },
        )
    )
    author_jid = stanza.find_jid("participant") or to
    author = world.phone_of(author_jid)
    world.happenings.tell(
        "receipt",
        phone=device.phone.number,
        device=device.number,
        ids=ids,
        to=author.number if author else str(to),
        type=kind or "delivered",
    )
    if kind in CONFIRMS:
        for message_id in ids:
            messages.confirmed(world, device, message_id, author_jid)
    if author is None:
        return
    if kind == "retry":
        _ask_again(world, device, stanza, author_jid)
    if kind in FOR_AUTHOR and author is not device.phone:
        _report(world, device.phone, stanza, author)
    if kind in FOR_OWN:
        _synchronise(world, device, stanza)


def acknowledged(device: Device, ack: Stanza) -> None:
    """A device has got a receipt."""
    device.mailbox.confirm(
        _key(ack.text("id"), ack.jid("to"), ack.find_jid("participant"), ack.text("type"))
    )


def report(
    world: World, reader: Phone, ids: list[str], *, to: Jid, kind: str, author: Phone
) -> None:
    """Pass on a receipt as if a device of ``reader`` had sent it; ``to`` is the chat."""
    items = [Stanza("item", {"id": message_id}) for message_id in ids[1:]]
    stanza = Stanza(
        "receipt",
        {"id": ids[0], "to": to, "type": kind or None},
        [Stanza("list", {}, items)] if items else None,
    )
    _report(world, reader, stanza, author)


def _ids(stanza: Stanza) -> list[str]:
    listed = stanza.find("list")
    further = [item.text("id") for item in listed.named("item")] if listed else []
    return [stanza.text("id"), *further]


def _key(message_id: str, sender: Jid, participant: Jid | None, kind: str) -> tuple[str, ...]:
    who = participant.account if participant else ""
    return ("receipt", message_id, str(sender.account), str(who), kind)


def _deliver(world: World, devices: Iterable[Device], stanza: Stanza) -> None:
    key = _key(
        stanza.text("id"), stanza.jid("from"), stanza.find_jid("participant"), stanza.text("type")
    )
    for device in devices:
        device.deliver(key, stanza, copies=world.copies(device))


def _report(world: World, reader: Phone, stanza: Stanza, author: Phone) -> None:
    """Tell the author's devices, in due order unless a fault turns it round."""
    to = stanza.jid("to")
    kind = stanza.text("type")
    in_group = to.server == GROUPS
    server = _server_of_chat(world, to)
    reader_jid = reader.at(server)
    receipt = Stanza(
        "receipt",
        {
            "from": to if in_group else reader_jid,
            "id": stanza.text("id"),
            "participant": reader_jid if in_group else None,
            "type": None if kind in DELIVERED else kind,
            "t": int(time()),
        },
        stanza.content,
    )
    early = (author.number, stanza.text("id"), reader.number)
    if kind in DELIVERED and world.faults.strikes("receipts_out_of_order", author.number):
        world.held_receipts[early] = receipt
        world.faults.once_cleared(lambda: _release(world, early, author))
        return
    _deliver(world, author.linked, receipt)
    _release(world, early, author)


def _release(world: World, early: tuple[str, str, str], author: Phone) -> None:
    held = world.held_receipts.pop(early, None)
    if held is not None:
        _deliver(world, author.linked, held)


def _ask_again(world: World, device: Device, stanza: Stanza, author_jid: Jid) -> None:
    """Hand a request for another try, with the keys that it brings, to the device it is for."""
    author = world.device_of(author_jid)
    if author is None:
        return
    to = stanza.jid("to")
    in_group = to.server == GROUPS
    asker = device.at(_server_of_chat(world, to))
    receipt = Stanza(
        "receipt",
        {
            "from": to if in_group else asker,
            "id": stanza.text("id"),
            "participant": asker if in_group else None,
            "recipient": stanza.find_jid("recipient"),
            "type": "retry",
            "t": int(time()),
        },
        stanza.content,
    )
    _deliver(world, [author], receipt)


def _synchronise(world: World, device: Device, stanza: Stanza) -> None:
    """Let the reader's other devices know that something was read."""
    to = stanza.jid("to")
    in_group = to.server == GROUPS
    others = [other for other in device.phone.linked if other is not device]
    own = device.at(_server_of_chat(world, to))
    receipt = Stanza(
        "receipt",
        {
            "from": to if in_group else own,
            "id": stanza.text("id"),
            "participant": own if in_group else None,
            "recipient": stanza.find_jid("participant") if in_group else to.account,
            "type": stanza.text("type"),
            "t": int(time()),
        },
        stanza.content,
    )
    _deliver(world, others, receipt)


def _server_of_chat(world: World, chat: Jid) -> str:
    """Whether people in a chat are named by LID or by number."""
    if chat.server != GROUPS:
        return chat.server
    group = world.groups.get(chat)
    return LIDS if group is None or group.by_lid else PHONES
