"""Numbers as those see them who are not to know them whole."""

import pytest

from services.gateway.domain.masking import Sight, masked, sight_of
from services.gateway.domain.permissions import Role
from services.gateway.domain.principal import Principal, PrincipalKind
from shared.errors import Conflict
from shared.ids import new_id

FOUNDER = "12025550177"
AGENT = Sight(masked=True)
VIEWER = Sight(masked=True, reads=False)
SAID = {"kind": "text", "text": "Call 12025550108", "mentions": ["+12025550108"]}
RECEIVED = {
    "messageId": "0197d6a2-6b3c-7b57-9c1f-1234567890ab",
    "from": "+12025550108",
    "to": "+12025550000",
    "timestamp": "2026-01-15T12:00:00.000Z",
    "identity": {"phone": "+12025550108", "chatId": "12025550108@s.whatsapp.net"},
    "error": {"code": "12345678", "message": "+12025550108 is unknown"},
    "some": ["12025550108"],
    "used": 12025550108,
    "content": SAID,
}


@pytest.mark.parametrize(
    ("whole", "shown"),
    [
        ("+12025550108", "+1202•••0108"),
        ("12025550108@s.whatsapp.net", "1202•••0108@s.whatsapp.net"),
        ("+4915112345678", "+4915•••5678"),
        ("+1234567", "+12•••67"),
        ("120363041234567890@g.us", "120363041234567890@g.us"),
        ("refused by +12025550108, again", "refused by +1202•••0108, again"),
        (f"{FOUNDER}-1399999999@g.us", "1202•••0177-1399999999@g.us"),
        ("Ada +1 (202) 555-0108", "Ada +1202•••0108"),
        ("at 2026-01-15T12:00:00+00:00", "at 2026-01-15T12:00:00+00:00"),
        ("EXPIRED after 24 hours", "EXPIRED after 24 hours"),
        (
            "0197d6a2-6b3c-7b57-9c1f-1234567890ab",
            "0197d6a2-6b3c-7b57-9c1f-1234567890ab",
        ),
    ],
)
def test_the_middle_of_a_number_is_hidden(whole: str, shown: str) -> None:
    assert masked(whole) == shown


def test_an_event_has_no_whole_number_but_in_what_was_said() -> None:
    shown = AGENT.data(RECEIVED)
    assert shown == {
        "messageId": RECEIVED["messageId"],
        "from": "+1202•••0108",
        "to": "+1202•••0000",
        "timestamp": "2026-01-15T12:00:00.000Z",
        "identity": {"phone": "+1202•••0108", "chatId": "1202•••0108@s.whatsapp.net"},
        "error": {"code": "12345678", "message": "+1202•••0108 is unknown"},
        "some": ["1202•••0108"],
        "used": 12025550108,
        "content": SAID,
    }
    assert VIEWER.data(RECEIVED) == {**shown, "content": None}
    assert VIEWER.data({"emoji": "x"}) == {"emoji": None}
    assert Sight().data(RECEIVED) == RECEIVED


def test_a_cloud_event_names_the_chat_nowhere_else() -> None:
    envelope = {
        "subject": "messages/1",
        "partitionkey": "12025550108@s.whatsapp.net",
        "sequence": "00001768478400000000",
        "data": {"to": "+12025550108"},
    }
    assert AGENT.envelope(envelope) == {
        "subject": "messages/1",
        "partitionkey": "1202•••0108@s.whatsapp.net",
        "sequence": "00001768478400000000",
        "data": {"to": "+1202•••0108"},
    }


@pytest.mark.parametrize(
    ("whole", "shown"),
    [
        ("contact_12025550108.vcf", "contact_1202•••0108.vcf"),
        ("+12025550108.pdf", "+1202•••0108.pdf"),
        ("IMG-20260115-WA0001.jpg", "IMG-20260115-WA0001.jpg"),
        ("offer.pdf", "offer.pdf"),
    ],
)
def test_a_file_s_name_hides_numbers_from_agents_and_all_from_viewers(
    whole: str, shown: str
) -> None:
    file = {"filename": whole, "sha256": "0" * 64}
    assert AGENT.data(file) == {"filename": shown, "sha256": "0" * 64}
    assert VIEWER.data(file) == {"filename": None, "sha256": None}
    assert AGENT.file(whole) == shown


def test_an_error_and_an_invitation_say_no_more_than_an_event() -> None:
    error = Conflict("+12025550108 is away.", data={"members": ["12025550108@s.whatsapp.net"]})
    AGENT.hide_in(error)
    assert error.message == "+1202•••0108 is away."
    assert error.data == {"members": ["1202•••0108@s.whatsapp.net"]}
    link = "https://chat.whatsapp.com/0123456789ABCDEFGHIJKL"
    assert AGENT.link(link) == "https://chat.whatsapp.com/•••"
    assert Sight().link(link) == link


@pytest.mark.parametrize(
    ("role", "masking", "seen"),
    [
        (Role.ADMIN, True, Sight()),
        (Role.MANAGER, True, Sight()),
        (None, True, Sight()),
        (Role.AGENT, True, AGENT),
        (Role.VIEWER, True, VIEWER),
        (Role.AGENT, False, Sight()),
        (Role.VIEWER, False, Sight()),
    ],
)
def test_numbers_are_hidden_from_agents_and_viewers_and_words_from_viewers(
    role: Role | None, masking: bool, seen: Sight
) -> None:
    principal = Principal(
        kind=PrincipalKind.USER,
        tenant_id=new_id(),
        permissions=frozenset(),
        limit_key="x",
        role=role,
        masking=masking,
    )
    assert sight_of(principal) == seen
