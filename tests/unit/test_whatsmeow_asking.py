"""What WhatsApp is asked, and what its answers and its errors become."""

import pytest

from services.sessions.engines.port import SessionDown, Unsupported
from services.sessions.engines.whatsmeow.worker import asking
from shared.contracts.questions import (
    ChangedMember,
    ChangedMembers,
    ChangeMembers,
    CheckedNumbers,
    CheckNumbers,
    CreateGroup,
    Done,
    Group,
    Groups,
    InviteLink,
    LeaveGroup,
    ListGroups,
    PairByCode,
    Profile,
    Question,
    TellGroup,
    TellInviteLink,
    TellProfile,
)
from shared.errors import Forbidden, NotFound, PlatformError, Rejected, Throttled, Transient
from shared.errors import Unconfirmed as Unknown
from tests.support.neonize_client import (
    ADA,
    ADA_LID,
    BEN,
    BEN_LID,
    GROUP,
    OUR_LID,
    OURS,
    NeonizeClient,
    raised,
)


def acquainted(*, by_lid: bool = False) -> NeonizeClient:
    return NeonizeClient(pairs={ADA: ADA_LID, BEN: BEN_LID, OURS: OUR_LID}, by_lid=by_lid)


async def test_numbers_are_answered_in_order_and_by_number() -> None:
    answer = await asking.answer(acquainted(), CheckNumbers(numbers=("1555", ADA)))
    assert isinstance(answer, CheckedNumbers)
    assert [number.number for number in answer.numbers] == ["1555", ADA]
    assert [number.on_whatsapp for number in answer.numbers] == [False, True]
    assert answer.numbers[1].address == f"{ADA}@s.whatsapp.net"


async def test_no_numbers_are_no_question() -> None:
    client = acquainted()
    assert await asking.answer(client, CheckNumbers(numbers=())) == CheckedNumbers(numbers=())
    assert client.asked == []


async def test_the_profile_is_told_with_or_without_a_picture() -> None:
    client = acquainted()
    profile = await asking.answer(client, TellProfile())
    assert isinstance(profile, Profile)
    assert (profile.identity.phone, profile.identity.lid) == (f"+{OURS}", f"{OUR_LID}@lid")
    assert profile.picture_url == "https://pps.whatsapp.net/p"
    words = "that user or group does not have a profile picture"
    client.fails["get_profile_picture"] = raised("GetProfilePictureError", words)
    profile = await asking.answer(client, TellProfile())
    assert isinstance(profile, Profile)
    assert profile.picture_url is None


@pytest.mark.parametrize("by_lid", [False, True])
async def test_a_group_is_told_with_its_members(*, by_lid: bool) -> None:
    group = await asking.answer(acquainted(by_lid=by_lid), TellGroup(group=GROUP))
    assert isinstance(group, Group)
    assert (group.id, group.name, group.topic, group.size) == (GROUP, "Tea", None, 3)
    assert [(one.identity.phone, one.role) for one in group.members] == [
        (f"+{OURS}", "owner"),
        (f"+{ADA}", "member"),
        (f"+{BEN}", "member"),
    ]


async def test_a_list_of_groups_leaves_the_members_out() -> None:
    answer = await asking.answer(acquainted(), ListGroups())
    assert isinstance(answer, Groups)
    assert [(group.size, group.members) for group in answer.groups] == [(3, ())]


async def test_members_are_answered_in_the_order_in_which_they_were_named() -> None:
    question = ChangeMembers(group=GROUP, change="add", members=(f"+{BEN}", f"+{ADA}"))
    assert await asking.answer(acquainted(), question) == ChangedMembers(
        members=(ChangedMember(address=f"+{BEN}"), ChangedMember(address=f"+{ADA}"))
    )


async def test_the_others_are_done_and_told() -> None:
    client = acquainted()
    assert isinstance(
        await asking.answer(client, CreateGroup(name="Tea", members=(f"+{ADA}",))), Group
    )
    link = await asking.answer(client, TellInviteLink(group=GROUP))
    assert link == InviteLink(url="https://chat.whatsapp.com/AA")
    assert await asking.answer(client, LeaveGroup(group=GROUP)) == Done()


