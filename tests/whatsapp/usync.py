"""Questions about users (``usync``): are they on WhatsApp, with which devices, under which LID.

A query names what it wants to know and lists users, by address or, as ``contact``, by a number as
it was typed. Each user is answered with an element for each thing that was asked.

Source: whatsmeow ``user.go`` (``IsOnWhatsApp``, ``GetUserInfo``, ``GetUserDevices``); Baileys
``src/WAUSync``.
"""

from collections.abc import Callable, Mapping
from typing import Final

from tests.whatsapp.accounts import Phone, device_hash
from tests.whatsapp.connection import Connection
from tests.whatsapp.jid import LIDS, PHONES, Jid
from tests.whatsapp.stanza import Stanza
from tests.whatsapp.world import World


def answer(world: World, connection: Connection, query: Stanza) -> list[Stanza] | None:
    """Answer a ``usync`` query."""
    usync = query.child("usync")
    asked = usync.child("query").children
    asker = connection.owner.phone.number
    found = [_user(world, asker, user, asked) for user in usync.child("list").named("user")]
    attributes = {name: usync.text(name) for name in ("sid", "mode", "context")}
    results = [Stanza(question.tag) for question in asked]
    return [
        Stanza(
            "usync",
            {**attributes, "index": "0", "last": "true"},
            [Stanza("result", {}, results), Stanza("list", {}, found)],
        )
    ]


def _user(world: World, asker: str, user: Stanza, asked: list[Stanza]) -> Stanza:
    contact = user.find("contact")
    if contact is not None and contact.data:
        return _by_number(world, asker, contact.data, asked)
    named = user.find("lid")
    jid = named.jid("jid") if named is not None and "jid" in named.attributes else user.jid("jid")
    phone = world.phone_of(jid)
    if phone is None:
        missing = [
            Stanza(question.tag, {}, [Stanza("error", {"code": 404})])
            for question in asked
            if question.tag == "devices"
        ]
        return Stanza("user", {"jid": jid}, missing)
    return Stanza("user", {"jid": jid}, _facts(phone, jid, asker, asked))


def _by_number(world: World, asker: str, typed: bytes, asked: list[Stanza]) -> Stanza:
    number = typed.decode().partition("@")[0].lstrip("+")
    phone = world.phones.get(number)
    pn = Jid(number, PHONES)
    if phone is None:
        return Stanza("user", {"pn_jid": pn}, [Stanza("contact", {"type": "out"}, typed)])
    by_lid = any(
        question.tag == "contact" and question.text("addressing_mode") == "lid"
        for question in asked
    )
    jid = phone.at(LIDS if by_lid else PHONES)
    facts = [
        Stanza("contact", {"type": "in"}, typed) if fact.tag == "contact" else fact
        for fact in _facts(phone, jid, asker, asked)
    ]
    return Stanza("user", {"jid": jid, "pn_jid": pn}, facts)


def _facts(phone: Phone, jid: Jid, asker: str, asked: list[Stanza]) -> list[Stanza]:
    if any(question.tag == "devices" for question in asked):
        phone.known_to.add(asker)
    return [FACTS[question.tag](phone, jid) for question in asked if question.tag in FACTS]


def _devices(phone: Phone, jid: Jid) -> Stanza:
    numbers = [device.number for device in phone.reachable]
    hashed = device_hash(jid.account.at_device(number) for number in numbers)
    # A linked device without a key index is none to Baileys; the phone itself has no such index.
    listed = [Stanza("device", {"id": number, "key-index": number or None}) for number in numbers]
    return Stanza("devices", {}, [Stanza("device-list", {"hash": hashed}, listed)])


def _picture(phone: Phone, _: Jid) -> Stanza:
    return Stanza("picture", {"id": phone.picture} if phone.picture else {})


# Verified names, disappearing messages and user names are had by nobody here: unanswered.
FACTS: Final[Mapping[str, Callable[[Phone, Jid], Stanza]]] = {
    "contact": lambda phone, _: Stanza("contact", {"type": "in"}, phone.number.encode()),
    "devices": _devices,
    "lid": lambda phone, _: Stanza("lid", {"val": phone.at(LIDS)}),
    "status": lambda phone, _: Stanza("status", {}, phone.about.encode()),
    "picture": _picture,
}
