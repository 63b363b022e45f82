"""Asking WhatsApp: numbers, the account's profile, groups; and what is shown without an answer."""

from collections.abc import Sequence
from typing import Final, Literal

from services.sessions.domain.addresses import PERSON, canonical
from services.sessions.engines.port import Unsupported
from services.sessions.engines.whatsmeow.worker import addresses, errors, groups, library
from services.sessions.engines.whatsmeow.worker.memory import memory_of
from services.sessions.engines.whatsmeow.worker.shapes import Client, OnWhatsApp
from services.sessions.engines.whatsmeow.worker.words import clean
from shared.contracts.content import Identity
from shared.contracts.questions import (
    Answer,
    ChangeMembers,
    CheckedNumber,
    CheckedNumbers,
    CheckNumbers,
    CreateGroup,
    LeaveGroup,
    ListGroups,
    PairByCode,
    Profile,
    Question,
    TellGroup,
    TellInviteLink,
    TellProfile,
)

_CHANGING: Final = (ChangeMembers, CreateGroup, LeaveGroup)


async def answer(client: Client, question: Question) -> Answer:
    """Ask WhatsApp, and return its answer. Raises as ``Engine.ask`` does.

    ``PairByCode`` is not for a client that is connected: it raises ``Unsupported``.
    """
    changes = isinstance(question, _CHANGING) or (
        isinstance(question, TellInviteLink) and question.renew
    )
    try:
        return await _asked(client, question)
    except library.errors() as error:
        raise errors.of_asking(error, changes=changes) from error


async def mark_read(
    client: Client,
    *,
    chat: str,
    sender: str,
    engine_message_ids: Sequence[str],
    played: bool,
) -> None:
    """Tell ``chat`` that messages of ``sender`` were read, or listened to. Raises as ``answer``."""
    if not engine_message_ids:
        return
    to = canonical(chat)
    try:
        by = canonical(sender)
        if to.endswith(addresses.GROUP):
            by = await addresses.as_member(client, to, by)
        await client.mark_read(
            *engine_message_ids,
            chat=library.jid(to),
            sender=library.jid(by),
            receipt=library.receipt_type(played=played),
        )
    except library.errors() as error:
        raise errors.of_asking(error, changes=False) from error


async def show_presence(
    client: Client, *, chat: str, state: Literal["typing", "recording", "paused"]
) -> None:
    """Show ``chat`` what the account is doing. Raises as ``answer``."""
    try:
        await client.send_chat_presence(
            library.jid(canonical(chat)),
            library.chat_presence(composing=state != "paused"),
            library.chat_presence_media(audio=state == "recording"),
        )
    except library.errors() as error:
        raise errors.of_asking(error, changes=False) from error


async def _asked(client: Client, question: Question) -> Answer:
    found: Answer
    match question:
        case CheckNumbers():
            found = await _numbers(client, question.numbers)
        case TellProfile():
            found = await _profile(client)
        case ListGroups():
            found = await groups.listed(client)
        case TellGroup():
            found = await groups.told(client, question.group)
        case CreateGroup():
            found = await groups.created(client, question.name, question.members)
        case ChangeMembers():
            found = await groups.changed(client, question)
        case TellInviteLink():
            found = await groups.invite_link(client, question.group, renew=question.renew)
        case LeaveGroup():
            found = await groups.left(client, question.group)
        case PairByCode():
            raise Unsupported("This device is linked already.")
    return found


async def _numbers(client: Client, numbers: Sequence[str]) -> CheckedNumbers:
    """Which numbers are there.

    whatsmeow asks by number and hands back the private id, if WhatsApp gives one; the address is
    the number's all the same, which is the canonical one.
    """
    if not numbers:
        return CheckedNumbers(numbers=())
    asked = [f"+{_digits(number)}" for number in numbers]
    there = {_digits(found.Query): found for found in await client.is_on_whatsapp(*asked)}
    return CheckedNumbers(
        numbers=tuple(_checked(client, number, there.get(_digits(number))) for number in numbers)
    )


def _checked(client: Client, number: str, found: OnWhatsApp | None) -> CheckedNumber:
    if found is None or not found.IsIn:
        return CheckedNumber(number=number, on_whatsapp=False)
    if found.JID.Server == "s.whatsapp.net":
        # WhatsApp corrects numbers that people write in more than one way.
        return CheckedNumber(number=number, on_whatsapp=True, address=addresses.text_of(found.JID))
    phone = _digits(number)
    if found.JID.Server == "lid":
        memory_of(client).meet(phone=phone, lid=found.JID.User)
    return CheckedNumber(number=number, on_whatsapp=True, address=f"{phone}{PERSON}")


def _digits(number: str) -> str:
    return "".join(character for character in number if character.isdigit())


async def _profile(client: Client) -> Profile:
    me = await client.get_me()
    phone, lid = addresses.text_of(me.JID), addresses.text_of(me.LID)
    number = phone.removesuffix(PERSON)
    return Profile(
        identity=Identity(
            phone=f"+{number}", lid=lid or None, chat_id=phone, push_name=clean(me.PushName) or None
        ),
        about=await _about(client, phone),
        picture_url=await _picture(client, phone),
    )


async def _about(client: Client, address: str) -> str | None:
    for told in await client.get_user_info(library.jid(address)):
        return clean(told.UserInfo.Status) or None
    return None


async def _picture(client: Client, address: str) -> str | None:
    try:
        picture = await client.get_profile_picture(library.jid(address))
    except library.errors() as error:
        words = str(error)
        if "does not have a profile picture" in words or "hidden their profile picture" in words:
            return None
        raise
    return clean(picture.URL) or None
