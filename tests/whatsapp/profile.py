"""Profiles: pictures (``w:profile:picture``), the text "about" (``status``), and both by ``w:mex``.

A picture is set by its bytes and fetched by address; people who know an account are told when its
picture or text changes. ``w:mex`` is GraphQL in JSON, of which one mutation is answered: the text
about oneself as whatsmeow sets it.

Source: whatsmeow ``user.go`` (``GetProfilePictureInfo``, ``SetStatusMessage``), ``group.go``
(``SetGroupPhoto``), ``notification.go``; Baileys ``src/Socket/chats.ts``.
"""

import json
import secrets

from tests.whatsapp import notices
from tests.whatsapp.accounts import Phone
from tests.whatsapp.certificates import MEDIA_HOST, WEB_HOST
from tests.whatsapp.connection import Connection
from tests.whatsapp.groups import Group
from tests.whatsapp.jid import GROUPS, LIDS, Jid
from tests.whatsapp.refusal import Denied
from tests.whatsapp.stanza import Stanza
from tests.whatsapp.world import Medium, World

SET_ABOUT = "9152604461510864"


def answer_picture(world: World, connection: Connection, query: Stanza) -> list[Stanza] | None:
    """Answer a ``w:profile:picture`` query: without a ``target`` it is about oneself."""
    own = connection.owner.phone
    target = query.find_jid("target")
    subject = _subject(world, own, target)
    if subject is None:
        raise Denied(404, "item-not-found")
    if query.text("type") == "set":
        return _set_picture(world, own, subject, query)
    if subject.picture is None:
        raise Denied(404, "item-not-found")
    picture = query.child("picture")
    if picture.text("id") == subject.picture:
        return None
    path = f"/v/{subject.picture}?ccb=11-4"
    host = MEDIA_HOST if connection.host == WEB_HOST else f"127.0.0.1:{world.port}"
    attributes = {
        "id": subject.picture,
        "url": f"https://{host}{path}",
        "type": picture.text("type", "image"),
        "direct_path": path,
    }
    return [Stanza("picture", attributes)]


def answer_status(world: World, connection: Connection, query: Stanza) -> list[Stanza] | None:
    """Answer a ``status`` query: it sets the text."""
    _set_about(world, connection.owner.phone, query.child("status").data.decode())
    return None


def answer_mex(world: World, connection: Connection, query: Stanza) -> list[Stanza] | None:
    """Answer a ``w:mex`` query, if it is the one that is known."""
    request = query.child("query")
    if request.text("query_id") != SET_ABOUT:
        world.not_known(connection, query)
        return [Stanza("result", {}, b'{"data":{}}')]
    asked = json.loads(request.data)["variables"]["input"]
    _set_about(world, connection.owner.phone, str(asked.get("text") or asked.get("content") or ""))
    return [Stanza("result", {}, b'{"data":{"xwa2_update_text_status":{"result":"SUCCESS"}}}')]


def _subject(world: World, own: Phone, target: Jid | None) -> Phone | Group | None:
    if target is None or not target.user:
        return own
    if target.server == GROUPS:
        return world.groups.get(target)
    return world.phone_of(target)


def _set_picture(
    world: World, own: Phone, subject: Phone | Group, query: Stanza
) -> list[Stanza] | None:
    picture = query.find("picture")
    if picture is None:
        subject.picture = None
    else:
        subject.picture = secrets.token_hex(8)
        world.media[subject.picture] = Medium(kind="picture", data=picture.data)
    jid = subject.jid if isinstance(subject, Group) else subject.at(LIDS)
    numbers = subject.members if isinstance(subject, Group) else subject.known_to
    change = Stanza(
        "set" if subject.picture else "delete",
        {"jid": jid, "id": subject.picture, "author": own.at(LIDS)},
    )
    devices = [
        device
        for number in numbers
        if number in world.phones and number != own.number
        for device in world.phones[number].linked
    ]
    notices.notify(world, devices, "picture", jid, [change])
    return [Stanza("picture", {"id": subject.picture})] if subject.picture else None


def _set_about(world: World, phone: Phone, text: str) -> None:
    phone.about = text
    devices = [
        device
        for number in phone.known_to
        if number in world.phones and number != phone.number
        for device in world.phones[number].linked
    ]
    notices.notify(world, devices, "status", phone.at(LIDS), [Stanza("set", {}, text.encode())])
