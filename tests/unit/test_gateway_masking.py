"""Numbers as those see them who are not to know them whole."""

import pytest

from services.gateway.domain.masking import masked


@pytest.mark.parametrize(
    ("whole", "shown"),
    [
        ("+12025550108", "+1202•••0108"),
        ("12025550108@s.whatsapp.net", "1202•••0108@s.whatsapp.net"),
        ("+4915112345678", "+4915•••5678"),
        ("+1234567", "+12•••67"),
        ("120363041234567890@g.us", "120363041234567890@g.us"),
        ("refused by +12025550108, again", "refused by +1202•••0108, again"),
        ("EXPIRED after 24 hours", "EXPIRED after 24 hours"),
        (
            "0197d6a2-6b3c-7b57-9c1f-1234567890ab",
            "0197d6a2-6b3c-7b57-9c1f-1234567890ab",
        ),
    ],
)
def test_the_middle_of_a_number_is_hidden(whole: str, shown: str) -> None:
    assert masked(whole) == shown
