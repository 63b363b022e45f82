"""Leases and shares, without a database."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from services.sessions.domain.lease import Lease, fair_share, surplus, to_claim
from services.sessions.leases import Leases
from services.sessions.logins import LoginBudget
from services.sessions.settings import SessionsSettings
from tests.support.clock import HandClock
from tests.support.keys import KEYS

LEASE = Lease(shard=7, epoch=3, owner="us")


def settings(**given: float) -> SessionsSettings:
    return SessionsSettings.model_validate(
        {
            "database_url": "postgresql://x",
            "amqp_url": "amqp://x",
            "media_store": "x",
            "encryption_keys": KEYS,
            **given,
        }
    )


@given(replicas=st.integers(1, 100))
def test_fair_shares_leave_no_shard_without_an_owner(replicas: int) -> None:
    assert fair_share(64, replicas) * replicas >= 64


@given(replicas=st.integers(1, 64), held=st.integers(0, 64))
def test_nobody_both_claims_and_gives_up(replicas: int, held: int) -> None:
    more = to_claim(shards=64, replicas=replicas, held=held)
    less = surplus(shards=64, replicas=replicas, held=held)
    assert min(more, less) == 0
    assert held + more - less == fair_share(64, replicas)


def test_nobody_alive_still_means_us() -> None:
    assert fair_share(64, 0) == 64


def test_a_lease_is_held_until_its_deadline_and_not_longer() -> None:
    clock = HandClock()
    leases = Leases(clock=clock, fence_after=timedelta(seconds=10))
    leases.grant([LEASE], asked_at=clock.monotonic())
    clock.move(timedelta(seconds=9.9))
    assert leases.holds(LEASE)
    assert leases.of(7) == LEASE
    clock.move(timedelta(seconds=0.1))
    assert not leases.holds(LEASE)
    assert leases.of(7) is None


def test_the_deadline_counts_from_the_request() -> None:
    clock = HandClock()
    leases = Leases(clock=clock, fence_after=timedelta(seconds=10))
    asked_at = clock.monotonic()
    clock.move(timedelta(seconds=8))
    leases.grant([LEASE], asked_at=asked_at)
    clock.move(timedelta(seconds=2))
    assert not leases.holds(LEASE)


def test_dropping_an_old_lease_leaves_the_new_one() -> None:
    clock = HandClock()
    leases = Leases(clock=clock, fence_after=timedelta(seconds=10))
    newer = Lease(shard=7, epoch=4, owner="us")
    leases.grant([LEASE, newer], asked_at=clock.monotonic())
    leases.drop(LEASE)
    assert leases.of(7) == newer
    assert not leases.holds(LEASE)


async def test_logins_are_spread() -> None:
    clock = HandClock()
    budget = LoginBudget(clock=clock, per_second=5)
    for _ in range(6):
        await budget.turn()
    assert clock.monotonic() == pytest.approx(1.0)


def test_times_follow_from_the_lease() -> None:
    chosen = settings()
    assert (chosen.ttl, chosen.renewal, chosen.fence, chosen.dead_after) == (
        timedelta(seconds=15),
        timedelta(seconds=3),
        timedelta(seconds=10),
        timedelta(seconds=15),
    )
    assert settings(lease_ttl=6).fence == timedelta(seconds=4)


def test_a_fence_after_the_lease_is_refused() -> None:
    with pytest.raises(ValidationError, match="two may own a shard"):
        settings(lease_ttl=10, fence_after=10)
