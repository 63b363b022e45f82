"""Sealed bytes open only with the ring, and only in their place."""

import os
import time
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from shared.ids import new_id
from shared.security.sealing import (
    Key,
    KeyRing,
    Place,
    Unsealable,
    is_sealed,
    lookup_digests,
    open_settings,
    seal_text,
    setting_place,
)

FIRST, SECOND = Key.new("2026-01"), Key.new("2026-02")
TENANT = UUID(int=1)
PLACE = Place(TENANT, "dispatcher.messages", "m1")
PLAIN = b'{"kind":"text","text":"Hello"}'


def ring(*keys: Key) -> KeyRing:
    return KeyRing(keys or (FIRST,))


def test_what_was_sealed_opens_in_its_place() -> None:
    sealed = ring().seal(PLAIN, PLACE)

    assert ring().open(sealed, PLACE) == PLAIN
    assert b"Hello" not in sealed
    assert is_sealed(sealed)
    assert not is_sealed(PLAIN)
    assert not is_sealed(b"")


@pytest.mark.parametrize(
    "place",
    [
        PLACE._replace(tenant=UUID(int=2)),
        PLACE._replace(table="dispatcher.message"),
        PLACE._replace(row="m2"),
        PLACE._replace(table="dispatcher.messagesm", row="1"),
    ],
)
def test_no_other_place_opens_it(place: Place) -> None:
    sealed = ring().seal(PLAIN, PLACE)

    with pytest.raises(Unsealable):
        ring().open(sealed, place)


def test_another_key_does_not_open_it_even_under_the_same_id() -> None:
    sealed = ring().seal(PLAIN, PLACE)

    with pytest.raises(Unsealable, match="ENCRYPTION_KEYS"):
        ring(SECOND).open(sealed, PLACE)
    with pytest.raises(Unsealable):
        ring(Key.new(FIRST.id)).open(sealed, PLACE)


def test_after_a_change_of_keys_old_seals_open_and_new_ones_use_the_new() -> None:
    old = ring(FIRST).seal(PLAIN, PLACE)
    both = ring(SECOND, FIRST)

    assert both.open(old, PLACE) == PLAIN
    assert not both.is_current(old)
    new = both.seal(PLAIN, PLACE)
    assert both.is_current(new)
    assert new.startswith(both.current)
    assert ring(SECOND).open(new, PLACE) == PLAIN


def test_one_id_that_begins_another_is_not_taken_for_it() -> None:
    short, long = Key.new("1"), Key.new("10")

    assert not ring(short).is_current(ring(long).seal(PLAIN, PLACE))
    assert not ring(long).is_current(ring(short).seal(PLAIN, PLACE))


def test_the_same_bytes_are_sealed_differently_each_time() -> None:
    assert ring().seal(PLAIN, PLACE) != ring().seal(PLAIN, PLACE)


def test_changing_any_byte_is_noticed() -> None:
    sealed = ring().seal(b"hi", PLACE)

    for place in range(len(sealed)):
        changed = bytearray(sealed)
        changed[place] ^= 1
        with pytest.raises(Unsealable):
            ring().open(bytes(changed), PLACE)


def test_what_was_never_sealed_is_refused() -> None:
    sealed = ring().seal(b"", PLACE)

    for size in range(len(sealed)):
        with pytest.raises(Unsealable):
            ring().open(sealed[:size], PLACE)
    assert ring().open(sealed, PLACE) == b""


def test_what_only_a_caller_knows_can_be_mixed_in() -> None:
    bound = ring().bound_to("their key", b"their request")
    sealed = bound.seal(PLAIN, PLACE)

    assert ring().bound_to("their key", b"their request").open(sealed, PLACE) == PLAIN
    for other in (ring(), ring().bound_to("their keyt", b"heir request"), ring().bound_to("x")):
        with pytest.raises(Unsealable):
            other.open(sealed, PLACE)


