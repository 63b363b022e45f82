"""Whether a message that was sent can still be changed, and if not, what to do instead."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from shared.errors import Conflict, Rejected

# What WhatsApp's apps allow their users; a phone ignores what comes later.
# https://faq.whatsapp.com: "Edit messages" and "Delete messages".
EDITABLE_FOR: Final = timedelta(minutes=15)
REVOCABLE_FOR: Final = timedelta(days=2, hours=12)

_SENT: Final = frozenset({"sent", "delivered", "read"})
_UNCHANGEABLE: Final = frozenset({"reaction", "edit", "revoke"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Changeable:
    """What deciding about a message takes."""

    direction: str
    type: str
    status: str
    sent_at: datetime | None
    revoked_at: datetime | None


def may_edit(message: Changeable, *, now: datetime) -> datetime | None:
    """Until when the message's words can be replaced; raises what to tell the caller.

    An edit that waits for longer must not be sent: nobody would see it.
    """
    _own_and_sent(message, "edited")
    if message.type != "text":
        raise Rejected(f"Only texts can be edited, and this is {message.type}; send a new one.")
    return _in_time(message, EDITABLE_FOR, "edited for 15 minutes; send a new one", now=now)


def may_revoke(message: Changeable, *, now: datetime) -> datetime | None:
    """Until when the message can be deleted for everyone; raises what to tell the caller."""
    _own_and_sent(message, "revoked")
    if message.type in _UNCHANGEABLE:
        raise Rejected(
            "This is no message of its own but changes another one; a reaction is taken back with "
            "an empty emoji."
        )
    return _in_time(message, REVOCABLE_FOR, "revoked for two days and a half", now=now)


def _own_and_sent(message: Changeable, done: str) -> None:
    if message.direction != "outbound":
        raise Rejected(f"Only what the instance itself has sent can be {done}.")
    if message.revoked_at is not None:
        raise Conflict(f"The message has been deleted; it cannot be {done} any more.")
    if message.status in {"failed", "canceled"}:
        raise Conflict(f"The message was never sent ({message.status}), so it cannot be {done}.")
    if message.status not in _SENT:
        raise Conflict(
            f"The message has not been sent yet ({message.status}); it can be {done} once its "
            "status is sent.",
            data={"status": message.status},
        )


def _in_time(message: Changeable, limit: timedelta, rule: str, *, now: datetime) -> datetime | None:
    if message.sent_at is None:
        return None
    end = message.sent_at + limit
    if now > end:
        raise Conflict(f"The message was sent too long ago: WhatsApp lets one be {rule}.")
    return end