async def test_a_person_is_not_asked_about_as_a_group() -> None:
    client = acquainted()
    for question in (TellGroup(group=f"{ADA}@s.whatsapp.net"), LeaveGroup(group="1@newsletter")):
        with pytest.raises(Rejected):
            await asking.answer(client, question)
    assert client.asked == []


async def test_a_device_that_is_linked_is_not_paired_again() -> None:
    with pytest.raises(Unsupported):
        await asking.answer(acquainted(), PairByCode(phone_number=f"+{OURS}"))


TELL, LEAVE = TellGroup(group=GROUP), LeaveGroup(group=GROUP)


@pytest.mark.parametrize(
    ("question", "call", "words", "kind"),
    [
        (TELL, "get_group_info", "that group does not exist", NotFound),
        (TELL, "get_group_info", "you're not participating in that group", Forbidden),
        (TELL, "get_group_info", "websocket not connected", SessionDown),
        (TELL, "get_group_info", "info query timed out", Transient),
        (LEAVE, "leave_group", "info query timed out", Unknown),
        (LEAVE, "leave_group", "websocket not connected", Unknown),
        (LEAVE, "leave_group", "the store doesn't contain a device JID", SessionDown),
        (LEAVE, "leave_group", "info query returned status 404: item-not-found", NotFound),
        (LEAVE, "leave_group", "info query returned status 406: not-acceptable", Rejected),
        (LEAVE, "leave_group", "info query returned status 429: rate-overlimit", Throttled),
        (LEAVE, "leave_group", "info query returned status 500: internal", Transient),
        (
            TellInviteLink(group=GROUP, renew=True),
            "get_group_invite_link",
            "websocket disconnected before info query returned response",
            Unknown,
        ),
        (
            TellInviteLink(group=GROUP),
            "get_group_invite_link",
            "websocket disconnected before info query returned response",
            Transient,
        ),
        (
            TellInviteLink(group=GROUP),
            "get_group_invite_link",
            "you don't have the permission to get the group's invite link",
            Forbidden,
        ),
    ],
)
async def test_an_unanswered_question_may_be_repeated_only_if_it_changes_nothing(
    question: Question, call: str, words: str, kind: type[PlatformError]
) -> None:
    client = acquainted()
    client.fails[call] = raised("GetGroupInfoError", words)
    with pytest.raises(PlatformError) as failed:
        await asking.answer(client, question)
    assert type(failed.value) is kind


async def test_messages_are_marked_as_read_where_and_whose_they_are() -> None:
    client = acquainted(by_lid=True)
    ids = ("3EB0AA", "3EB0BB")
    await asking.mark_read(
        client, chat=f"+{ADA}", sender=f"+{ADA}", engine_message_ids=ids, played=False
    )
    await asking.mark_read(
        client, chat=GROUP, sender=f"+{BEN}", engine_message_ids=ids[:1], played=True
    )
    await asking.mark_read(client, chat=GROUP, sender=f"+{BEN}", engine_message_ids=(), played=True)
    ada = f"{ADA}@s.whatsapp.net"
    assert client.read == [
        (ids, ada, ada, "READ"),
        (ids[:1], GROUP, f"{BEN_LID}@lid", "PLAYED"),
    ]


async def test_showing_something_fails_as_asking_does() -> None:
    client = acquainted()
    client.fails["mark_read"] = raised("MarkReadError", "websocket not connected")
    client.fails["send_chat_presence"] = raised("SendPresenceError", "websocket not connected")
    with pytest.raises(SessionDown):
        await asking.mark_read(
            client, chat=ADA, sender=ADA, engine_message_ids=("3EB0AA",), played=False
        )
    with pytest.raises(SessionDown):
        await asking.show_presence(client, chat=ADA, state="typing")
