"""What becomes of a message when its hand-over has ended, and when receipts come in."""

from datetime import timedelta

import pytest

from services.dispatcher.domain import outcomes
from services.dispatcher.domain.message import received
from services.dispatcher.domain.outcomes import Decision, Failed, InDoubt, Sent, TryAgain
from shared.contracts.commands import Receipt, TransmissionOutcome
from tests.support.builders import NOON, a_message, a_settled

RETRYABLE = TransmissionOutcome.RETRYABLE
UNKNOWN = TransmissionOutcome.UNKNOWN


def after(
    outcome: TransmissionOutcome, *, attempt: int = 1, resend: bool = False, **settled: object
) -> Decision:
    """The decision without jitter."""
    return outcomes.after(
        a_settled(outcome, **settled), attempt=attempt, resend_unknown=resend, jitter=0
    )


def test_what_was_accepted_is_sent() -> None:
    assert after(TransmissionOutcome.ACCEPTED) == Sent(NOON)


def test_what_was_rejected_fails_with_whatsapps_reason() -> None:
    decision = after(
        TransmissionOutcome.REJECTED, code="NOT_ON_WHATSAPP", detail="No such account."
    )
    assert decision == Failed(NOON, "NOT_ON_WHATSAPP", "No such account.")


@pytest.mark.parametrize(("attempt", "seconds"), [(1, 1), (2, 2), (5, 16), (9, 256)])
def test_retries_wait_twice_as_long_each_time(attempt: int, seconds: int) -> None:
    assert after(RETRYABLE, attempt=attempt) == TryAgain(NOON + timedelta(seconds=seconds))


def test_a_time_that_whatsapp_names_is_kept() -> None:
    assert after(RETRYABLE, retry_after=10.0) == TryAgain(NOON + timedelta(seconds=10))


def test_the_tenth_failure_is_the_last() -> None:
    decision = after(RETRYABLE, attempt=10, code="UNAVAILABLE")
    assert isinstance(decision, Failed)
    assert decision.code == "RETRIES_EXHAUSTED"


def test_a_session_that_is_away_never_uses_a_message_up() -> None:
    assert isinstance(after(RETRYABLE, attempt=30, code="SESSION_DOWN"), TryAgain)


def test_doubt_lasts_ten_minutes_unless_the_instance_says_otherwise() -> None:
    assert after(UNKNOWN) == InDoubt(NOON + timedelta(minutes=10))
    assert after(UNKNOWN, unconfirmed_after=2.0) == InDoubt(NOON + timedelta(seconds=2))


def test_doubt_is_repeated_only_if_the_sender_allowed_it() -> None:
    assert after(UNKNOWN, resend=True) == TryAgain(NOON)


def receipt(kind: str, seconds: int = 0) -> Receipt:
    """A receipt some seconds after noon."""
    message = a_message()
    return Receipt.model_validate(
        {
            "message_id": message.id,
            "instance_id": message.instance_id,
            "kind": kind,
            "at": NOON + timedelta(seconds=seconds),
        }
    )


def names(status: str, *receipts: Receipt, sent: bool = True) -> tuple[str, list[str]]:
    """The status and the events after some receipts."""
    message = a_message(status=status, sent_at=NOON if sent else None)
    changed, told = received(message, receipts)
    return changed.status, [event.name for event in told]


def test_receipts_move_a_message_forward_and_tell_each_step_once() -> None:
    assert names("sent", receipt("delivered", 1), receipt("read", 2)) == (
        "read",
        ["message.delivered", "message.read"],
    )


def test_doubled_and_late_receipts_change_nothing() -> None:
    assert names("sent", receipt("delivered", 1), receipt("delivered", 2)) == (
        "delivered",
        ["message.delivered"],
    )
    assert names("read", receipt("delivered", 3)) == ("read", [])


def test_reading_before_delivery_leaves_delivery_untold() -> None:
    assert names("sent", receipt("read", 1), receipt("delivered", 2)) == ("read", ["message.read"])


def test_a_receipt_proves_that_a_doubtful_message_was_sent() -> None:
    assert names("unconfirmed", receipt("delivered", 1), sent=False) == (
        "delivered",
        ["message.sent", "message.delivered"],
    )


def test_a_failed_message_stays_failed() -> None:
    assert names("failed", receipt("delivered"), sent=False) == ("failed", [])


def test_what_whatsapp_takes_back_has_failed_however_far_it_was_sent() -> None:
    assert names("sent", receipt("failed", 1)) == ("failed", ["message.failed"])
    assert names("sending", receipt("failed", 1), sent=False) == ("failed", ["message.failed"])
    assert names("unconfirmed", receipt("sent", 1), receipt("failed", 1), sent=False) == (
        "failed",
        ["message.sent", "message.failed"],
    )


def test_what_has_reached_somebody_is_not_taken_back() -> None:
    assert names("delivered", receipt("failed", 1)) == ("delivered", [])
    assert names("read", receipt("failed", 1)) == ("read", [])
    assert names("sent", receipt("failed", 2), receipt("delivered", 1)) == (
        "delivered",
        ["message.delivered"],
    )


def test_a_message_is_taken_back_once() -> None:
    assert names("sent", receipt("failed", 1), receipt("failed", 2), receipt("read", 3)) == (
        "failed",
        ["message.failed"],
    )
