"""The first message of a Signal session: all that a phone here ever has to say to its own devices.

A session begins with X3DH: four agreements between the sender's identity and a key made up for
this (``base``), and the recipient's identity, signed prekey and one-time prekey. Their result is
the root of the Double Ratchet, whose first step gives the key for the first message. Every message
sent here begins a session of its own, so nothing has to be remembered.

Source: signal.org/docs/specifications/{x3dh,doubleratchet}; the labels and the layout are those of
libsignal, version 3, as whatsmeow and Baileys use it.
"""

import hashlib
import hmac
import secrets

from cryptography.hazmat.primitives import padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from tests.whatsapp import protobuf
from tests.whatsapp.devices import KeyBundle
from tests.whatsapp.keys import DJB, KeyPair, derive

VERSION = b"\x33"
NO_SALT = bytes(32)
BLOCK = 128
# Fields of ``SignalMessage`` and of ``PreKeySignalMessage``.
RATCHET_KEY, COUNTER, PREVIOUS_COUNTER, CIPHERTEXT = 1, 2, 3, 4
ONE_TIME_ID, BASE_KEY, IDENTITY_KEY, MESSAGE, REGISTRATION, SIGNED_ID = 1, 2, 3, 4, 5, 6
MAC_LENGTH = 8


def first_message(identity: KeyPair, registration: bytes, to: KeyBundle, plain: bytes) -> bytes:
    """A ``pkmsg`` that says ``plain``; takes one of the recipient's one-time prekeys for good."""
    base, ratchet = KeyPair(), KeyPair()
    signed = to.signed.child("value").data
    one_time = to.one_time.pop(0) if to.one_time else None
    agreed = identity.agree(signed) + base.agree(to.identity) + base.agree(signed)
    if one_time is not None:
        agreed += base.agree(one_time.child("value").data)
    root = derive(b"\xff" * 32 + agreed, salt=NO_SALT, info=b"WhisperText", length=64)[:32]
    chain = derive(ratchet.agree(signed), salt=root, info=b"WhisperRatchet", length=64)[32:]
    inner = _sealed(chain, ratchet, identity.public, to.identity, plain)
    fields: dict[int, int | bytes] = {
        REGISTRATION: int.from_bytes(registration, "big"),
        SIGNED_ID: int.from_bytes(to.signed.child("id").data, "big"),
        BASE_KEY: DJB + base.public,
        IDENTITY_KEY: DJB + identity.public,
        MESSAGE: inner,
    }
    if one_time is not None:
        fields[ONE_TIME_ID] = int.from_bytes(one_time.child("id").data, "big")
    return VERSION + protobuf.write(fields)


def padded(message: bytes) -> bytes:
    """A message as it is encrypted: one to fifteen bytes more, each of which says how many."""
    more = secrets.randbelow(15) + 1
    return message + bytes([more]) * more


def _sealed(chain: bytes, ratchet: KeyPair, sender: bytes, recipient: bytes, plain: bytes) -> bytes:
    seed = hmac.new(chain, b"\x01", hashlib.sha256).digest()
    keys = derive(seed, salt=NO_SALT, info=b"WhisperMessageKeys", length=80)
    message = VERSION + protobuf.write(
        {
            RATCHET_KEY: DJB + ratchet.public,
            COUNTER: 0,
            PREVIOUS_COUNTER: 0,
            CIPHERTEXT: encrypted(keys[:32], keys[64:], plain),
        }
    )
    signed = DJB + sender + DJB + recipient + message
    return message + hmac.new(keys[32:64], signed, hashlib.sha256).digest()[:MAC_LENGTH]


def encrypted(key: bytes, vector: bytes, plain: bytes) -> bytes:
    """AES in CBC mode with PKCS 7 padding."""
    padder = padding.PKCS7(BLOCK).padder()
    blocks = padder.update(plain) + padder.finalize()
    encryptor = Cipher(algorithms.AES(key), modes.CBC(vector)).encryptor()
    return encryptor.update(blocks) + encryptor.finalize()
