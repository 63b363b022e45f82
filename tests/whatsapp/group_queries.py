"""Queries about groups (``w:g2``), and the notifications (``w:gp2``) that follow a change.

A query to the server of groups makes a group, lists one's own, joins by invite link or leaves; a
query to a group reads or changes that one. Everybody in the group hears of a change, the device
that made it excepted, which has its answer.

Errors are those that whatsmeow knows by name: 401 not an admin, 403 not in the group, 404 no such
group, 406 no such invite link, 410 invite link revoked.

Source: whatsmeow ``group.go``; Baileys ``src/Socket/groups.ts``.
"""

from collections.abc import Callable, Mapping
from time import time
from typing import Final

from tests.whatsapp import notices
from tests.whatsapp.accounts import Phone
from tests.whatsapp.connection import Connection
from tests.whatsapp.groups import ADMIN, Group, new_group
from tests.whatsapp.jid import LIDS, PHONES, Jid
from tests.whatsapp.refusal import Denied
from tests.whatsapp.stanza import Stanza
from tests.whatsapp.world import World

Answer = list[Stanza] | None


def answer(world: World, connection: Connection, query: Stanza) -> Answer:
    """Answer a ``w:g2`` query."""
    request = query.children[0]
    to = query.jid("to")
    handlers = ANYWHERE if not to.user else IN_GROUP
    handler = handlers.get(request.tag)
    if handler is None:
        world.not_known(connection, query)
        return None
    group = world.groups.get(to)
    if to.user:
        _require(group is not None, 404, "item-not-found")
    return handler(world, connection, query, group or Group(to, "", ""))


def group_element(world: World, group: Group) -> Stanza:
    """A group as clients read it (whatsmeow ``parseGroupNode``)."""
    settings = [
        *([Stanza("announcement")] if group.announcement else []),
        *([Stanza("locked")] if group.locked else []),
        *([Stanza("ephemeral", {"expiration": group.expiration})] if group.expiration else []),
        *([Stanza("membership_approval_mode")] if group.approval else []),
        Stanza("member_add_mode", {}, group.member_add_mode.encode()),
    ]
    if group.description:
        body = Stanza("body", {}, group.description.encode())
        settings.append(
            Stanza(
                "description",
                {
                    "id": group.description_id,
                    "t": group.created,
                    "participant": _address(world, group, group.creator),
                },
                [body],
            )
        )
    return Stanza(
        "group",
        {
            "id": group.jid.user,
            "creator": _address(world, group, group.creator),
            "creator_pn": Jid(group.creator, PHONES) if group.by_lid else None,
            "creation": group.created,
            "subject": group.subject,
            "s_t": group.created,
            "s_o": _address(world, group, group.creator),
            "size": len(group.members),
            "addressing_mode": "lid" if group.by_lid else "pn",
            "a_v_id": "1",
            "p_v_id": "1",
        },
        [*settings, *(_participant(world, group, number) for number in group.members)],
    )


def tell_members(
    world: World,
    group: Group,
    by: Phone,
    content: Stanza,
    *,
    numbers: list[str] | None = None,
    except_connection: Connection | None = None,
) -> None:
    """Notify members of a change; of all of them unless ``numbers`` names some."""
    told = [
        device
        for number in (numbers if numbers is not None else list(group.members))
        for device in world.phones[number].linked
        if except_connection is None or device.connection is not except_connection
    ]
    notices.notify(
        world,
        told,
        "w:gp2",
        group.jid,
        [content],
        participant=_address(world, group, by.number),
        participant_pn=by.at(PHONES) if group.by_lid else None,
        notify=by.push_name or by.number,
        addressing_mode="lid" if group.by_lid else "pn",
    )
    world.happenings.tell("group", group=str(group.jid), change=content.tag, by=by.number)


def create(
    world: World,
    by: Phone,
    subject: str,
    numbers: list[str],
    *,
    by_lid: bool = True,
    except_connection: Connection | None = None,
) -> Group:
    """Make a group, and tell those who find themselves in it."""
    group = new_group(subject, by.number, by_lid=by_lid)
    group.members.update({number: "" for number in numbers if number != by.number})
    world.groups[group.jid] = group
    made = Stanza("create", {"type": "new"}, [group_element(world, group)])
    tell_members(world, group, by, made, except_connection=except_connection)
    return group


def _create(world: World, connection: Connection, query: Stanza, _: Group) -> Answer:
    request = query.child("create")
    found = [_number(world, participant) for participant in request.named("participant")]
    group = create(
        world,
        connection.owner.phone,
        request.text("subject"),
        [number for number in found if number],
        except_connection=connection,
    )
    for setting in request.children:
        _apply(group, setting)
    return [group_element(world, group)]


def _participating(world: World, connection: Connection, query: Stanza, _: Group) -> Answer:
    number = connection.owner.phone.number
    own = [
        group_element(world, group) for group in world.groups.values() if number in group.members
    ]
    return [Stanza("groups", {}, own)]


def _leave(world: World, connection: Connection, query: Stanza, _: Group) -> Answer:
    phone = connection.owner.phone
    left = []
    for named in query.child("leave").named("group"):
        group = world.groups.get(named.jid("id"))
        _require(group is not None and phone.number in group.members, 404, "item-not-found")
        assert group is not None
        members = list(group.members)
        gone = Stanza("remove", {}, [_participant(world, group, phone.number)])
        del group.members[phone.number]
        tell_members(world, group, phone, gone, numbers=members, except_connection=connection)
        left.append(Stanza("group", {"id": group.jid}))
    return [Stanza("leave", {}, left)]


