"""Bytes that the database may keep but not read.

A stored response may hold a key that was to be shown once. It is sealed with a key that is made
from the server's secret *and* from what only the caller knows (their ``Idempotency-Key`` and the
fingerprint of their request), so that neither a copy of the database, nor the database and the
secret together, opens it without the caller.
"""

import hashlib
import hmac
import secrets
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from shared.errors import PlatformError

_VERSION = b"\x01"
_KEY_ID = 4
_NONCE = 12
_TAG = 16
_HEADER = len(_VERSION) + _KEY_ID + _NONCE
_SHORTEST_SECRET = 32

Part = str | bytes


class Unsealable(PlatformError):
    """These bytes were sealed under another secret, for another context, or have been changed."""


class Sealer:
    """Seals and opens with AES-256-GCM, under a key of its own for every context.

    ``secrets`` newest first: the first seals, all open. ``purpose`` keeps two sealers with the
    same secret apart: what one sealed, the other cannot open.
    """

    def __init__(self, *, secrets: Sequence[str], purpose: str) -> None:
        encoded = [secret.encode() for secret in secrets]
        if not encoded or any(len(secret) < _SHORTEST_SECRET for secret in encoded):
            raise ValueError(f"a sealing secret has at least {_SHORTEST_SECRET} bytes")
        # HKDF (RFC 5869): extract once here, expand once per context.
        roots = [hmac.digest(purpose.encode(), secret, "sha256") for secret in encoded]
        self._roots = {_key_id(root): root for root in reversed(roots)}
        self._newest = _key_id(roots[0])

    def seal(self, plain: bytes, *context: Part) -> bytes:
        """``plain``, readable only to whoever can name the same context again."""
        header = _VERSION + self._newest + secrets.token_bytes(_NONCE)
        cipher = AESGCM(_expand(self._roots[self._newest], context))
        return header + cipher.encrypt(header[-_NONCE:], plain, header)

    def open(self, sealed: bytes, *context: Part) -> bytes:
        """What was sealed; raises ``Unsealable`` if secret or context are not the same."""
        header, rest = sealed[:_HEADER], sealed[_HEADER:]
        root = self._roots.get(header[len(_VERSION) : len(_VERSION) + _KEY_ID])
        if root is None or not header.startswith(_VERSION) or len(rest) < _TAG:
            raise Unsealable("sealed under a secret that is not known here")
        try:
            return AESGCM(_expand(root, context)).decrypt(header[-_NONCE:], rest, header)
        except InvalidTag:
            raise Unsealable("sealed for another context, or changed since") from None


def _expand(root: bytes, context: Sequence[Part]) -> bytes:
    # 32 bytes are one block of SHA-256, so HKDF's expansion is its first round: info, then 0x01.
    return hmac.digest(root, _unambiguous(context) + b"\x01", "sha256")


def _unambiguous(context: Sequence[Part]) -> bytes:
    """The parts with their lengths, so that ("ab", "c") and ("a", "bc") are different contexts."""
    encoded = [part.encode() if isinstance(part, str) else part for part in context]
    return b"".join(len(part).to_bytes(4, "big") + part for part in encoded)


def _key_id(root: bytes) -> bytes:
    return hashlib.sha256(b"key id" + root).digest()[:_KEY_ID]