def test_a_bound_ring_keeps_the_history_of_its_keys() -> None:
    old = ring(FIRST).bound_to("known").seal(PLAIN, PLACE)

    assert ring(SECOND, FIRST).bound_to("known").open(old, PLACE) == PLAIN


def test_the_keys_of_tenants_are_those_of_hkdf() -> None:
    sealed = ring().seal(PLAIN, PLACE)
    info = b"\x00\x00\x00\x04seal\x00\x00\x00\x10" + TENANT.bytes
    key = HKDF(algorithm=SHA256(), length=32, salt=b"waypost", info=info).derive(FIRST.secret)
    header = b"\x02\x072026-01"
    associated = header + TENANT.bytes + b"dispatcher.messages\0m1"

    assert sealed.startswith(header)
    assert AESGCM(key).decrypt(sealed[9:21], sealed[21:], associated) == PLAIN


def test_index_keys_differ_by_tenant_and_go_through_the_ring_newest_first() -> None:
    [new, old] = ring(SECOND, FIRST).index_keys(TENANT)

    assert (ring(SECOND).index_keys(TENANT), ring(FIRST).index_keys(TENANT)) == ((new,), (old,))
    assert ring(FIRST).index_keys(UUID(int=2)) != (old,)


def test_the_secrets_among_settings_open_each_in_its_own_place() -> None:
    one, instance = ring(FIRST), UUID(int=9)
    sealed = seal_text(one, "s3cret", setting_place(TENANT, instance, "accessToken"))
    stored: dict[str, object] = {"accessToken": sealed, "number": "1", "receipts": True}
    opened = open_settings(one, stored, TENANT, instance)
    assert opened == {"accessToken": "s3cret", "number": "1", "receipts": True}
    for moved, tenant, whose in (
        ({"appSecret": sealed}, TENANT, instance),
        ({"accessToken": sealed}, TENANT, UUID(int=8)),
        ({"accessToken": sealed}, UUID(int=2), instance),
    ):
        with pytest.raises(Unsealable):
            open_settings(one, moved, tenant, whose)


def test_what_is_looked_up_is_found_under_every_key_of_the_ring() -> None:
    new, old = lookup_digests(ring(SECOND, FIRST), "a token")
    assert [new] == lookup_digests(ring(SECOND), "a token")
    assert [old] == lookup_digests(ring(FIRST), "a token")
    assert new not in lookup_digests(ring(SECOND), "another token")


def test_a_key_is_written_as_its_id_and_base64() -> None:
    key = Key.parse(f" {FIRST.written()} ")

    assert key == FIRST
    assert key.written().startswith("2026-01:")
    assert key.written().partition(":")[2] not in f"{key} {key!r}"


@pytest.mark.parametrize(
    "text", ["", "1?", ":" + "A" * 43 + "=", "a b:" + "A" * 43 + "=", "1:!!!", "1:QUJD", "1:"]
)
def test_a_key_that_is_none_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(ValueError, match=r"must be id:base64|is not base64|bytes") as refused:
        Key.parse(text)
    assert text == "" or text not in str(refused.value)


def test_a_ring_has_at_least_one_key_and_no_two_of_one_id() -> None:
    with pytest.raises(ValueError, match="needs a key"):
        KeyRing([])
    with pytest.raises(ValueError, match="same id"):
        ring(FIRST, Key.new(FIRST.id))


def test_many_tenants_do_not_fill_the_memory() -> None:
    one = ring()
    for _ in range(10_500):
        tenant = new_id()
        one.seal(b"x", PLACE._replace(tenant=tenant))
        one.index_keys(tenant)

    assert one.remembered <= 20_000


def test_sealing_costs_a_message_only_microseconds() -> None:
    one, plain = ring(), os.urandom(200)
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(1000):
            one.open(one.seal(plain, PLACE), PLACE)
        best = min(best, time.perf_counter() - began)

    # Ten is usual for both ways; a key that is derived each time would alone take as much again.
    assert best / 1000 < 60e-6