def _by_invite(world: World, connection: Connection, query: Stanza, _: Group) -> Answer:
    """Look at the group of an invite link (get), or join it (set)."""
    code = query.child("invite").text("code")
    known = next((group for group in world.groups.values() if group.invite == code), None)
    if known is None:
        revoked = any(code in group.revoked for group in world.groups.values())
        raise Denied(410, "gone") if revoked else Denied(406, "not-acceptable")
    if query.text("type") == "get":
        return [group_element(world, known)]
    phone = connection.owner.phone
    if phone.number not in known.members:
        known.members[phone.number] = ""
        joined = Stanza("add", {"reason": "invite"}, [_participant(world, known, phone.number)])
        tell_members(world, known, phone, joined, except_connection=connection)
    return [Stanza("group", {"jid": known.jid})]


def _query(world: World, connection: Connection, query: Stanza, group: Group) -> Answer:
    _require(connection.owner.phone.number in group.members, 403, "forbidden")
    return [group_element(world, group)]


def _invite(world: World, connection: Connection, query: Stanza, group: Group) -> Answer:
    phone = connection.owner.phone
    _require(phone.number in group.members, 403, "forbidden")
    _require(group.is_admin(phone.number), 401, "not-authorized")
    if query.text("type") == "set":
        code = group.reset_invite()
        told = Stanza("invite", {"code": code})
        tell_members(world, group, phone, told, except_connection=connection)
    return [Stanza("invite", {"code": group.invite})]


def _change_members(world: World, connection: Connection, query: Stanza, group: Group) -> Answer:
    """Add, remove, promote or demote; each named person is answered, with an error if need be."""
    request = query.children[0]
    phone = connection.owner.phone
    admin = group.is_admin(phone.number)
    may = admin or (request.tag == "add" and group.member_add_mode == "all_member_add")
    _require(phone.number in group.members, 403, "forbidden")
    _require(may, 401, "not-authorized")
    before = list(group.members)
    results, changed = [], []
    for named in request.named("participant"):
        number = _number(world, named)
        error = _change_member(group, request.tag, number)
        if error or number is None:
            results.append(Stanza("participant", {"jid": named.jid("jid"), "error": error}))
            continue
        participant = _participant(world, group, number)
        results.append(participant)
        changed.append(participant)
    if changed:
        told = Stanza(request.tag, {"v_id": "2", "prev_v_id": "1"}, changed)
        numbers = [*before, *(number for number in group.members if number not in before)]
        tell_members(world, group, phone, told, numbers=numbers, except_connection=connection)
    return [Stanza(request.tag, {}, results)]


def _change_member(group: Group, change: str, number: str | None) -> int | None:
    """Do it; the error that the change meets, if it meets one."""
    if number is None:
        return 404
    if change == "add":
        if number in group.members:
            return 409
        group.members[number] = ""
        return None
    if number not in group.members:
        return 404
    if change == "remove":
        del group.members[number]
    else:
        group.members[number] = ADMIN if change == "promote" else ""
    return None


def _change_settings(world: World, connection: Connection, query: Stanza, group: Group) -> Answer:
    request = query.children[0]
    phone = connection.owner.phone
    _require(phone.number in group.members, 403, "forbidden")
    _require(group.may_edit(phone.number), 401, "not-authorized")
    _apply(group, request)
    told = request
    if request.tag == "subject":
        told = Stanza(
            "subject",
            {
                "subject": group.subject,
                "s_t": int(time()),
                "s_o": _address(world, group, phone.number),
            },
        )
    elif request.tag in {"announcement", "not_announcement"}:
        told = request.saying(v_id="2")
    tell_members(world, group, phone, told, except_connection=connection)
    return None


def _apply(group: Group, setting: Stanza) -> None:
    match setting.tag:
        case "subject":
            group.subject = setting.data.decode()
        case "description":
            body = setting.find("body")
            group.description = body.data.decode() if body else ""
            group.description_id = setting.text("id")
        case "announcement" | "not_announcement":
            group.announcement = setting.tag == "announcement"
        case "locked" | "unlocked":
            group.locked = setting.tag == "locked"
        case "ephemeral" | "not_ephemeral":
            group.expiration = int(setting.text("expiration", "0"))
        case "member_add_mode":
            group.member_add_mode = setting.data.decode()
        case "membership_approval_mode":
            state = setting.find("group_join")
            group.approval = state is not None and state.text("state") == "on"
        case _:
            pass  # Members, for one, are no setting.


def _require(fulfilled: bool, code: int, text: str) -> None:
    if not fulfilled:
        raise Denied(code, text)


def _number(world: World, participant: Stanza) -> str | None:
    phone = world.phone_of(participant.jid("jid"))
    return phone.number if phone else None


def _address(world: World, group: Group, number: str) -> Jid:
    return world.phones[number].at(LIDS if group.by_lid else PHONES)


def _participant(world: World, group: Group, number: str) -> Stanza:
    phone = world.phones[number]
    return Stanza(
        "participant",
        {
            "jid": _address(world, group, number),
            "phone_number": phone.at(PHONES) if group.by_lid else None,
            "lid": None if group.by_lid else phone.at(LIDS),
            "type": group.members.get(number) or None,
        },
    )


Handler = Callable[[World, Connection, Stanza, Group], Answer]
ANYWHERE: Final[Mapping[str, Handler]] = {
    "create": _create,
    "participating": _participating,
    "leave": _leave,
    "invite": _by_invite,
}
SETTINGS: Final = (
    "subject", "description", "announcement", "not_announcement", "locked", "unlocked",
    "ephemeral", "not_ephemeral", "member_add_mode", "membership_approval_mode",
)  # fmt: skip
IN_GROUP: Final[Mapping[str, Handler]] = {
    "query": _query,
    "invite": _invite,
    **dict.fromkeys(("add", "remove", "promote", "demote"), _change_members),
    **dict.fromkeys(SETTINGS, _change_settings),
}
