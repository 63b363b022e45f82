"""The cryptography beneath the rest: X25519 pairs, XEdDSA signatures, HKDF.

WhatsApp keeps one kind of key, a Curve25519 pair, for agreeing on secrets and for signing alike;
XEdDSA is how Signal signs with such a key (signal.org/docs/specifications/xeddsa).
"""

import secrets

import xeddsa
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

# Signal writes this byte before a public key where it signs one: the kind of curve.
DJB = b"\x05"


class KeyPair:
    """A Curve25519 pair."""

    def __init__(self, private: bytes | None = None) -> None:
        self.private = _clamped(private or secrets.token_bytes(32))
        self._key = X25519PrivateKey.from_private_bytes(self.private)
        self.public = self._key.public_key().public_bytes_raw()

    def agree(self, public: bytes) -> bytes:
        """The secret that this pair shares with the owner of ``public``."""
        return self._key.exchange(X25519PublicKey.from_public_bytes(public))

    def sign(self, message: bytes) -> bytes:
        """A signature that verifies under ``public`` with a sign bit of 0, as in Signal."""
        return xeddsa.ed25519_priv_sign(xeddsa.priv_force_sign(self.private, False), message)


def verified(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether the owner of ``public`` has signed ``message``."""
    # The sign of the Ed25519 key travels in a bit that such a signature has to spare.
    sign = bool(signature[63] & 0x80)
    plain = signature[:63] + bytes([signature[63] & 0x7F])
    return xeddsa.ed25519_verify(plain, xeddsa.curve25519_pub_to_ed25519_pub(public, sign), message)


def derive(secret: bytes, *, salt: bytes | None = None, info: bytes = b"", length: int) -> bytes:
    """HKDF with SHA-256."""
    return HKDF(algorithm=SHA256(), length=length, salt=salt, info=info).derive(secret)


def _clamped(scalar: bytes) -> bytes:
    """A random number as a Curve25519 scalar: a multiple of 8, with bit 254 set (RFC 7748)."""
    first, last = scalar[0] & 0xF8, scalar[31] & 0x7F | 0x40
    return bytes([first, *scalar[1:31], last])
