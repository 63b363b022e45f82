"""The Noise handshake that every connection begins with, seen from the server.

``Noise_XX_25519_AESGCM_SHA256`` (noiseprotocol.org), in three messages that are protocol buffers
(``HandshakeMessage`` in whatsmeow ``proto/waWa6``; the steps in ``handshake.go``):

1. clientHello: the client's ephemeral key, in the clear.
2. serverHello: the server's ephemeral key; encrypted, its static key; encrypted under one more
   secret, the certificates that vouch for that static key (``certificates.py``).
3. clientFinish: encrypted, the client's static key and, under the last secret, what it wants: to
   log in as a device, or to be paired (``ClientPayload``).

From then on each side encrypts with a key of its own, a counter as nonce, and nothing else.
"""

import hashlib
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.whatsapp import protobuf
from tests.whatsapp.keys import KeyPair, derive

PATTERN = b"Noise_XX_25519_AESGCM_SHA256\0\0\0\0"
# What a client sends before anything else: "WA", the protocol's version, the dictionaries' version.
PROLOGUE: Final = b"WA\x06\x03"

CLIENT_HELLO, SERVER_HELLO, CLIENT_FINISH = 2, 3, 4
EPHEMERAL, STATIC, PAYLOAD = 1, 2, 3
FINISH_STATIC, FINISH_PAYLOAD = 1, 2


class Refused(Exception):
    """The other side does not do the handshake right."""


class Cipher:
    """One direction of an established link."""

    def __init__(self, key: bytes) -> None:
        self._key = AESGCM(key)
        self._count = 0

    def encrypt(self, plain: bytes) -> bytes:
        return self._key.encrypt(self._nonce(), plain, None)

    def decrypt(self, sealed: bytes) -> bytes:
        return self._key.decrypt(self._nonce(), sealed, None)

    def _nonce(self) -> bytes:
        nonce = _nonce(self._count)
        self._count += 1
        return nonce


class Handshake:
    """The server's side of one handshake: ``hello``, then ``finish``."""

    def __init__(self, static: KeyPair, certificates: bytes) -> None:
        self._static = static
        self._certificates = certificates
        self._ephemeral = KeyPair()
        self._hash = PATTERN
        self._salt = PATTERN
        self._key = AESGCM(PATTERN)
        self._count = 0
        self._authenticate(PROLOGUE)

    def hello(self, message: bytes) -> bytes:
        """The answer to the client's first message."""
        client_hello = protobuf.read(protobuf.inner(protobuf.read(message), CLIENT_HELLO))
        theirs = protobuf.inner(client_hello, EPHEMERAL)
        if len(theirs) != 32:
            raise Refused("no ephemeral key")
        self._authenticate(theirs)
        self._authenticate(self._ephemeral.public)
        self._mix(self._ephemeral.agree(theirs))
        static = self._encrypt(self._static.public)
        self._mix(self._static.agree(theirs))
        payload = self._encrypt(self._certificates)
        server_hello = {EPHEMERAL: self._ephemeral.public, STATIC: static, PAYLOAD: payload}
        return protobuf.write({SERVER_HELLO: protobuf.write(server_hello)})

    def finish(self, message: bytes) -> tuple[bytes, Cipher, Cipher]:
        """What the client wants, and the ciphers to read and to write with."""
        finish = protobuf.read(protobuf.inner(protobuf.read(message), CLIENT_FINISH))
        try:
            static = self._decrypt(protobuf.inner(finish, FINISH_STATIC))
            self._mix(self._ephemeral.agree(static))
            payload = self._decrypt(protobuf.inner(finish, FINISH_PAYLOAD))
        except InvalidTag:
            raise Refused("what the client has sealed does not open") from None
        keys = derive(b"", salt=self._salt, length=64)
        return payload, Cipher(keys[:32]), Cipher(keys[32:])

    def _authenticate(self, data: bytes) -> None:
        self._hash = hashlib.sha256(self._hash + data).digest()

    def _mix(self, secret: bytes) -> None:
        keys = derive(secret, salt=self._salt, length=64)
        self._salt, self._key, self._count = keys[:32], AESGCM(keys[32:]), 0

    def _encrypt(self, plain: bytes) -> bytes:
        sealed = self._key.encrypt(_nonce(self._count), plain, self._hash)
        self._count += 1
        self._authenticate(sealed)
        return sealed

    def _decrypt(self, sealed: bytes) -> bytes:
        plain = self._key.decrypt(_nonce(self._count), sealed, self._hash)
        self._count += 1
        self._authenticate(sealed)
        return plain


def _nonce(count: int) -> bytes:
    return bytes(8) + count.to_bytes(4, "big")
