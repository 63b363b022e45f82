"""What Meta's error codes mean to a message, and to the number it was to be sent from."""

from datetime import timedelta

import pytest

from services.sessions.engines.cloud_api.refusals import Fault, SessionOver, raised_for
from services.sessions.engines.port import Refused, Retryable
from shared.errors import Throttled, Unconfirmed

AGAIN = (1, 2, 131000, 131016, 131056, 131057, 133004)
NEVER = (
    *(100, 130472, 131008, 131009, 131021, 131026, 131030, 131047, 131049, 131050, 131051, 131053),
    *(132000, 132001, 132005, 132007, 132008, 132012, 132015, 132016),
)
SLOWER = {4: 60, 80007: 60, 130429: 2, 131048: 900, 131064: 900, 368: 3600}
OVER = {
    **dict.fromkeys((0, 190), "logged_out"),
    **dict.fromkeys((3, 10, 200, 299, 131005, 131037, 131042, 131045, 133010), "failed"),
    131031: "banned",
}


@pytest.mark.parametrize("code", AGAIN)
def test_what_is_wrong_at_meta_is_tried_again_at_no_time_that_would_hold_others_back(
    code: int,
) -> None:
    error = raised_for(Fault(status=400, code=code, message="Later"), unsure=True)
    assert type(error) is Retryable
    assert error.retry_after is None


@pytest.mark.parametrize("code", NEVER)
def test_what_is_wrong_with_the_message_is_never_tried_again(code: int) -> None:
    # Whatever the status is: Meta decides by the code, and so do we.
    for status in (400, 404, 403):
        error = raised_for(Fault(status=status, code=code, message="No"), unsure=True)
        assert type(error) is Refused
        assert str(code) in error.message


@pytest.mark.parametrize(("code", "seconds"), SLOWER.items())
def test_too_much_holds_the_whole_instance_back(code: int, seconds: int) -> None:
    error = raised_for(Fault(status=400, code=code), unsure=True)
    assert isinstance(error, Throttled)
    assert error.retry_after == timedelta(seconds=seconds)


def test_a_longer_wait_that_meta_names_is_kept() -> None:
    asked = Fault(status=429, code=130429, retry_after=timedelta(seconds=30))
    error = raised_for(asked, unsure=True)
    assert isinstance(error, Throttled)
    assert error.retry_after == timedelta(seconds=30)


@pytest.mark.parametrize(("code", "end"), OVER.items())
def test_what_is_wrong_with_the_number_ends_its_session_and_lets_messages_wait(
    code: int, end: str
) -> None:
    error = raised_for(Fault(status=400, code=code, message="Locked."), unsure=True)
    assert isinstance(error, SessionOver)
    assert (error.end, error.code) == (end, "SESSION_DOWN")
    assert error.message.startswith(f"WhatsApp says: Locked ({code}); ")


def test_a_code_that_nobody_knows_is_judged_by_who_is_to_blame() -> None:
    assert type(raised_for(Fault(status=400, code=999), unsure=True)) is Refused
    assert type(raised_for(Fault(status=400, code=999, transient=True), unsure=True)) is Retryable
    assert type(raised_for(Fault(status=500, code=999), unsure=True)) is Unconfirmed
    assert type(raised_for(Fault(status=500, code=999), unsure=False)) is Retryable


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_an_answer_of_somebody_in_between_leaves_it_open_whether_it_was_sent(status: int) -> None:
    assert type(raised_for(Fault(status=status), unsure=True)) is Unconfirmed
    assert type(raised_for(Fault(status=status), unsure=False)) is Retryable


def test_an_answer_without_a_code_says_by_its_status_what_can_be_known() -> None:
    throttled = raised_for(Fault(status=429), unsure=True)
    assert isinstance(throttled, Throttled)
    assert throttled.retry_after == timedelta(minutes=1)
    assert isinstance(raised_for(Fault(status=401), unsure=True), SessionOver)
    assert type(raised_for(Fault(status=404), unsure=True)) is Refused
    assert type(raised_for(Fault(status=302), unsure=True)) is Refused
