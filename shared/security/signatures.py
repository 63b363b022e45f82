"""Signatures on webhooks: ours on what we send, other people's on what they send us.

All of them are over the raw bytes of the body, before anything parsed them: JSON that went through
a parser and back is other bytes. Comparisons take the same time wherever the difference is.
"""

import base64
import binascii
import hmac
import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal

PREFIX = "whsec_"
TOLERANCE = timedelta(minutes=5)

# Where an endpoint's secret is sealed: the table of its ``Place``.
SECRETS = "gateway.webhooks"

_SECRET_BYTES = 32
_SCHEME = "v1"

Algorithm = Literal["sha256", "sha512"]


class BadSignature(Exception):
    """Not signed by whoever knows the secret, or not recently enough."""


def new_secret() -> str:
    """A secret for one endpoint: ``whsec_`` and the base64 of 32 random bytes."""
    return PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def signed_headers(
    body: bytes, *, message_id: str, at: datetime, secrets: Sequence[str]
) -> dict[str, str]:
    """The headers that prove where ``body`` comes from.

    ``secrets`` are the endpoint's, newest first. Standard Webhooks carries a signature for each,
    so that a receiver which knows only the old one still verifies during a rotation; the two plain
    headers have room for one, and that is by the newest. ``at`` is the time of this attempt, the
    id that of the delivery: it stays the same however often it is tried.
    """
    if not secrets:
        raise ValueError("a delivery needs at least one secret to be signed with")
    if "." in message_id:
        # The dot separates what is signed: an id with one could be read as another id and time.
        raise ValueError("a message id may not contain a dot")
    timestamp = str(int(at.timestamp()))
    plain = hmac.digest(secrets[0].encode(), body, "sha256").hex()
    return {
        "X-Webhook-Signature": plain,
        "X-Hub-Signature-256": f"sha256={plain}",
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(
            f"{_SCHEME},{_standard(secret, message_id, timestamp, body)}" for secret in secrets
        ),
    }


def verify_standard(
    body: bytes,
    *,
    message_id: str,
    timestamp: str,
    signature: str,
    secrets: Sequence[str],
    now: datetime,
) -> None:
    """Raise ``BadSignature`` unless one of the signatures is by one of the secrets, and fresh.

    Tokens of other schemes and malformed ones are passed over: both public libraries stop at the
    first of those, and never reach the good one after it.
    """
    try:
        age = abs(now.timestamp() - int(timestamp))
    except ValueError:
        raise BadSignature("the timestamp is not a number of seconds") from None
    if age > TOLERANCE.total_seconds():
        raise BadSignature("the timestamp is too far from now")
    given = [token[len(_SCHEME) + 1 :] for token in signature.split() if _is_ours(token)]
    expected = [_standard(secret, message_id, timestamp, body) for secret in secrets]
    # No short cut: each pair is compared, so that time tells nothing about which secret it was.
    matches = [_same(one, other) for one in given for other in expected]
    if not any(matches):
        raise BadSignature("no signature matches")


def verify_hex(
    body: bytes, *, signature: str, secret: str, algorithm: Algorithm = "sha256"
) -> None:
    """Raise ``BadSignature`` unless ``signature`` is the hex HMAC of the body.

    Takes it bare (WAHA's ``X-Webhook-Hmac``, our ``X-Webhook-Signature``) or behind its algorithm
    (``sha256=…``: Meta's ``X-Hub-Signature-256``, ``X-Waha-Signature``).
    """
    expected = hmac.digest(secret.encode(), body, algorithm).hex()
    if not secret or not _same(signature.removeprefix(f"{algorithm}=").lower(), expected):
        raise BadSignature("the signature does not match")


def _standard(secret: str, message_id: str, timestamp: str, body: bytes) -> str:
    signed = b"%s.%s.%s" % (message_id.encode(), timestamp.encode(), body)
    return base64.b64encode(hmac.digest(_key(secret), signed, "sha256")).decode()


def _key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(PREFIX) or not key:
        raise ValueError(f"a webhook secret is {PREFIX} followed by base64")
    return key


def _is_ours(token: str) -> bool:
    return token.startswith(f"{_SCHEME},")


def _same(given: str, expected: str) -> bool:
    # As bytes, because compare_digest raises on str that is not ASCII, and ``given`` is anything.
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), expected.encode())
