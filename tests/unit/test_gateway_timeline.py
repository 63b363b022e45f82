"""A message's timeline."""

from datetime import UTC, datetime, timedelta
from typing import Any

from services.gateway.domain.timeline import Attempt, Handover, Milestones, timeline

T = datetime(2026, 1, 15, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return T + timedelta(seconds=seconds)


def milestones(**given: Any) -> Milestones:
    nothing = dict.fromkeys(
        ("sent_at", "delivered_at", "read_at", "failed_at", "error_code", "error_message")
    )
    return Milestones(**{"inbound": False, "status": "queued", "created_at": T, **nothing, **given})


def handover(**given: Any) -> Handover:
    return Handover(
        **{
            "attempt": 1,
            "created_at": at(1),
            "paced_until": None,
            "paced_by": None,
            "handed_over_at": None,
            "outcome": None,
            "code": None,
            "detail": None,
            "settled_at": None,
            **given,
        }
    )


def test_a_message_that_nothing_has_happened_to_was_accepted() -> None:
    assert [hop.hop for hop in timeline(milestones(), [], [])] == ["accepted"]


def test_a_message_that_was_received_was_never_sent() -> None:
    hops = timeline(milestones(inbound=True, sent_at=at(1)), [], [])
    assert [hop.hop for hop in hops] == ["received"]


def test_every_hop_of_a_journey_is_told_in_order() -> None:
    hops = timeline(
        milestones(sent_at=at(40), delivered_at=at(41), read_at=at(42)),
        [
            handover(
                paced_until=at(0.5),
                handed_over_at=at(2),
                outcome="retryable",
                code="UNAVAILABLE",
                settled_at=at(3),
            ),
            handover(
                attempt=2,
                created_at=at(30),
                handed_over_at=at(31),
                outcome="accepted",
                settled_at=at(40),
            ),
        ],
        [Attempt(at(43), 1, "message.read", "https://example.com", 200, 12, None)],
    )
    assert [hop.hop for hop in hops] == [
        "accepted",
        "paced",
        "dispatched",
        "handed_over",
        "retrying",
        "dispatched",
        "handed_over",
        "sent",
        "delivered",
        "read",
        "webhook",
    ]
    assert hops[4].details == {"attempt": 1, "code": "UNAVAILABLE"}
    assert "limits" in str(hops[1].details["reason"])
    assert hops[-1].details == {
        "event": "message.read",
        "url": "https://example.com",
        "attempt": 1,
        "statusCode": 200,
        "responseTime": 12,
    }


def test_hops_of_one_moment_are_told_in_the_order_in_which_they_can_only_have_been() -> None:
    hops = timeline(
        milestones(created_at=T, sent_at=T, read_at=T),
        [handover(created_at=T, handed_over_at=T)],
        [],
    )
    assert [hop.hop for hop in hops] == ["accepted", "dispatched", "handed_over", "sent", "read"]


def test_a_failure_says_why() -> None:
    failed = milestones(failed_at=at(3), error_code="REJECTED", error_message="No.")
    hops = timeline(
        failed,
        [handover(outcome="rejected", code="REJECTED", detail="No.", settled_at=at(2))],
        [],
    )
    assert [hop.hop for hop in hops] == ["accepted", "dispatched", "refused", "failed"]
    assert hops[-1].details == {"code": "REJECTED", "reason": "No."}


def test_a_message_in_doubt_says_since_when() -> None:
    hops = timeline(
        milestones(status="unconfirmed"),
        [handover(handed_over_at=at(1), outcome="unknown", settled_at=at(2))],
        [],
    )
    assert hops[-1].hop == "unconfirmed"
    assert hops[-1].at == at(2)
