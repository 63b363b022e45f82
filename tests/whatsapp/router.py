"""Which module answers which stanza.

An ``iq`` is a query, told apart by its ``xmlns``, and always gets an answer under its id: a result,
or an error. Everything else has a tag of its own. A query that nobody here knows is answered with
an empty result, so that a client that can live without goes on, and recorded, so that a test fails.
"""

from collections.abc import Callable, Mapping
from time import time
from typing import Final

from tests.whatsapp import (
    group_queries,
    media,
    messages,
    pairing,
    prekeys,
    presence,
    profile,
    receipts,
    settings,
    usync,
)
from tests.whatsapp.connection import Connection
from tests.whatsapp.jid import SERVER
from tests.whatsapp.refusal import Denied
from tests.whatsapp.stanza import Attributes, Malformed, Stanza
from tests.whatsapp.world import World

Query = Callable[[World, Connection, Stanza], list[Stanza] | None]

QUERIES: Final[Mapping[str, Query]] = {
    "md": pairing.answer,
    "encrypt": prekeys.answer,
    "passive": settings.passive,
    "usync": usync.answer,
    "w:g2": group_queries.answer,
    "w:m": media.answer,
    "w:profile:picture": profile.answer_picture,
    "status": profile.answer_status,
    "w:mex": profile.answer_mex,
    "privacy": settings.privacy,
    "blocklist": settings.blocklist,
    "abt": settings.properties,
    "w": settings.properties,
    "w:sync:app:state": settings.shared_state,
    "w:biz": settings.business,
    "disappearing_mode": settings.nothing,
    "urn:xmpp:whatsapp:dirty": settings.nothing,
    "urn:xmpp:ping": settings.nothing,
    "w:p": settings.nothing,
    "w:stats": settings.nothing,
}


def handle(world: World, connection: Connection, stanza: Stanza) -> None:
    """Do what a client's stanza asks for."""
    try:
        _handle(world, connection, stanza)
    except Malformed:
        world.not_known(connection, stanza)


def _handle(world: World, connection: Connection, stanza: Stanza) -> None:
    match stanza.tag:
        case "iq" if stanza.text("type") in {"result", "error"}:
            pairing.confirm(world, connection, stanza)
        case "iq":
            _answer(world, connection, stanza)
        case "message":
            messages.take(world, connection, stanza)
        case "receipt":
            receipts.take(world, connection, stanza)
        case "ack":
            _acknowledged(world, connection, stanza)
        case "presence" if connection.device is None:
            pass  # Baileys says that it is there before it is linked.
        case "presence":
            presence.take_presence(world, connection, stanza)
        case "chatstate":
            presence.take_chatstate(world, connection, stanza)
        case "ib":
            pass  # offline_batch, unified_session: how the client means to go on.
        case _:
            world.not_known(connection, stanza)


def _answer(world: World, connection: Connection, query: Stanza) -> None:
    kind = "result"
    content: list[Stanza] | None
    try:
        content = _known_query(world, connection, query)(world, connection, query)
    except Denied as denied:
        kind, content = "error", [denied.stanza()]
    attributes: Attributes = {
        "from": query.jid("to") if query.text("xmlns") == "w:g2" else SERVER,
        "type": kind,
        "id": query.text("id"),
        "t": int(time()),
    }
    connection.send(Stanza("iq", attributes, content or None))
    connection.catch_up()


def _known_query(world: World, connection: Connection, query: Stanza) -> Query:
    xmlns = query.text("xmlns")
    phone = connection.device.phone.number if connection.device else ""
    if fault := world.faults.strikes("iq_error", phone, xmlns=xmlns):
        raise Denied(int(fault.number("code", 500)), str(fault.options.get("text", "fault")))
    known = QUERIES.get(xmlns)
    if known is None:
        world.not_known(connection, query)
        return settings.nothing
    return known


def _acknowledged(world: World, connection: Connection, ack: Stanza) -> None:
    """A client has got what it was sent."""
    device = connection.device
    if device is None:
        return
    match ack.text("class"):
        case "message":
            author = ack.find_jid("participant") or ack.jid("to")
            messages.confirmed(world, device, ack.text("id"), author)
        case "receipt":
            receipts.acknowledged(device, ack)
        case kind:
            device.mailbox.confirm((kind, ack.text("id")))
