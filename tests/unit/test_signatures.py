"""Webhook signatures verify with the libraries that customers use, and only when they should."""

import base64
import binascii
import hashlib
import hmac
from datetime import UTC, datetime, timedelta

import pytest
import standardwebhooks
import svix.webhooks

from shared.security.signatures import (
    BadSignature,
    new_secret,
    signed_headers,
    verify_hex,
    verify_standard,
)

BODY = '{"event":"message.received","data":{"text":"Grüße"}}'.encode()
ID = "0198c5a0-7e31-7c44-a1b2-3c4d5e6f7081"


def real_now() -> datetime:
    """The libraries compare with the machine's clock, so the signature must be of now."""
    return datetime.now(UTC)


def signed(secrets: list[str], *, at: datetime | None = None) -> dict[str, str]:
    return signed_headers(BODY, message_id=ID, at=at or real_now(), secrets=secrets)


def verify(headers: dict[str, str], secrets: list[str], *, now: datetime) -> None:
    verify_standard(
        BODY,
        message_id=headers["webhook-id"],
        timestamp=headers["webhook-timestamp"],
        signature=headers["webhook-signature"],
        secrets=secrets,
        now=now,
    )


def test_a_secret_is_a_prefix_and_32_random_bytes() -> None:
    secret = new_secret()

    assert secret.startswith("whsec_")
    assert len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) == 32
    assert secret != new_secret()


def test_the_library_of_standard_webhooks_verifies_what_we_sign() -> None:
    secret = new_secret()

    assert standardwebhooks.Webhook(secret).verify(BODY, signed([secret]))


def test_the_library_of_svix_verifies_what_we_sign() -> None:
    secret = new_secret()

    svix.webhooks.Webhook(secret).verify(BODY, signed([secret]))


def test_during_a_rotation_receivers_with_either_secret_verify() -> None:
    new, old = new_secret(), new_secret()
    headers = signed([new, old])

    for secret in (new, old):
        standardwebhooks.Webhook(secret).verify(BODY, headers)
        svix.webhooks.Webhook(secret).verify(BODY, headers)
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(new_secret()).verify(BODY, headers)


def test_the_plain_signatures_are_keyed_with_the_whole_newest_secret() -> None:
    new, old = new_secret(), new_secret()
    headers = signed([new, old])

    expected = hmac.new(new.encode(), BODY, hashlib.sha256).hexdigest()
    assert headers["X-Webhook-Signature"] == expected
    assert headers["X-Hub-Signature-256"] == f"sha256={expected}"


def test_the_timestamp_is_that_of_the_attempt_in_whole_seconds() -> None:
    at = datetime(2026, 1, 15, 10, 30, 0, 999_000, UTC)

    assert signed([new_secret()], at=at)["webhook-timestamp"] == "1768473000"


def test_an_id_with_a_dot_is_refused_because_it_could_be_read_two_ways() -> None:
    with pytest.raises(ValueError, match="dot"):
        signed_headers(BODY, message_id="a.b", at=real_now(), secrets=[new_secret()])


@pytest.mark.parametrize("secret", ["", "plain", "whsec_", "whsec_*not base64*"])
def test_a_secret_that_holds_no_key_is_refused(secret: str) -> None:
    with pytest.raises(ValueError, match="whsec_"):
        signed([secret])


def test_signing_without_any_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        signed([])


def test_we_verify_what_the_library_signs() -> None:
    secret, at = new_secret(), real_now()
    token = standardwebhooks.Webhook(secret).sign(ID, at, BODY.decode())

    verify({**signed([secret], at=at), "webhook-signature": token}, [secret], now=at)


def test_malformed_and_foreign_tokens_before_the_good_one_are_passed_over() -> None:
    secret, at = new_secret(), real_now()
    headers = signed([secret], at=at)
    headers["webhook-signature"] = f"nonsense v1a,AAAA v1,??? {headers['webhook-signature']}"

    with pytest.raises((ValueError, binascii.Error)):
        standardwebhooks.Webhook(secret).verify(BODY, headers)
    verify(headers, [secret], now=at)


@pytest.mark.parametrize("seconds", [-299, 0, 299])
def test_a_timestamp_within_five_minutes_is_accepted(seconds: int) -> None:
    secret, at = new_secret(), real_now()

    verify(signed([secret], at=at), [secret], now=at + timedelta(seconds=seconds))


@pytest.mark.parametrize("seconds", [-302, 302])
def test_a_timestamp_further_away_is_refused(seconds: int) -> None:
    secret, at = new_secret(), real_now()

    with pytest.raises(BadSignature, match="too far"):
        verify(signed([secret], at=at), [secret], now=at + timedelta(seconds=seconds))


@pytest.mark.parametrize(
    "change",
    [
        {"webhook-id": "another"},
        {"webhook-signature": ""},
        {"webhook-signature": "v1,"},
        {"webhook-signature": "v1,grüße"},
        {"webhook-timestamp": "soon"},
        {"webhook-timestamp": ""},
    ],
)
def test_anything_changed_does_not_verify(change: dict[str, str]) -> None:
    secret, at = new_secret(), real_now()

    with pytest.raises(BadSignature):
        verify({**signed([secret], at=at), **change}, [secret], now=at)


def test_meta_and_waha_signatures_verify_bare_or_with_their_algorithm() -> None:
    plain = hmac.new(b"app secret", BODY, hashlib.sha256).hexdigest()
    long = hmac.new(b"app secret", BODY, hashlib.sha512).hexdigest()

    verify_hex(BODY, signature=plain, secret="app secret")
    verify_hex(BODY, signature=f"sha256={plain.upper()}", secret="app secret")
    verify_hex(BODY, signature=long, secret="app secret", algorithm="sha512")


@pytest.mark.parametrize("signature", ["", "sha256=", "sha256=00", "é", "sha512=00", "\udcff"])
def test_other_signatures_do_not_verify(signature: str) -> None:
    with pytest.raises(BadSignature):
        verify_hex(BODY, signature=signature, secret="app secret")


def test_nothing_verifies_with_an_empty_secret() -> None:
    guessed = hmac.new(b"", BODY, hashlib.sha256).hexdigest()

    with pytest.raises(BadSignature):
        verify_hex(BODY, signature=guessed, secret="")
