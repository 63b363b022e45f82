"""What a hand-over has come to, from what the engine returned or raised."""

from dataclasses import dataclass

from shared.contracts.commands import TransmissionOutcome
from shared.errors import PlatformError, Rejected, Transient


@dataclass(frozen=True, slots=True)
class Verdict:
    """An outcome with what the dispatcher needs to go on. ``retry_after`` is in seconds.

    ``engine_message_id`` is the id under which WhatsApp has it, if that is known by now.
    """

    outcome: TransmissionOutcome
    code: str | None = None
    detail: str | None = None
    retry_after: float | None = None
    engine_message_id: str | None = None


def accepted(engine_message_id: str) -> Verdict:
    """WhatsApp has it, under this id."""
    return Verdict(TransmissionOutcome.ACCEPTED, engine_message_id=engine_message_id)


def verdict(error: PlatformError) -> Verdict:
    """Whether the same message may be handed over again: never, later, or nobody knows."""
    match error:
        case Rejected():
            return Verdict(TransmissionOutcome.REJECTED, error.code, error.message)
        case Transient(retry_after=wait):
            seconds = None if wait is None else wait.total_seconds()
            return Verdict(TransmissionOutcome.RETRYABLE, error.code, error.message, seconds)
        case _:
            return Verdict(TransmissionOutcome.UNKNOWN, error.code, error.message)
