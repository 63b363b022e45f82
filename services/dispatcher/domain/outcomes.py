"""What becomes of a message when a hand-over has ended."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, assert_never

from shared.backoff import exponential
from shared.contracts.commands import SettledTransmission, TransmissionOutcome

# 1 s doubling to 5 min: ten attempts take about thirteen minutes, longer than a reconnect or a
# restart of WhatsApp's servers, shorter than a message's usual worth.
FIRST_RETRY: Final = timedelta(seconds=1)
LONGEST_RETRY: Final = timedelta(minutes=5)
MAX_ATTEMPTS: Final = 10
UNCONFIRMED_AFTER: Final = timedelta(minutes=10)

# The session was not there to try at all: this never uses a message up, only its expiry does.
NOT_TRIED: Final = frozenset({"SESSION_DOWN"})


@dataclass(frozen=True, slots=True)
class Sent:
    """WhatsApp has it."""

    at: datetime


@dataclass(frozen=True, slots=True)
class Failed:
    """It will not be sent."""

    at: datetime
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class TryAgain:
    """It may be handed over again from ``due_at`` on."""

    due_at: datetime


@dataclass(frozen=True, slots=True)
class InDoubt:
    """Nobody knows; a receipt may still tell until ``until``."""

    until: datetime


Decision = Sent | Failed | TryAgain | InDoubt


def after(
    settled: SettledTransmission, *, attempt: int, resend_unknown: bool, jitter: float
) -> Decision:
    """What becomes of a message whose ``attempt``-th hand-over has ended as ``settled`` says."""
    match settled.outcome:
        case TransmissionOutcome.ACCEPTED:
            return Sent(settled.at)
        case TransmissionOutcome.REJECTED:
            return Failed(
                settled.at,
                settled.code or "REJECTED",
                settled.detail or "WhatsApp refused the message.",
            )
        case TransmissionOutcome.RETRYABLE:
            return _again(settled, attempt=attempt, jitter=jitter)
        case TransmissionOutcome.UNKNOWN:
            if resend_unknown and attempt < MAX_ATTEMPTS:
                return TryAgain(settled.at)
            return InDoubt(settled.at + unconfirmed_after(settled))
        case _:
            assert_never(settled.outcome)


def unconfirmed_after(settled: SettledTransmission) -> timedelta:
    """How long to wait for a receipt of a message that may or may not have been sent."""
    if settled.unconfirmed_after is None:
        return UNCONFIRMED_AFTER
    return timedelta(seconds=settled.unconfirmed_after)


def _again(settled: SettledTransmission, *, attempt: int, jitter: float) -> Decision:
    if attempt >= MAX_ATTEMPTS and settled.code not in NOT_TRIED:
        return Failed(
            settled.at,
            "RETRIES_EXHAUSTED",
            f"Tried {attempt} times; the last answer was {settled.code or 'unavailable'}.",
        )
    wait = exponential(attempt, base=FIRST_RETRY, cap=LONGEST_RETRY, jitter=jitter)
    if settled.retry_after is not None:
        wait = max(wait, timedelta(seconds=settled.retry_after))
    return TryAgain(settled.at + wait)
