"""Until when a message that was sent can be changed."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.gateway.domain.changing import (
    EDITABLE_FOR,
    REVOCABLE_FOR,
    Changeable,
    may_edit,
    may_revoke,
)
from shared.errors import Conflict, Rejected

NOW = datetime(2026, 1, 15, 12, tzinfo=UTC)


def a_message(**given: Any) -> Changeable:
    return Changeable(
        **{
            "direction": "outbound",
            "type": "text",
            "status": "sent",
            "sent_at": NOW,
            "revoked_at": None,
            **given,
        }
    )


def test_words_can_be_changed_for_minutes_and_messages_be_deleted_for_days() -> None:
    message = a_message()
    assert may_edit(message, now=NOW + EDITABLE_FOR) == NOW + timedelta(minutes=15)
    assert may_revoke(message, now=NOW + REVOCABLE_FOR) == NOW + timedelta(hours=60)
    for change, limit in ((may_edit, EDITABLE_FOR), (may_revoke, REVOCABLE_FOR)):
        with pytest.raises(Conflict, match="too long ago"):
            change(message, now=NOW + limit + timedelta(milliseconds=1))


@pytest.mark.parametrize("status", ["scheduled", "queued", "sending", "retrying", "unconfirmed"])
def test_what_is_on_its_way_can_be_changed_once_it_is_there(status: str) -> None:
    for change in (may_edit, may_revoke):
        with pytest.raises(Conflict, match=f"not been sent yet \\({status}\\)") as refused:
            change(a_message(status=status, sent_at=None), now=NOW)
        assert refused.value.data == {"status": status}


@pytest.mark.parametrize("status", ["failed", "canceled"])
def test_what_was_never_sent_has_nothing_to_change(status: str) -> None:
    for change in (may_edit, may_revoke):
        with pytest.raises(Conflict, match="never sent"):
            change(a_message(status=status, sent_at=None), now=NOW)


@pytest.mark.parametrize("kind", ["image", "location", "poll", "reaction", "edit", "revoke"])
def test_only_texts_have_words_to_change(kind: str) -> None:
    with pytest.raises(Rejected, match=f"this is {kind}"):
        may_edit(a_message(type=kind), now=NOW)


def test_what_somebody_else_wrote_is_theirs() -> None:
    for change in (may_edit, may_revoke):
        with pytest.raises(Rejected, match="itself has sent"):
            change(a_message(direction="inbound", status="received", sent_at=None), now=NOW)


def test_what_is_gone_stays_gone() -> None:
    for change in (may_edit, may_revoke):
        with pytest.raises(Conflict, match="deleted"):
            change(a_message(revoked_at=NOW), now=NOW)
