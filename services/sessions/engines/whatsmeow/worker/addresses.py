"""People's two addresses, and the one under which Waypost knows them.

WhatsApp addresses a person by telephone number (``@s.whatsapp.net``) or by a private id
(``@lid``), as it likes, and often tells the other beside it. whatsmeow keeps every pair that it has
seen. The canonical address is the number's if it is known, and else the private id's.
"""

from typing import Final

from services.sessions.domain.addresses import LEGACY_PERSON, PERSON, canonical, digits
from services.sessions.engines.whatsmeow.worker import library
from services.sessions.engines.whatsmeow.worker.memory import Memory, Named, memory_of
from services.sessions.engines.whatsmeow.worker.shapes import Client, Jid
from shared.contracts.content import Identity
from shared.errors import Transient

LID: Final = "@lid"
GROUP: Final = "@g.us"
BROADCAST: Final = "@broadcast"
NEWSLETTER: Final = "@newsletter"
# Businesses that let Meta host their account write from these; they are the same people.
_HOSTED: Final = {"hosted": "s.whatsapp.net", "hosted.lid": "lid", "c.us": "s.whatsapp.net"}


def text_of(jid: Jid) -> str:
    """An address of neonize's as ours, without its device; empty if there is none."""
    server = _HOSTED.get(jid.Server, jid.Server)
    return f"{jid.User}@{server}" if jid.User else ""


def plain(address: str) -> str:
    """An address from inside a message, such as a mention, without its device.

    ``4915100000001:3@s.whatsapp.net`` as ``4915100000001@s.whatsapp.net``.
    """
    user, at, server = address.rpartition("@")
    if not at:
        return ""
    return f"{user.partition(':')[0].partition('.')[0]}@{_HOSTED.get(server, server)}"


async def identity(
    client: Client, address: str, *, also: str = "", push_name: str | None = None
) -> Identity:
    """Who has this address; ``also`` is their other one, if it was told with it.

    Raises ``Transient`` if the store cannot be asked.
    """
    memory = memory_of(client)
    phone, lid = _pair(address, also)
    if phone and lid:
        memory.meet(phone=phone, lid=lid)
    elif lid:
        phone = await _phone(client, memory, lid)
    elif phone:
        lid = await _lid(client, memory, phone)
    if phone:
        chat_id = f"{phone}{PERSON}"
    elif lid:
        chat_id = f"{lid}{LID}"
    else:
        chat_id = address
    return Identity(
        phone=f"+{phone}" if phone else None,
        lid=f"{lid}{LID}" if lid else None,
        chat_id=chat_id,
        push_name=push_name or None,
    )


async def resolved(client: Client, address: str) -> str:
    """The canonical form of an address from inside a message. Raises as ``identity`` does."""
    form = plain(address)
    if not form.endswith(LID):
        return form
    return (await identity(client, form)).chat_id


async def as_member(client: Client, group: str, address: str) -> str:
    """Somebody's address in the form in which this group knows its members.

    A key that names somebody by the other form is not understood by every client. Raises what
    ``get_group_info`` does, if it has to be asked, and ``Transient`` as ``identity`` does.
    """
    memory = memory_of(client)
    by_lid = memory.by_lid.get(group)
    if by_lid is None:
        info = await client.get_group_info(library.jid(group))
        by_lid = any(member.JID.Server == "lid" for member in info.Participants)
        memory.by_lid.keep(group, by_lid)
    who = await identity(client, canonical(address))
    if by_lid and who.lid is not None:
        return who.lid
    return who.chat_id


async def own(client: Client) -> tuple[str, ...]:
    """The account's own addresses: by telephone number, and its private id if it has one."""
    memory = memory_of(client)
    if not memory.own:
        me = await client.get_me()
        memory.own = tuple(form for form in (text_of(me.JID), text_of(me.LID)) if form)
    return memory.own


async def named(client: Client, chat: str, author: str | None, message_id: str) -> Named:
    """What a message is remembered under. Without ``author``, the account itself wrote it."""
    if author is None or plain(canonical(author)) in await own(client):
        who = ""
    else:
        who = await resolved(client, canonical(author))
    return await resolved(client, chat), who, message_id


def _pair(address: str, also: str) -> tuple[str, str]:
    phone = lid = ""
    for form in (address, also):
        if form.endswith(LID):
            lid = lid or form.removesuffix(LID)
        elif form.endswith((PERSON, LEGACY_PERSON)):
            phone = phone or (digits(form) or "")
    return phone, lid


async def _phone(client: Client, memory: Memory, lid: str) -> str:
    known = memory.phones.get(lid)
    if known is not None:
        return known
    phone = await _asked(client, f"{lid}{LID}")
    if phone:
        memory.meet(phone=phone, lid=lid)
    return phone


async def _lid(client: Client, memory: Memory, phone: str) -> str:
    known = memory.lids.get(phone)
    if known is not None:
        return known
    lid = await _asked(client, f"{phone}{PERSON}")
    if lid:
        memory.meet(phone=phone, lid=lid)
    return lid


async def _asked(client: Client, address: str) -> str:
    jid = library.jid(address)
    try:
        if address.endswith(LID):
            other = await client.get_pn_from_lid(jid)
        else:
            other = await client.get_lid_from_pn(jid)
    except library.errors() as error:
        raise Transient("The engine's store did not answer.") from error
    return other.User
