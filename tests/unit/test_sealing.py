"""Sealed bytes open only for who names the same context under the same secret."""

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from shared.security.sealing import Sealer, Unsealable

SECRET = "a server secret of more than 32 bytes"
OTHER = "some other server secret, long enough"
PLAIN = b'{"key":"api_shown_once"}'


def sealer(*secrets: str, purpose: str = "idempotency") -> Sealer:
    return Sealer(secrets=secrets or (SECRET,), purpose=purpose)


def test_what_was_sealed_opens_with_the_same_context() -> None:
    sealed = sealer().seal(PLAIN, "idempotency-key", b"fingerprint")

    assert sealer().open(sealed, "idempotency-key", b"fingerprint") == PLAIN
    assert b"api_shown_once" not in sealed


@pytest.mark.parametrize(
    "context", [(), ("a",), ("ab", "cd"), ("abc", ""), ("abcd",), ("abc", "x")]
)
def test_another_context_does_not_open_it(context: tuple[str, ...]) -> None:
    sealed = sealer().seal(PLAIN, "abc", "d")

    with pytest.raises(Unsealable):
        sealer().open(sealed, *context)


def test_another_secret_or_purpose_does_not_open_it() -> None:
    sealed = sealer().seal(PLAIN, "key")

    with pytest.raises(Unsealable):
        sealer(OTHER).open(sealed, "key")
    with pytest.raises(Unsealable):
        sealer(purpose="webhook secrets").open(sealed, "key")


def test_after_a_change_of_secret_old_seals_open_and_new_ones_use_the_new() -> None:
    old = sealer(OTHER).seal(PLAIN, "key")
    both = sealer(SECRET, OTHER)

    assert both.open(old, "key") == PLAIN
    assert sealer(SECRET).open(both.seal(PLAIN, "key"), "key") == PLAIN


def test_the_same_bytes_are_sealed_differently_each_time() -> None:
    assert sealer().seal(PLAIN, "key") != sealer().seal(PLAIN, "key")


def test_changing_any_byte_is_noticed() -> None:
    sealed = sealer().seal(b"hi", "key")

    for place in range(len(sealed)):
        changed = bytearray(sealed)
        changed[place] ^= 1
        with pytest.raises(Unsealable):
            sealer().open(bytes(changed), "key")


def test_what_was_never_sealed_is_refused() -> None:
    sealed = sealer().seal(b"", "key")

    for size in range(len(sealed)):
        with pytest.raises(Unsealable):
            sealer().open(sealed[:size], "key")
    assert sealer().open(sealed, "key") == b""


def test_the_key_is_that_of_hkdf() -> None:
    sealed = sealer().seal(PLAIN, "abc")
    info = b"\x00\x00\x00\x03abc"
    key = HKDF(algorithm=SHA256(), length=32, salt=b"idempotency", info=info).derive(
        SECRET.encode()
    )

    assert AESGCM(key).decrypt(sealed[5:17], sealed[17:], sealed[:17]) == PLAIN


def test_short_secrets_are_refused_at_the_start() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        sealer("short")
