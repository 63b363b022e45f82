"""The account's own affairs: privacy, blocked contacts, properties, state shared between devices.

Most of it a client asks for as it starts and hardly looks at; it is answered as by an account that
has never changed anything.

- ``privacy`` holds who may see what, and passes on *trusted contact tokens*: proof to somebody that
  one has written to them, which their client shows when it writes back or asks about presence.
- ``w:sync:app:state`` is what an account's devices agree on; see ``shared_state``.
- ``abt`` and ``w`` are properties by which WhatsApp turns features on; none is on.
- ``urn:xmpp:whatsapp:dirty`` says that a change has been noticed, ``w:stats`` brings statistics.

Source: whatsmeow ``privacysettings.go``, ``tctoken.go``, ``appstate.go``; Baileys
``src/Socket/chats.ts``.
"""

from tests.whatsapp import login, notices
from tests.whatsapp.connection import Connection
from tests.whatsapp.jid import LIDS, PHONES
from tests.whatsapp.refusal import Denied
from tests.whatsapp.stanza import Stanza
from tests.whatsapp.world import World

Answer = list[Stanza] | None


def privacy(world: World, connection: Connection, query: Stanza) -> Answer:
    """Answer a ``privacy`` query."""
    phone = connection.owner.phone
    if (tokens := query.find("tokens")) is not None:
        for token in tokens.named("token"):
            _pass_token(world, connection, token)
        return None
    asked = query.find("privacy")
    for category in asked.named("category") if asked else []:
        phone.privacy[category.text("name")] = category.text("value")
    categories = [
        Stanza("category", {"name": name, "value": value}) for name, value in phone.privacy.items()
    ]
    return [Stanza("privacy", {}, categories)]


def blocklist(world: World, connection: Connection, query: Stanza) -> Answer:
    """Answer a ``blocklist`` query: read it, or change it by one."""
    phone = connection.owner.phone
    if (item := query.find("item")) is not None:
        if item.text("action") == "block":
            phone.blocked.add(item.jid("jid"))
        else:
            phone.blocked.discard(item.jid("jid"))
    items = [Stanza("item", {"jid": jid}) for jid in sorted(phone.blocked, key=str)]
    return [Stanza("list", {"dhash": f"{len(items)}:none"}, items)]


def properties(world: World, connection: Connection, query: Stanza) -> Answer:
    """Answer an ``abt`` or ``w`` query."""
    return [Stanza("props", {"protocol": "1", "hash": "none", "refresh": 86_400})]


def shared_state(world: World, connection: Connection, query: Stanza) -> Answer:
    """Answer a ``w:sync:app:state`` query: patches since a version, or a new patch taken in."""
    collections = query.child("sync").named("collection")
    return [Stanza("sync", {}, [_collection(world, connection, asked) for asked in collections])]


def passive(world: World, connection: Connection, query: Stanza) -> Answer:
    """Answer a ``passive`` query: the device wants its backlog, or wants to be left alone."""
    if query.find("active") is None:
        connection.owner.active = False
    else:
        # After the answer, so that what the client waits for comes first.
        connection.afterwards(lambda: login.activate(world, connection.owner))
    return None


def business(world: World, connection: Connection, query: Stanza) -> Answer:
    """Answer a ``w:biz`` query: nobody here is a business."""
    raise Denied(404, "item-not-found")


def nothing(world: World, connection: Connection, query: Stanza) -> Answer:
    """Answer what only wants to be taken note of, keepalives among it."""
    return None


def _pass_token(world: World, connection: Connection, token: Stanza) -> None:
    sender = connection.owner.phone
    contact = world.phone_of(token.jid("jid"))
    if contact is None or contact is sender:
        return
    proof = Stanza(
        "token",
        {"type": token.text("type"), "t": token.text("t")},
        f"{sender.lid} to {contact.lid}".encode(),
    )
    notices.notify(
        world,
        contact.linked,
        "privacy_token",
        sender.at(PHONES),
        [Stanza("tokens", {}, [proof])],
        sender_lid=sender.at(LIDS),
    )


def _collection(world: World, connection: Connection, asked: Stanza) -> Stanza:
    device = connection.owner
    state = device.phone.state
    name, version = asked.text("name"), int(asked.text("version", "0"))
    current, patches = state.since(name, version)
    patch = asked.find("patch")
    # A device that writes must know what the others have written; what it lacks comes with the no.
    conflict = patch is not None and version != current
    if patch is not None and not conflict:
        current, patches = state.add(name, patch.data), []
        others = [other for other in device.phone.linked if other is not device]
        changed = Stanza("collection", {"name": name, "version": current})
        notices.notify(world, others, "server_sync", device.phone.jid, [changed])
    error = [Stanza("error", {"code": 409, "text": "conflict"})] if conflict else []
    found = [Stanza("patches", {}, [Stanza("patch", {}, data) for data in patches])]
    return Stanza(
        "collection",
        {"name": name, "version": current, "type": "error" if conflict else None},
        [*error, *(found if patches else [])] or None,
    )
