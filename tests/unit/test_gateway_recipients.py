"""Whom a message is for, however it was written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.domain.recipients import Address, NotAnAddress, address_of

PERSON = Address("4915112345678@s.whatsapp.net", "+4915112345678")


@pytest.mark.parametrize(
    "text",
    [
        "4915112345678",
        "+4915112345678",
        "+49 151 1234-5678",
        " +49 (151) 1234 5678 ",
        "[49] 151.1234.5678",
        "4915112345678@s.whatsapp.net",
        "4915112345678@c.us",
        "+4915112345678@C.US",
        "4915112345678:3@s.whatsapp.net",
    ],
)
def test_every_spelling_of_a_person_is_one_address(text: str) -> None:
    assert address_of(text) == PERSON


@pytest.mark.parametrize(
    "text", ["120363025246125486@g.us", "4915112345678-1580000000@g.us", "98765432109876@lid"]
)
def test_groups_and_private_ids_are_shown_as_they_are(text: str) -> None:
    assert address_of(text) == Address(text, text)


@pytest.mark.parametrize(
    ("digits", "right"),
    [("1234567", True), ("123456", False), ("1" * 15, True), ("1" * 16, False)],
)
def test_a_number_has_seven_to_fifteen_digits(digits: str, right: bool) -> None:
    for text in (digits, f"+{digits}", f"{digits}@s.whatsapp.net"):
        if right:
            assert address_of(text).shown == f"+{digits}"
        else:
            with pytest.raises(NotAnAddress):
                address_of(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "+",
        "@",
        "@s.whatsapp.net",
        "0151123456",
        "+0151123456",
        "++4915112345678",
        "49151x2345678",
        "4915112345678@",
        "4915112345678@example.com",
        "4915112345678@s.whatsapp.net@s.whatsapp.net",
        "status@broadcast",
        "abc@g.us",
        "abc@lid",
        "12@g.us",
        "٤٩١٥١١٢٣٤٥٦٧٨",
        "4915112345678\n",
        "4" * 70,
        "120363025246125486@g.us/../x",
    ],
)
def test_what_nobody_can_be_reached_under_is_refused_with_what_to_do(text: str) -> None:
    if text == "4915112345678\n":
        # Space around a number is tolerated like space within.
        assert address_of(text) == PERSON
        return
    with pytest.raises(NotAnAddress) as refused:
        address_of(text)
    assert str(refused.value).startswith(("must", "is"))


@given(st.text(max_size=80))
def test_any_text_is_an_address_in_canonical_form_or_refused(text: str) -> None:
    try:
        found = address_of(text)
    except NotAnAddress:
        return
    assert address_of(found.chat) == found
    assert address_of(found.shown) == found
    assert found.chat.isascii()
    assert not set(found.shown) & set('"\\ \n')


@given(st.from_regex(r"[1-9][0-9]{6,14}", fullmatch=True))
def test_all_numbers_of_the_right_shape_are_taken(digits: str) -> None:
    assert address_of(f"+{digits}") == Address(f"{digits}@s.whatsapp.net", f"+{digits}")
