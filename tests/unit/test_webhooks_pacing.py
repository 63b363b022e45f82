"""How much is posted at once."""

from hypothesis import given
from hypothesis import strategies as st

from services.webhooks.domain.delivery import Verdict
from services.webhooks.domain.pacing import limit_after, may_start, room


def test_an_endpoint_earns_posts_and_loses_half_when_it_cannot_cope() -> None:
    assert limit_after(Verdict.DELIVERED, 8, most=32) == 9
    assert limit_after(Verdict.DELIVERED, 32, most=32) == 32
    assert limit_after(Verdict.THROTTLED, 32, most=32) == 16
    assert limit_after(Verdict.UNREACHABLE, 1, most=32) == 1
    assert limit_after(Verdict.FAILED, 8, most=32) == 8


def test_no_more_is_taken_than_can_be_posted_in_ten_seconds() -> None:
    assert room(limit=1, held=0, latency=10) == 2
    assert room(limit=1, held=2, latency=10) == 0
    assert room(limit=32, held=0, latency=0.01) == 32 + 256
    assert room(limit=32, held=1000, latency=0.01) == 0


def test_half_of_the_slots_are_for_whoever_comes_first() -> None:
    assert may_start(tenant=127, used=127, total=256)
    assert not may_start(tenant=128, used=128, total=256)
    assert may_start(tenant=0, used=128, total=256)
    assert not may_start(tenant=0, used=256, total=256)


@given(total=st.integers(1, 500), hogs=st.integers(1, 3))
def test_up_to_three_greedy_tenants_leave_a_slot_for_another(total: int, hogs: int) -> None:
    held = [0] * hogs
    for _ in range(total):
        for hog in range(hogs):
            if may_start(tenant=held[hog], used=sum(held), total=total):
                held[hog] += 1
    assert sum(held) <= total
    if total >= 8:
        assert may_start(tenant=0, used=sum(held), total=total)
