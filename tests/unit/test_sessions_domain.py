"""What the session service decides: the life of a session, outcomes, addresses, repairs."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from services.sessions.domain import lifecycle
from services.sessions.domain.addresses import canonical, digits, fictional_number, public
from services.sessions.domain.instance import Instance, Step, next_step, seconds
from services.sessions.domain.lifecycle import ACTIVE, ENDS, Change, State, Status
from services.sessions.domain.outcomes import verdict
from shared.contracts.commands import TransmissionOutcome
from shared.contracts.events import InstanceDisconnected
from shared.errors import PlatformError, Rejected, Throttled, Transient, Unconfirmed
from shared.ids import new_id
from tests.support.builders import NOON

LATER = NOON + timedelta(seconds=5)


def a_state(status: Status = Status.CREATED) -> State:
    return State(status=status, since=NOON)


def an_instance(**given: object) -> Instance:
    facts: dict[str, object] = {
        "id": new_id(),
        "tenant_id": new_id(),
        "shard": 7,
        "engine": "sandbox",
        "phone_number": None,
        "settings": {},
        "wanted": True,
        "deleted": False,
        "updated_at": NOON,
        **given,
    }
    return Instance(**facts)  # type: ignore[arg-type]


def names(before: State, change: Change | None) -> list[str]:
    assert change is not None
    return [event.TYPE for event in lifecycle.told(before, change)]


def test_a_new_device_goes_through_a_code_to_ready() -> None:
    state = a_state()
    told = []
    steps: list[Callable[[State], Change | None]] = [
        lambda s: lifecycle.opened(s, now=LATER),
        lambda s: lifecycle.qr_shown(s, code="one", expires_at=LATER, now=LATER),
        lambda s: lifecycle.qr_shown(s, code="two", expires_at=LATER, now=LATER),
        lambda s: lifecycle.paired(s, phone_number="+1", device_info={}, now=LATER),
        lambda s: lifecycle.connected(s, phone_number=None, now=LATER),
    ]
    for step in steps:
        change = step(state)
        told.append(names(state, change))
        assert change is not None
        state = change.state
    assert told == [
        ["instance.status"],
        ["instance.status", "instance.qr"],
        ["instance.qr"],
        ["instance.status"],
        ["instance.status", "instance.connected"],
    ]
    assert (state.status, state.phone_number, state.qr_code) == (Status.READY, "+1", None)


def test_a_second_code_does_not_change_since_when_it_waits() -> None:
    shown = State(status=Status.QR, since=NOON, qr_code="one")
    change = lifecycle.qr_shown(shown, code="two", expires_at=LATER, now=LATER)
    assert change is not None
    assert change.state.since == NOON


def test_a_lost_connection_says_that_it_comes_back() -> None:
    ready = a_state(Status.READY)
    change = lifecycle.interrupted(ready, reason="moved", now=LATER)
    assert change is not None
    gone = lifecycle.told(ready, change)[-1]
    assert isinstance(gone, InstanceDisconnected)
    assert (gone.reason, gone.will_retry) == ("moved", True)


@pytest.mark.parametrize("end", sorted(ENDS))
def test_only_opening_leads_out_of_an_end(end: Status) -> None:
    state = a_state(end)
    assert lifecycle.connected(state, phone_number=None, now=LATER) is None
    assert lifecycle.qr_shown(state, code="x", expires_at=LATER, now=LATER) is None
    assert lifecycle.interrupted(state, reason="x", now=LATER) is None
    change = lifecycle.opened(state, now=LATER)
    assert change is not None
    assert change.state.status is Status.CONNECTING


@pytest.mark.parametrize("before", sorted(ACTIVE))
def test_an_end_is_told_once_with_its_reason(before: Status) -> None:
    state = a_state(before)
    change = lifecycle.ended(state, status=Status.BANNED, reason="banned", error=True, now=LATER)
    assert names(state, change) == ["instance.status", "instance.disconnected"]
    assert change is not None
    assert change.state.last_error == "banned"
    again = lifecycle.ended(
        change.state, status=Status.DISCONNECTED, reason="x", error=False, now=LATER
    )
    assert again is None


def test_what_has_ended_can_still_be_logged_out() -> None:
    state = a_state(Status.DISCONNECTED)
    change = lifecycle.ended(
        state, status=Status.LOGGED_OUT, reason="requested", error=False, now=LATER
    )
    assert names(state, change) == ["instance.status"]


@pytest.mark.parametrize(
    ("error", "outcome", "retry_after"),
    [
        (Rejected("no"), TransmissionOutcome.REJECTED, None),
        (Transient("later"), TransmissionOutcome.RETRYABLE, None),
        (
            Throttled("slowly", retry_after=timedelta(seconds=10)),
            TransmissionOutcome.RETRYABLE,
            10.0,
        ),
        (Unconfirmed("who knows"), TransmissionOutcome.UNKNOWN, None),
        (PlatformError("what"), TransmissionOutcome.UNKNOWN, None),
    ],
)
def test_an_error_says_whether_to_try_again(
    error: PlatformError, outcome: TransmissionOutcome, retry_after: float | None
) -> None:
    said = verdict(error)
    assert (said.outcome, said.retry_after, said.code) == (outcome, retry_after, error.code)


@pytest.mark.parametrize(
    ("written", "form"),
    [
        ("+12025550142", "12025550142@s.whatsapp.net"),
        ("+1 (202) 555-0142", "12025550142@s.whatsapp.net"),
        ("12025550142@c.us", "12025550142@s.whatsapp.net"),
        ("12025550142@s.whatsapp.net", "12025550142@s.whatsapp.net"),
        ("120363001@g.us", "120363001@g.us"),
        ("4711@lid", "4711@lid"),
    ],
)
def test_an_address_has_one_form(written: str, form: str) -> None:
    assert canonical(written) == form


def test_persons_are_shown_by_number_and_groups_by_id() -> None:
    assert public("12025550142@s.whatsapp.net") == "+12025550142"
    assert public("120363001@g.us") == "120363001@g.us"
    assert digits("4711@lid") is None


def test_a_fictional_number_is_always_the_same_and_nobodys() -> None:
    id_ = new_id()
    assert fictional_number(id_) == fictional_number(id_)
    assert fictional_number(id_) != fictional_number(new_id())
    assert len(fictional_number(id_)) == 14
    assert fictional_number(id_).startswith("999")


BANNED = replace(a_state(Status.BANNED), last_error="banned")


@pytest.mark.parametrize(
    ("given", "state", "live", "step"),
    [
        ({}, None, False, Step.OPEN),
        ({}, a_state(Status.READY), True, Step.KEEP),
        ({}, a_state(Status.READY), False, Step.OPEN),
        ({}, BANNED, False, Step.KEEP),
        ({"updated_at": LATER}, BANNED, False, Step.OPEN),
        # Asked to end and wanted again before it had ended: not an end of its own.
        ({}, a_state(Status.DISCONNECTED), False, Step.OPEN),
        ({"wanted": False}, a_state(Status.READY), True, Step.CLOSE),
        ({"wanted": False}, a_state(Status.READY), False, Step.CLOSE),
        ({"wanted": False}, a_state(Status.DISCONNECTED), False, Step.KEEP),
        ({"wanted": False}, None, False, Step.KEEP),
        ({"wanted": False, "deleted": True}, a_state(Status.READY), True, Step.FORGET),
        ({"wanted": False, "deleted": True}, a_state(Status.LOGGED_OUT), False, Step.KEEP),
    ],
)
def test_what_a_lost_command_would_have_said(
    given: dict[str, object], state: State | None, live: bool, step: Step
) -> None:
    assert next_step(an_instance(**given), state, live=live) is step


@pytest.mark.parametrize("value", [None, "5", True, 0, -1, float("-inf")])
def test_what_is_no_time_is_no_setting(value: object) -> None:
    assert seconds(value) is None
